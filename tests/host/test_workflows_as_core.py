"""Example workflows for real models have the files and settings of ComfyUI's own templates, where those are installed."""

import importlib.metadata
import json

import pytest
from workflows import load

CORE = {
    "otcache_flux_dev": "flux_dev_full_text_to_image",
    "otcache_calibrate": "flux_dev_full_text_to_image",
    "otcache_qwen_image": "image_qwen_image",
    "otcache_z_image": "image_z_image",
    "otcache_hunyuan_video": "hunyuan_video_text_to_video",
    "otcache_wan2_2_t2v": "video_wan2_2_14B_t2v",
}
SAME = ("UNETLoader", "CLIPLoader", "DualCLIPLoader", "VAELoader", "ModelSamplingAuraFlow", "ModelSamplingSD3", "FluxGuidance",
        "BasicScheduler", "KSamplerSelect", "VAEDecodeTiled", "EmptyHunyuanLatentVideo")  # fmt: skip
# Steps, guidance, and where the second expert begins; core chooses them, and the sampler's beside, with a switch.
SWITCHED = {"otcache_qwen_image": {20, 4}, "otcache_wan2_2_t2v": {20, 10, 3.5, 16}}
SAMPLED = {
    "otcache_flux_dev": [20, 1, "euler", "simple"],
    "otcache_qwen_image": [20, 4, "euler", "simple"],
    "otcache_z_image": [25, 4, "res_multistep", "simple"],
    "otcache_wan2_2_t2v": [20, 3.5, "euler", "simple"],
}
every_pair = pytest.mark.parametrize("ours, theirs", CORE.items())


def core_nodes(name):
    """All nodes of a template of ComfyUI's, those of its subgraphs too."""
    for package in ("comfyui-workflow-templates-json", "comfyui-workflow-templates"):
        try:
            files = importlib.metadata.distribution(package).files or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.name == f"{name}.json" and file.parent.name == "templates":
                workflow = json.loads(file.locate().read_text(encoding="utf-8"))
                inside = [node for part in workflow.get("definitions", {}).get("subgraphs", []) for node in part["nodes"]]
                return [*workflow["nodes"], *inside]
    pytest.skip(f"this environment has no template {name} of ComfyUI's")


def models_of(nodes):
    return {entry["name"]: (entry["directory"], entry["url"].partition("?")[0])
            for node in nodes for entry in node.get("properties", {}).get("models", [])}  # fmt: skip


def values_of(nodes, kind):
    """Of all nodes of a kind, numbers as floats: core writes 3 and 3.1000000000000005."""
    found = [node["widgets_values"] for node in nodes if node["type"] == kind]
    return sorted(str([v if isinstance(v, str) else round(float(v), 6) for v in values]) for values in found)


@every_pair
def test_files_lie_where_core_has_them(ours, theirs):
    found, core = models_of(load(ours)["nodes"]), models_of(core_nodes(theirs))
    assert found.items() <= core.items()
    assert all("lora" in name.lower() or "lightning" in name.lower() for name in core.keys() - found.keys())
    named = {value for node in load(ours)["nodes"] for value in node.get("widgets_values", [])
             if isinstance(value, str) and value.endswith(".safetensors")}  # fmt: skip
    assert named == found.keys()
    [note] = [node["widgets_values"][0] for node in load(ours)["nodes"] if node["type"] == "MarkdownNote"]
    assert all(f"models/{directory}: [{name}]({url})" in note for name, (directory, url) in found.items())


@every_pair
def test_settings_are_those_of_core(ours, theirs):
    nodes, core = load(ours)["nodes"], core_nodes(theirs)
    for kind in SAME if ours == "otcache_calibrate" else (*SAME, "EmptySD3LatentImage"):
        if values_of(core, kind):
            assert values_of(nodes, kind) == values_of(core, kind), kind
    numbers = {node["widgets_values"][0] for node in core if node["type"] in ("PrimitiveInt", "PrimitiveFloat")}
    assert SWITCHED.get(ours, set()) <= numbers
    for node in nodes:
        if node["type"].startswith("KSampler") and node["type"] != "KSamplerSelect":
            first = node["widgets_values"].index(SAMPLED[ours][0])
            assert node["widgets_values"][first : first + 4] == SAMPLED[ours]
    if ours not in SWITCHED:
        ksamplers = [node["widgets_values"][2:6] for node in core if node["type"] == "KSampler"]
        assert ksamplers == ([SAMPLED["otcache_flux_dev" if ours == "otcache_calibrate" else ours]] if ksamplers else [])
