"""The shipped workflows, and the graph that /prompt takes of each."""

import json

from tools.api_graph import api_graph
from tools.make_workflows import BLUEPRINTS, FOLDER

NAMES = ["otcache_calibrate", "otcache_demo", "otcache_flux_dev", "otcache_hunyuan_video", "otcache_qwen_image",
         "otcache_start", "otcache_wan2_2_t2v", "otcache_z_image"]  # fmt: skip
BLUEPRINT = "OTCache text to image"


def load(name: str) -> dict:
    """One of `NAMES`."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def load_blueprint() -> dict:
    """The subgraph blueprint."""
    return json.loads((BLUEPRINTS / f"{BLUEPRINT}.json").read_text(encoding="utf-8"))


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
