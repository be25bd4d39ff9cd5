"""What saved workflows and prompts hold on to: every node's inputs and outputs, in tests/host/node_contract.json.

    python -m tools.node_contract            adds what is new
    python -m tools.node_contract --break    also accepts what breaks saved workflows, which takes a new major version

(Comfy-Org's node-diff compares NODE_CLASS_MAPPINGS, which packs with the V3 API do not have.)
"""

import json
import sys
from math import inf

from otcache_core.schedules.presets import preset_names

from .litegraph import has_control, input_specs, is_widget, kind_of, options
from .make_workflows import REPOSITORY, object_info

FILE = REPOSITORY / "tests" / "host" / "node_contract.json"


def contract(info: dict) -> dict:
    """node -> inputs (name, type, whether a prompt must give it, choices, limits, widgets) and types of outputs, in order."""
    core = info["KSampler"]["input"]["required"]  # what ComfyUI chooses, such as its samplers, is not ours to keep
    published, found = set(preset_names()), {}
    for name, node in sorted(info.items()):
        if not name.startswith("OT"):
            continue
        inputs = []
        for key, spec in input_specs(node):
            entry = {"name": key, "type": kind_of(spec), "required": key in node["input"].get("required", {})}
            if entry["type"] == "COMBO" and key not in core:
                choices = spec[0] if isinstance(spec[0], list) else options(spec)["options"]
                entry["choices"] = [choice for choice in choices if key != "schedule" or choice in published]  # not users' own
            limits = {end: options(spec)[end] for end in ("min", "max") if end in options(spec)}
            inputs.append(entry | {"widget": is_widget(spec), "control": has_control(key, spec)} | limits)
        found[name] = {"inputs": inputs, "outputs": list(node["output"])}
    return found


def breaks(old: dict, new: dict) -> list[str]:
    """A sentence for each change that a saved workflow or prompt does not survive."""
    found = [f"{name} is gone" for name in old if name not in new]
    for name in (name for name in old if name in new):
        before, after = ({entry["name"]: entry for entry in side[name]["inputs"]} for side in (old, new))
        for key, entry in before.items():
            if key not in after:
                found.append(f"{name} has no input {key} any more")
            elif after[key]["type"] != entry["type"]:
                found.append(f"{name}: {key} was {entry['type']} and is {after[key]['type']}")
            elif any(after[key][part] != entry[part] for part in ("widget", "control")):
                found.append(f"{name}: {key} takes another place among the saved widget values")
            elif after[key].get("min", -inf) > entry.get("min", -inf) or after[key].get("max", inf) < entry.get("max", inf):
                found.append(f"{name}: {key} takes less than before")
            elif after[key]["required"] > entry["required"]:
                found.append(f"{name}: {key} was optional")
            elif lost := set(entry.get("choices", ())) - set(after[key].get("choices", ())):
                found.append(f"{name}: {key} has no choice {sorted(lost)} any more")
        found += [f"{name}: {key} is new, so prompts lack it; it must be optional"
                  for key, entry in after.items() if key not in before and entry["required"]]  # fmt: skip
        # Saved widget values have no names: only their places tell whose they are.
        widgets, places = ([key for key, entry in side.items() if entry["widget"]] for side in (before, after))
        if set(widgets) <= set(places) and places[: len(widgets)] != widgets:
            found.append(f"{name}: its widgets were {widgets} in this order, and new ones come after them")
        outputs = old[name]["outputs"]
        if new[name]["outputs"][: len(outputs)] != outputs:
            found.append(f"{name} gave {outputs} in this order, and new outputs come after them")
    return found


def text_of(nodes: dict) -> str:
    """The file's content."""
    return json.dumps(nodes, indent=1) + "\n"


def main(*arguments: str) -> None:
    """Start a server, ask it, write."""
    nodes = contract(object_info())
    known = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    if (broken := breaks(known, nodes)) and "--break" not in arguments:
        sys.exit("\n".join([*broken, "Keep it as it was, or write it with --break and raise the major version."]))
    FILE.write_text(text_of(nodes), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
