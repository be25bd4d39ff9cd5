"""What people have from version 0.1 (saved/0.1/README.md, tests/core/saved/0.1) still works in the nodes."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from tools.api_graph import FRONTEND_ONLY, api_graph
from tools.litegraph import default, has_control, input_specs, is_widget, kind_of

SAVED = Path(__file__).parent / "saved" / "0.1"
FILES = Path(__file__).parents[1] / "core" / "saved" / "0.1"
PROMPTS = sorted(path.name for path in SAVED.glob("*.prompt.json"))
WORKFLOWS = sorted(path.name for path in SAVED.glob("*.json") if path.name not in PROMPTS)
MODEL_FILES = {"unet_name": "diffusion_models", "clip_name": "text_encoders", "clip_name1": "text_encoders",
               "clip_name2": "text_encoders", "vae_name": "vae"}  # fmt: skip
QUICK = {
    "OTDemoModel": {"batch_size": 1},
    "OTReferenceSchedule": {"steps": 12, "cases": 1, "budget": 5},
    "OTAnchorSearch": {"budget": 3, "trials": 4},
    "OTBudgetInterpolate": {"budget": 4},
    "OTCachedSampler": {"steps": 12},
    "KSampler": {"steps": 12},
}


def load(name):
    return json.loads((SAVED / name).read_text(encoding="utf-8"))


def test_these_are_all():
    assert len(WORKFLOWS) == 5 and len(PROMPTS) == 5


# -- workflows and prompts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_node_and_widget_of_a_workflow_is_there(server, name):
    info = server.object_info()
    for node in nodes_of(load(name)):
        specs = dict(input_specs(info[node["type"]]))
        for entry in node["inputs"]:
            assert kind_of(specs[entry["name"]]) == entry["type"], f"{node['type']}: {entry['name']}"
            assert is_widget(specs[entry["name"]]) == ("widget" in entry)
        saved = [entry["name"] for entry in node["inputs"] if "widget" in entry]
        widgets = [key for key, spec in specs.items() if is_widget(spec)]
        assert widgets[: len(saved)] == saved  # saved values have no names: those of new widgets come last
        outputs = list(zip(info[node["type"]]["output_name"], info[node["type"]]["output"], strict=True))
        assert outputs[: len(node["outputs"])] == [(entry["name"], entry["type"]) for entry in node["outputs"]]


def nodes_of(workflow):
    """Nodes of the graph and of its subgraphs that a server knows."""
    subgraphs = workflow.get("definitions", {}).get("subgraphs", [])
    inside = [node for definition in subgraphs for node in definition["nodes"]]
    known = {definition["id"] for definition in subgraphs} | FRONTEND_ONLY
    return [node for node in [*workflow["nodes"], *inside] if node["type"] not in known]


@pytest.mark.parametrize("name", [name for name in WORKFLOWS if f"{Path(name).stem}.prompt.json" in PROMPTS])
def test_a_workflow_still_means_the_prompt_that_it_meant(server, name):
    """Its saved widget values, by their places, are those that the frontend of then sent by name."""
    workflow, info = load(name), server.object_info()
    for node in nodes_of(workflow):
        widgets = [(key, spec) for key, spec in input_specs(info[node["type"]]) if is_widget(spec)]
        values = node["widgets_values"]
        for key, spec in widgets[len([entry for entry in node["inputs"] if "widget" in entry]) :]:  # came later
            values += [default(spec), *(["fixed"] if has_control(key, spec) else [])]
    now = api_graph(workflow, info)
    for number, node in load(f"{Path(name).stem}.prompt.json").items():
        assert now[number]["class_type"] == node["class_type"]
        assert now[number]["inputs"].items() >= node["inputs"].items(), node["class_type"]


@pytest.mark.parametrize("name", PROMPTS)
def test_comfyui_accepts_a_prompt(host, name):
    valid, error, outputs, node_errors = validate(load(name))
    assert valid and not node_errors, f"{error} {node_errors}"
    assert outputs


def test_a_prompt_without_what_it_always_had_is_refused(host):
    prompt = load("otcache_demo.prompt.json")
    [node] = [node for node in prompt.values() if node["class_type"] == "OTBudgetInterpolate"]
    del node["inputs"]["budget"]
    assert validate(prompt)[3]


def validate(prompt):
    """(valid, error, outputs, errors by node); model files that it names are put in place."""
    import execution
    import folder_paths

    for node in prompt.values():
        for entry, value in node["inputs"].items():
            if entry in MODEL_FILES:
                folder = Path(folder_paths.get_folder_paths(MODEL_FILES[entry])[-1])
                folder.mkdir(parents=True, exist_ok=True)
                (folder / value).touch()
    return asyncio.run(execution.validate_prompt("1", prompt, None))[:4]


@pytest.mark.parametrize("name", ["otcache_demo.prompt.json", "otcache_demo_before.prompt.json"])
def test_a_prompt_runs(server, name):
    prompt = load(name)
    for node in prompt.values():
        quick = QUICK.get(node["class_type"], {})
        assert set(quick) <= set(node["inputs"])
        node["inputs"] |= quick
    outputs = server.run(prompt)["outputs"]
    texts = [text for output in outputs.values() for text in output.get("text", [])]
    assert any("4 model evaluations for 12 steps" in text for text in texts)
    assert any("Anchor: 3 of 12 evaluations" in text for text in texts)
    assert sum(image["type"] == "output" for output in outputs.values() for image in output.get("images", [])) == 3


# -- schedules, studies and memos ----------------------------------------------------------------------------


@pytest.fixture
def old_schedules(host):
    """The saved schedules by name, as OT Load Schedule gives them."""
    import folder_paths

    folder = Path(folder_paths.get_folder_paths("otcache_schedules")[0], "saved_by_0_1")
    folder.mkdir(parents=True)
    names = ("reference", "anchor", "interpolated", "preset", "search")
    for name in names:
        shutil.copy(FILES / f"{name}.json", folder)
    yield {name: host.run("OTLoadSchedule", schedule=f"{folder.name}/{name}.json")[0] for name in names}
    shutil.rmtree(folder)


def test_schedules_serve_the_slider_and_the_sampler(host, demo, old_schedules):
    both = {name: old_schedules[name] for name in ("reference", "anchor")}
    four, _ = host.run("OTBudgetInterpolate", **both, budget=4)
    assert four == old_schedules["anchor"].prepared[1]
    for schedule in (four, *old_schedules.values()):
        latent, report = host.run(
            "OTCachedSampler", model=demo.model, seed=1, steps=schedule.steps, cfg=1.0, sampler_name="euler",
            scheduler="simple", positive=demo.positive, negative=demo.negative, latent_image=demo.latent, denoise=1.0,
            schedule=schedule,
        )  # fmt: skip
        assert f"{schedule.budget} model evaluations for {schedule.steps} steps" in report
        assert latent["samples"].isfinite().all()


def test_a_calibration_goes_on_in_the_folder_of_an_old_one(host, tmp_path, monkeypatch):
    """The same request as the one that wrote the files, on top of them; the memo's last line is cut."""
    import folder_paths
    import optuna

    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path))
    own = tmp_path / "otcache"
    own.mkdir()
    shutil.copy(FILES / "searches.db", own)
    [memo] = FILES.glob("*.jsonl")
    (own / memo.name).write_bytes(memo.read_bytes()[:-25])
    url = f"sqlite:///{own / 'searches.db'}"

    def trials():
        found = {name: optuna.load_study(study_name=name, storage=url).trials for name in optuna.get_all_study_names(url)}
        return {name: [(t.number, t.value, t.params) for t in those if t.state.is_finished()] for name, those in found.items()}

    before = trials()
    assert [len(found) for found in before.values()] == [8]
    model, positive, negative, vae, latent = host.run("OTDemoModel", random_scenes=1000, batch_size=2)
    reference, calibration, _ = host.run(
        "OTReferenceSchedule", model=model, positive=positive, negative=negative, latent_image=latent, seed=500, steps=12,
        cfg=7.5, cases=2, budget=5,
    )  # fmt: skip
    anchor, _, summary = host.run(
        "OTAnchorSearch", model=model, vae=vae, calibration=calibration, reference=reference, budget=3, trials=8
    )
    assert "Anchor: 3 of 12 evaluations" in summary and [s.budget for s in anchor.prepared] == [3, 4, 5]
    after = trials()
    for name, old in before.items():
        assert after[name][: len(old)] == old
