"""The shipped workflows, and how a workflow file becomes the graph that /prompt takes, as the frontend does it."""

import json

from tools.make_workflows import BLUEPRINTS, FOLDER

NAMES = ["otcache_calibrate", "otcache_demo", "otcache_flux_dev", "otcache_hunyuan_video", "otcache_qwen_image",
         "otcache_start", "otcache_wan2_2_t2v", "otcache_z_image"]  # fmt: skip
BLUEPRINT = "OTCache text to image"
FRONTEND_ONLY = {"MarkdownNote", "Note"}
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def load(name: str) -> dict:
    """One of `NAMES`."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def load_blueprint() -> dict:
    """The subgraph blueprint."""
    return json.loads((BLUEPRINTS / f"{BLUEPRINT}.json").read_text(encoding="utf-8"))


def api_graph(workflow: dict, info: dict) -> dict:
    """API format, with widget values given names by /object_info's order; all of them must be used up."""
    sources = {number: [str(node), slot] for number, node, slot, *_ in workflow["links"]}
    graph = {}
    for node in workflow["nodes"]:
        if node["type"] in FRONTEND_ONLY:
            continue
        inputs, values = {}, list(node["widgets_values"])
        declared = info[node["type"]]["input"]
        for name, (kind, *rest) in (declared.get("required", {}) | declared.get("optional", {})).items():
            extra = rest[0] if rest else {}
            if not isinstance(kind, list) and kind not in WIDGETS:
                continue
            inputs[name] = values.pop(0)
            if extra.get("control_after_generate", name in ("seed", "noise_seed")):
                assert values.pop(0) in ("fixed", "randomize", "increment", "decrement")
        assert not values, f"{node['type']} has widget values that no widget takes: {values}"
        for entry in node["inputs"]:
            if entry["link"] is not None:
                inputs[entry["name"]] = sources[entry["link"]]
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph


def inlined(blueprint: dict, info: dict, inputs: dict) -> tuple[dict, dict[str, list]]:
    """API graph of a blueprint's inside with `inputs` put where its own inputs lead; (graph, its outputs by name)."""
    [definition] = blueprint["definitions"]["subgraphs"]
    order = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [[link[key] for key in order] for link in definition["links"]]
    graph = api_graph({"nodes": definition["nodes"], "links": links}, info)
    names = [entry["name"] for entry in definition["inputs"]]
    outside = str(definition["inputNode"]["id"])
    for node in graph.values():
        for name, value in list(node["inputs"].items()):
            if isinstance(value, list) and value[0] == outside:
                node["inputs"][name] = inputs[names[value[1]]]
    ends = {link[4]: [str(link[1]), link[2]] for link in links if link[3] == definition["outputNode"]["id"]}
    return graph, {entry["name"]: ends[slot] for slot, entry in enumerate(definition["outputs"])}
