"""The shipped workflows and the blueprint: as their builders make them, valid for ComfyUI; the demo and the blueprint run to
their pictures."""

import asyncio
import json
import urllib.error
from pathlib import Path

import pytest
from PIL import Image
from workflows import BLUEPRINT, NAMES, api_graph, inlined, load, load_blueprint

from tools import blueprints, example_workflows
from tools.litegraph import default, input_specs, is_widget
from tools.make_workflows import BLUEPRINTS, FOLDER, text_of

MODEL_FILES = {"unet_name": "diffusion_models", "clip_name": "text_encoders", "clip_name1": "text_encoders",
               "clip_name2": "text_encoders", "vae_name": "vae"}  # fmt: skip
MADE_WITH = "0.33.0"


def test_these_are_all():
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == NAMES
    assert [path.stem for path in BLUEPRINTS.glob("*.json")] == [BLUEPRINT]


def test_files_are_what_the_builder_makes(server):
    version = json.loads(server.get("/system_stats"))["system"]["comfyui_version"]
    if version != MADE_WITH:
        pytest.skip(f"they are made with ComfyUI {MADE_WITH}, whose core nodes have other inputs and outputs than {version}'s")
    info = server.object_info()
    for folder, makers in ((FOLDER, example_workflows.ALL), (BLUEPRINTS, blueprints.ALL)):
        for make in makers:
            workflow = make(info)
            assert (folder / f"{workflow.name}.json").read_text(encoding="utf-8") == text_of(workflow.graph()), (
                f"{workflow.name} is out of date; run: make workflows"
            )


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
    graph[number["OTReferenceSchedule"]]["inputs"]["cases"] = 2  # a third of the time
    graph[number["OTAnchorSearch"]]["inputs"]["trials"] = 20
    entry = server.run(graph, seconds=560)
    assert psnr(entry, number) > 35  # plain Euler with 10 steps has 28.5
    assert strip(entry, number) == (10, 50)

    graph[number["OTBudgetInterpolate"]]["inputs"]["budget"] = 15
    again = server.run(graph)
    cached = next(data["nodes"] for kind, data in again["status"]["messages"] if kind == "execution_cached")
    assert {number["OTReferenceSchedule"], number["OTAnchorSearch"], number["KSampler"]} <= set(cached)
    assert not {number["OTBudgetInterpolate"], number["OTCachedSampler"]} & set(cached)
    assert strip(again, number) == (15, 50)
    assert psnr(again, number) > psnr(entry, number)


def test_start_learns_in_its_first_run_and_is_near_in_the_second(make_server, tmp_path):
    """As its note says, with nothing changed but the sky."""
    with make_server(tmp_path) as server:
        graph = api_graph(load("otcache_start"), server.object_info())
        number = {node["class_type"]: key for key, node in graph.items()}
        text = server.run(graph)["outputs"][number["OTCompare"]]["text"][0]
        assert "equal to the last bit" in text
        graph[number["OTDemoModel"]]["inputs"]["sky"] = "sunset"
        again = server.run(graph)
        assert "OTCache: 16 model evaluations for 50 steps" in server.log()
        assert 35 < psnr(again, number) < 99


def test_blueprint_is_one_consistent_node():
    blueprint = load_blueprint()
    [outer], [definition] = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    assert outer["type"] == definition["id"] and outer["title"] == definition["name"] == BLUEPRINT
    for side in ("inputs", "outputs"):
        assert [entry["name"] for entry in outer[side]] == [entry["name"] for entry in definition[side]]
    nodes = {node["id"]: node for node in definition["nodes"]}
    for link in definition["links"]:
        number, kind = link["id"], link["type"]
        if link["origin_id"] in nodes:
            assert number in nodes[link["origin_id"]]["outputs"][link["origin_slot"]]["links"]
        else:
            entry = definition["inputs"][link["origin_slot"]]
            assert (entry["type"], link["origin_id"]) == (kind, definition["inputNode"]["id"]) and number in entry["linkIds"]
        if link["target_id"] in nodes:
            entry = nodes[link["target_id"]]["inputs"][link["target_slot"]]
            assert (entry["link"], entry["type"]) == (number, kind)
        else:
            entry = definition["outputs"][link["target_slot"]]
            assert (entry["type"], link["target_id"]) == (kind, definition["outputNode"]["id"]) and entry["linkIds"] == [number]
    widgets = [[str(link["target_id"]), nodes[link["target_id"]]["inputs"][link["target_slot"]]["name"]]
               for link in definition["links"] if link["origin_id"] not in nodes
               and "widget" in nodes[link["target_id"]]["inputs"][link["target_slot"]]]  # fmt: skip
    assert sum("widget" in entry for entry in outer["inputs"]) == len(widgets)
    sampler, place = next((entry[0], at) for at, entry in enumerate(widgets, 1) if entry[1] == "seed")
    widgets.insert(place, [sampler, "control_after_generate"])
    assert outer["properties"]["proxyWidgets"] == widgets


def test_the_server_offers_the_blueprint(server):
    try:
        offered = json.loads(server.get("/global_subgraphs"))
    except urllib.error.HTTPError as error:
        assert error.code == 404
        pytest.skip("this ComfyUI knows no blueprints of node packs")
    [number] = [number for number, entry in offered.items() if entry["name"] == BLUEPRINT]
    assert json.loads(json.loads(server.get(f"/global_subgraphs/{number}"))["data"]) == load_blueprint()


def test_blueprint_runs_to_its_picture(server):
    """With a real CLIP of random weights, so the pictures show nothing; but each prompt gives its own."""
    assert blueprint_picture(server, "a red house") != blueprint_picture(server, "a lighthouse")


def blueprint_picture(server, prompt):
    values = {"model": ["model", 0], "vae": ["model", 3], "clip": ["clip", 0], "schedule": ["schedule", 0], "steps": 25,
              "prompt": prompt, "negative_prompt": "", "width": 128, "height": 64, "seed": 3, "cfg": 4.0}  # fmt: skip
    graph, ends = inlined(load_blueprint(), server.object_info(), values)
    graph |= {
        "model": {"class_type": "OTDemoModel", "inputs": defaults(server, "OTDemoModel")},
        "clip": {"class_type": "TinyCLIP", "inputs": {}},
        "schedule": {"class_type": "OTLoadSchedule", "inputs": {"schedule": "lemica-flux1-dev-10"}},
        "text": {"class_type": "PreviewAny", "inputs": {"source": ends["report"]}},
        "image": {"class_type": "SaveImage", "inputs": {"images": ends["image"], "filename_prefix": "blueprint"}},
    }
    outputs = server.run(graph)["outputs"]
    assert outputs["text"]["text"][0].startswith("10 model evaluations for 25 steps")
    [image] = outputs["image"]["images"]
    with Image.open(server.base / "output" / image["filename"]) as picture:
        assert picture.width == 2 * picture.height
        return picture.tobytes()


def defaults(server, kind):
    """The widget values of a new node."""
    return {name: default(spec) for name, spec in input_specs(server.object_info()[kind]) if is_widget(spec)}


def strip(entry, number):
    """(evaluations, steps) on the strip of the cached sampler."""
    [shown] = entry["outputs"][number["OTCachedSampler"]]["otcache"]
    return shown["evaluations"], shown["steps"]


def psnr(entry, number):
    text = entry["outputs"][number["OTCompare"]]["text"][0]
    return float(text.split("PSNR: ")[1].split(" dB")[0])
