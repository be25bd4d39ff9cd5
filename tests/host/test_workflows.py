"""The shipped workflows: as the builder makes them, laid out readably, valid for ComfyUI, and the demo runs to its pictures."""

import asyncio
import json
from itertools import combinations
from pathlib import Path

import pytest
from workflows import FRONTEND_ONLY, api_graph

from tools.example_workflows import ALL
from tools.make_workflows import FOLDER, text_of

NAMES = ["otcache_demo", "otcache_flux_dev", "otcache_hunyuan_video", "otcache_qwen_image"]
MODEL_FILES = {"unet_name": "diffusion_models", "clip_name": "text_encoders", "clip_name1": "text_encoders",
               "clip_name2": "text_encoders", "vae_name": "vae"}  # fmt: skip
TITLE = 30
MADE_WITH = "0.33.0"


def load(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def test_these_are_all():
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == NAMES


def test_files_are_what_the_builder_makes(server):
    version = json.loads(server.get("/system_stats"))["system"]["comfyui_version"]
    if version != MADE_WITH:
        pytest.skip(f"they are made with ComfyUI {MADE_WITH}, whose core nodes have other inputs and outputs than {version}'s")
    info = server.object_info()
    for make in ALL:
        workflow = make(info)
        assert (FOLDER / f"{workflow.name}.json").read_text(encoding="utf-8") == text_of(workflow.graph()), (
            f"{workflow.name} is out of date; run: make workflows"
        )


@pytest.mark.parametrize("name", NAMES)
def test_layout(name):
    workflow = load(name)
    boxes = {}
    for node in workflow["nodes"]:
        (x, y), (width, height) = node["pos"], node["size"]
        boxes[node["id"], node["type"]] = (x, y - TITLE, x + width, y + height)
    for (a, box), (b, other) in combinations(boxes.items(), 2):
        apart = box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1] or other[3] <= box[1]
        assert apart, f"{a} and {b} overlap"
    groups = [(x, y, x + width, y + height) for x, y, width, height in (g["bounding"] for g in workflow["groups"])]
    for a, b in combinations(groups, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    for (number, kind), (left, top, right, bottom) in boxes.items():
        inside = [g for g in groups if g[0] <= left and g[1] <= top and right <= g[2] and bottom <= g[3]]
        assert len(inside) == (0 if kind in FRONTEND_ONLY else 1), f"{kind} {number} stands in {len(inside)} groups"
    assert [node["type"] for node in workflow["nodes"]].count("MarkdownNote") == 1


@pytest.mark.parametrize("name", NAMES)
def test_links_agree_at_both_ends(name):
    workflow = load(name)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert len(nodes) == len(workflow["nodes"]) and max(nodes) == workflow["last_node_id"]
    for number, source, output, target, slot, kind in workflow["links"]:
        assert number in nodes[source]["outputs"][output]["links"] and nodes[source]["outputs"][output]["type"] == kind
        assert nodes[target]["inputs"][slot]["link"] == number and nodes[target]["inputs"][slot]["type"] in (kind, "*")
    linked = [entry["link"] for node in nodes.values() for entry in node["inputs"] if entry["link"] is not None]
    assert sorted(linked) == sorted(link[0] for link in workflow["links"])


@pytest.mark.parametrize("name", NAMES)
def test_comfyui_accepts_it(host, server, name):
    """ComfyUI's whole validation: classes, input names, link types, ranges, and combos with the model files in place."""
    import execution
    import folder_paths

    graph = api_graph(load(name), server.object_info())
    for node in graph.values():
        for entry, value in node["inputs"].items():
            if entry in MODEL_FILES:
                folder = Path(folder_paths.get_folder_paths(MODEL_FILES[entry])[-1])
                folder.mkdir(parents=True, exist_ok=True)
                (folder / value).touch()
    valid, error, outputs, node_errors = asyncio.run(execution.validate_prompt("1", graph, None))[:4]
    assert valid and not node_errors, f"{error} {node_errors}"
    assert outputs


def test_a_wrong_value_is_noticed(host, server):
    import execution

    graph = api_graph(load("otcache_demo"), server.object_info())
    sampler = next(node for node in graph.values() if node["class_type"] == "OTCachedSampler")
    sampler["inputs"]["steps"] = 0
    assert asyncio.run(execution.validate_prompt("1", graph, None))[3]


def test_demo_runs_to_its_pictures_and_the_slider_costs_nothing(server):
    graph = api_graph(load("otcache_demo"), server.object_info())
    number = {node["class_type"]: key for key, node in graph.items()}
    entry = server.run(graph, seconds=560)
    saved = [image for output in entry["outputs"].values() for image in output.get("images", []) if image["type"] == "output"]
    assert len(saved) == 3 and {image["filename"].split("_")[0] for image in saved} == {"compare", "cached", "full"}
    for image in saved:
        assert (server.base / "output" / image["subfolder"] / image["filename"]).stat().st_size > 1000
    assert psnr(entry, number) > 35  # 41.4; plain Euler with 10 steps has 28.5
    texts = [text for output in entry["outputs"].values() for text in output.get("text", [])]
    assert any("10 model evaluations for 50 steps" in text for text in texts)

    graph[number["OTBudgetInterpolate"]]["inputs"]["budget"] = 15
    again = server.run(graph)
    cached = next(data["nodes"] for kind, data in again["status"]["messages"] if kind == "execution_cached")
    assert {number["OTReferenceSchedule"], number["OTAnchorSearch"], number["KSampler"]} <= set(cached)
    assert not {number["OTBudgetInterpolate"], number["OTCachedSampler"]} & set(cached)
    texts = [text for output in again["outputs"].values() for text in output.get("text", [])]
    assert any("15 model evaluations for 50 steps" in text for text in texts)
    assert psnr(again, number) > psnr(entry, number)


def psnr(entry, number):
    text = entry["outputs"][number["OTCompare"]]["text"][0]
    return float(text.split("PSNR: ")[1].split(" dB")[0])


@pytest.mark.parametrize("name", NAMES)
def test_thumbnail(name):
    from PIL import Image

    path = FOLDER / f"{name}.jpg"
    with Image.open(path) as image:
        assert image.format == "JPEG" and min(image.size) >= 400
    assert path.stat().st_size < 150_000
