"""Writes locales/en/nodeDefs.json from the nodes' own schemas, as /object_info gives them. Run: python -m tools.make_locales"""

import json

from .litegraph import kind_of, options
from .make_workflows import REPOSITORY, object_info

FILE = REPOSITORY / "locales" / "en" / "nodeDefs.json"
NAMES = {"metric", "sampler_name", "scheduler", "schedule"}
"""Inputs whose choices are names, the same in every language."""


def node_definitions(info: dict) -> dict:
    """What a locale says of OTCache's nodes: display name, description, and names and tooltips of inputs and outputs.

    Choices of inputs that are words stand under options, for web/js: ComfyUI itself translates no choices.
    """
    found = {}
    for name, node in sorted(info.items()):
        if not name.startswith("OT"):
            continue
        inputs = {}
        for entries in node["input"].values():
            if isinstance(entries, dict):
                inputs |= {key: spec for key, spec in entries.items() if isinstance(spec, list | tuple)}
        inputs = {key: spec for key, spec in inputs.items() if len(spec) > 1 and "tooltip" in spec[1]}  # not the hidden ones
        outputs = zip(node["output_name"], node["output_tooltips"], strict=True)
        found[name] = {
            "display_name": node["display_name"],
            "description": node["description"],
            "inputs": {
                key: {"name": key, "tooltip": spec[1]["tooltip"]} | choices(key, spec) for key, spec in inputs.items()
            },
            "outputs": {str(i): {"name": label, "tooltip": tooltip} for i, (label, tooltip) in enumerate(outputs)},
        }
    return found


def choices(name: str, spec: list) -> dict:
    """{"options": value -> label} of an input whose choices are words, else {}."""
    if kind_of(spec) != "COMBO" or name in NAMES:
        return {}
    values = spec[0] if isinstance(spec[0], list) else options(spec)["options"]
    return {"options": {value: value for value in values}}


def text_of(definitions: dict) -> str:
    """The file's content."""
    return json.dumps(definitions, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Start a server, ask it, write."""
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(text_of(node_definitions(object_info())), encoding="utf-8")


if __name__ == "__main__":
    main()
