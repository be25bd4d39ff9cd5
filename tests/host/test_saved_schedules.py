"""OT Load Schedule and OT Save Schedule: nothing lost, nothing overwritten, nothing outside the folder."""

import json
import os
from pathlib import Path

import pytest

HOSTILE = ["../x", "..", "a/b", "a\\b", "/etc/x", "C:x", "", "   ", ".hidden", "x.", "con", "NUL.json", "lpt1.txt", "a\0b",
           "a\nb", "x" * 101, "~", "$HOME", "a*b", "a\u202eb", "....//x"]  # fmt: skip


@pytest.fixture
def folder(host):
    import folder_paths

    path = Path(folder_paths.get_folder_paths("otcache_schedules")[0])
    assert path.name == "otcache_schedules" and path.parent.name == "models"
    yield path
    for file in path.glob("**/*.json"):
        file.unlink()


def options(host):
    return host.classes["OTLoadSchedule"].INPUT_TYPES()["required"]["schedule"][1]["options"]


def save(host, schedule, name, **inputs):
    return Path(host.run_with_ui("OTSaveSchedule", schedule=schedule, name=name, **inputs)[1]["text"][0])


def test_every_preset_loads(host):
    presets = host.module("otcache_core.schedules.presets")
    assert set(presets.preset_names()) <= set(options(host))
    for name in presets.preset_names():
        schedule, = host.run("OTLoadSchedule", schedule=name)
        assert schedule == presets.preset(name)
        assert isinstance(schedule, host.module("otcache_core.schedules.schedule").Schedule)


def test_saved_comes_back_and_is_listed(host, folder):
    schedule, = host.run("OTLoadSchedule", schedule="lemica-flux1-dev-10")
    path = save(host, schedule, "Größe 1 (v2)")
    assert path == folder / "Größe 1 (v2).json" and path.name in options(host)
    assert host.run("OTLoadSchedule", schedule=path.name) == (schedule,)
    path.unlink()
    assert path.name not in options(host)


def test_nothing_is_overwritten_unless_asked(host, folder):
    first, = host.run("OTLoadSchedule", schedule="lemica-flux1-dev-10")
    second = first.replace(name="other")
    assert save(host, first, "x") == save(host, first, "x.json") == folder / "x.json"
    assert save(host, second, "x") == save(host, second, "x") == folder / "x_2.json"
    (folder / "x.json").write_text("not a schedule")
    assert save(host, first, "x") == folder / "x_3.json"
    assert (folder / "x.json").read_text() == "not a schedule"
    assert save(host, second, "x", overwrite=True) == folder / "x.json"
    assert host.run("OTLoadSchedule", schedule="x.json") == (second,)
    assert sorted(path.name for path in folder.glob("*.json")) == ["x.json", "x_2.json", "x_3.json"]


def test_failed_write_leaves_nothing(host, folder, monkeypatch):
    schedule, = host.run("OTLoadSchedule", schedule="lemica-flux1-dev-10")
    save(host, schedule, "y")
    before = (folder / "y.json").read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(ValueError, match="Cannot write .*No space left"):
        save(host, schedule.replace(name="new"), "y", overwrite=True)
    assert (folder / "y.json").read_bytes() == before and [path.name for path in folder.glob("*.json")] == ["y.json"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(host, folder, name):
    schedule, = host.run("OTLoadSchedule", schedule="lemica-flux1-dev-10")
    before = sorted(folder.parent.parent.rglob("*"))
    with pytest.raises(ValueError, match="cannot be a schedule's file name"):
        save(host, schedule, name)
    with pytest.raises(ValueError, match="There is no saved schedule"):
        host.run("OTLoadSchedule", schedule=name)
    assert sorted(folder.parent.parent.rglob("*")) == before


def test_file_outside_the_folder_is_not_read(host, folder):
    schedule, = host.run("OTLoadSchedule", schedule="lemica-flux1-dev-10")
    outside = folder.parent / "outside.json"
    schedule.save(outside)
    for name in ("../outside.json", str(outside)):
        with pytest.raises(ValueError, match="There is no saved schedule"):
            host.run("OTLoadSchedule", schedule=name)
    outside.unlink()


def test_users_own_folder_is_read_too(host, folder, tmp_path):
    import folder_paths

    schedule, = host.run("OTLoadSchedule", schedule="lemica-flux1-dev-10")
    schedule.save(tmp_path / "sub" / "mine.json")
    (tmp_path / "notes.txt").write_text("no schedule")
    paths, suffixes = folder_paths.folder_names_and_paths["otcache_schedules"]
    try:
        folder_paths.folder_names_and_paths["otcache_schedules"] = ([*paths, str(tmp_path)], set())  # as a YAML file adds it
        host.module("nodes.saved_schedules").register_folder()
        name = os.path.join("sub", "mine.json")
        assert name in options(host) and "notes.txt" not in options(host)
        assert host.run("OTLoadSchedule", schedule=name) == (schedule,)
    finally:
        folder_paths.folder_names_and_paths["otcache_schedules"] = (paths, suffixes)
        folder_paths.filename_list_cache.pop("otcache_schedules", None)


def test_bad_file_names_the_field(host, folder):
    schedule, = host.run("OTLoadSchedule", schedule="lemica-flux1-dev-10")
    fields = json.loads(save(host, schedule, "bad").read_text())
    (folder / "bad.json").write_text(json.dumps(fields | {"compute_steps": [3, 1]}))
    with pytest.raises(ValueError, match="bad.json: compute_steps"):
        host.run("OTLoadSchedule", schedule="bad.json")


def test_changed_file_is_read_again(server):
    def graph(schedule, name):
        return {"1": {"class_type": "OTLoadSchedule", "inputs": {"schedule": schedule}},
                "2": {"class_type": "OTSaveSchedule", "inputs": {"schedule": ["1", 0], "name": name, "overwrite": True}}}

    def copy_of(name):
        server.run(graph("x.json", name))
        return json.loads((server.base / "models/otcache_schedules" / f"{name}.json").read_text())["name"]

    for preset in ("lemica-flux1-dev-10", "meancache-qwen-image-10"):
        server.run(graph(preset, "x"))
        assert "x.json" in json.dumps(server.get("/object_info/OTLoadSchedule").decode())
        assert copy_of("copy") == preset


def test_server_refuses_unknown_names(server):
    graph = {"1": {"class_type": "OTLoadSchedule", "inputs": {"schedule": "../../x.json"}},
             "2": {"class_type": "OTSaveSchedule", "inputs": {"schedule": ["1", 0], "name": "y", "overwrite": False}}}
    answer = server.post("/prompt", {"prompt": graph})
    if "http_error" in answer:
        assert answer["http_error"] == 400
    else:  # ComfyUI 0.3 does not look into the combos of V3 nodes, so the node itself has to refuse
        status = server.wait(answer["prompt_id"])["status"]
        assert status["status_str"] == "error" and "There is no saved schedule" in json.dumps(status)
    assert not (server.base / "models/otcache_schedules/y.json").exists()
