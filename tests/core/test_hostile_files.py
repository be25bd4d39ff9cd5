"""A thousand damaged and hostile files of each kind: loaded right or refused with one sentence, quickly, in little memory."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from driving import drive, taken
from hypothesis import given, settings
from hypothesis import strategies as st
from mixture import MixtureGenerator, linear_sigmas
from mutants import of_json, of_safetensors

from otcache_core.calibration.statistics import FORMAT, of_recording, summed
from otcache_core.commands.embedded import load_generator
from otcache_core.demo.stored import TRANSFORMER_FILE, VAE_FILE, WEIGHTS
from otcache_core.errors import OTCacheError
from otcache_core.sampling.rehearsal import Rehearsal
from otcache_core.schedules.schedule import make_schedule, parse_schedule

COUNT, MOST_MB, MOST_SECONDS = 1000, 200, 5
ROOT = Path(__file__).parents[2]

# Loads every file of a folder and prints, for each: its message or None, whether what was loaded is so again once it is saved.
LOADER = """
import json, os, sys, tempfile, time
kind, folder = sys.argv[1:]
from otcache_core.errors import OTCacheError
from otcache_core.schedules.schedule import Schedule, load_schedule, make_schedule
from otcache_core.calibration.statistics import load_statistics
load = load_schedule if kind == "schedule" else load_statistics
spare = tempfile.mkdtemp()
allowed = (os.path.realpath(folder), os.path.realpath(spare))
touched, told = [], []

def memory():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

def again(value):
    path = os.path.join(spare, "again" + (".json" if kind == "schedule" else ".safetensors"))
    value.save(path)
    back = load(path)
    if kind == "schedule":
        return back == value
    path2 = path + ".2"
    back.save(path2)
    with open(path, "rb") as a, open(path2, "rb") as b:
        return a.read() == b.read()

def watch(event, arguments):
    if event in ("open", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "subprocess.Popen",
                 "socket.connect", "os.system", "os.exec"):
        path = arguments[0]
        if not isinstance(path, int) and not os.path.realpath(os.fsdecode(path)).startswith(allowed):
            touched.append([event, str(path)])

names = sorted(os.listdir(folder))
load_first = os.path.join(folder, names[0])
try:
    again(load(load_first))  # brings every import with it
except OTCacheError:
    pass
before = memory()
sys.addaudithook(watch)
for name in names:
    begin, message, same = time.perf_counter(), None, True
    try:
        value = load(os.path.join(folder, name))
    except OTCacheError as error:
        message = str(error)
    else:
        same = again(value)
    told.append([name, message, same, time.perf_counter() - begin])
seen = list(touched)
print(json.dumps({"told": told, "touched": seen, "mb": memory() - before}))
"""


def schedule_text() -> str:
    """An anchor as it is saved."""
    sigmas = tuple(linear_sigmas(12, shift=3.0).tolist())
    rows = ((1.0,), (1.2, -0.2), (1.1, -0.05, -0.05), (0.9, 0.1, 0.0))
    fields = {"sigmas": sigmas, "compute_steps": (0, 2, 5, 8), "predictor": {"kind": "fitted"}, "weights": rows,
              "metric": "rmse", "score": 0.1, "cases": ("a prompt, 1",), "name": "an anchor", "parents": ("reference-5",),
              "versions": {"otcache": "0.1"}}  # fmt: skip
    inner = make_schedule(**fields | {"stage": "interpolated"})
    return make_schedule(**fields, stage="anchor", noise="flow", prepared=(inner,)).model_dump_json()


def statistics_file(path: Path) -> bytes:
    """What one run and its rehearsals teach, as it is saved."""
    generator, cases = MixtureGenerator(), [1]
    recording = taken(generator, cases, linear_sigmas(12, shift=3.0))
    visits, errors = [], {}
    for steps in ((0, 2, 5, 8), (0, 4)):
        rehearsal = Rehearsal(recording, steps)
        landed = drive(rehearsal, generator, cases)
        visits += rehearsal.visits.items()
        full = recording.x[-1]
        errors[steps] = float((landed - full).square().mean()), float(full.square().mean())
    replace(of_recording(recording), visits=summed(visits), rehearsals=errors).save(path)
    return path.read_bytes()


def load_all(kind: str, files: list[bytes], folder: Path) -> list:
    """What `LOADER` tells of each file, which must not take too much of anything."""
    folder.mkdir()
    ending = "json" if kind == "schedule" else "safetensors"
    for number, data in enumerate(files):
        (folder / f"{number:05}.{ending}").write_bytes(data)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOADER, kind, str(folder)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not done.stderr
    answer = json.loads(done.stdout)
    assert not answer["touched"] and {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert answer["mb"] <= MOST_MB
    for name, message, same, seconds in answer["told"]:
        assert same, f"{name} was loaded as something that cannot be saved and read again"
        assert seconds <= MOST_SECONDS, f"{name} took {seconds:.1f} s"
        if message is not None:
            check_sentence(message)
    return answer["told"]


def check_sentence(message: str) -> None:
    """One line that people can read."""
    assert message.isprintable() and len(message) < 1000 and message.endswith(".") and "Traceback" not in message, message


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures memory as Linux tells it")
def test_schedules(tmp_path):
    text = schedule_text()
    told = load_all("schedule", [text.encode(), *of_json(text, COUNT)], tmp_path / "files")
    assert told[0][1] is None and len(told) == COUNT + 1
    refused = sum(message is not None for _, message, *_ in told)
    assert COUNT / 2 < refused < COUNT


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures memory as Linux tells it")
def test_statistics(tmp_path):
    data = statistics_file(tmp_path / "good.safetensors")
    told = load_all("statistics", [data, *of_safetensors(data, FORMAT, COUNT)], tmp_path / "files")
    assert told[0][1] is None and len(told) == COUNT + 1
    refused = sum(message is not None for _, message, *_ in told)
    assert COUNT / 2 < refused < COUNT


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(sorted(json.loads(schedule_text()))), json_values, max_size=4), st.booleans())
@settings(max_examples=200)
def test_any_value_in_any_field(changes, whole):
    fields = (json.loads(schedule_text()) if whole else {}) | changes
    try:
        schedule = parse_schedule(json.dumps(fields))
    except OTCacheError as error:
        check_sentence(str(error))
    else:
        assert parse_schedule(schedule.model_dump_json()) == schedule


@pytest.mark.parametrize("name", [TRANSFORMER_FILE, VAE_FILE])
@pytest.mark.parametrize("damage", ["gone", "empty", "half", "junk", "header", "folder", "NaN", "other"])
def test_damaged_demo_weights(tmp_path, monkeypatch, name, damage):
    """One sentence, on the command line as in the node, which reads the same files."""
    import otcache_core.commands.embedded as module

    for file in (TRANSFORMER_FILE, VAE_FILE):
        (tmp_path / file).write_bytes((WEIGHTS / file).read_bytes())
    path, data = tmp_path / name, (WEIGHTS / name).read_bytes()
    length = 8 + int.from_bytes(data[:8], "little")
    if damage in ("gone", "folder"):
        path.unlink()
        if damage == "folder":
            path.mkdir()
    else:
        other = (WEIGHTS / (VAE_FILE if name == TRANSFORMER_FILE else TRANSFORMER_FILE)).read_bytes()
        path.write_bytes({
            "empty": b"", "half": data[: len(data) // 2], "junk": b"not safetensors at all", "other": other,
            "header": data[:8] + b"[" * (length - 8) + data[length:], "NaN": data[:length] + b"\xff" * (len(data) - length),
        }[damage])  # fmt: skip
    real = module.DemoGenerator
    monkeypatch.setattr(module, "DemoGenerator", lambda: real(tmp_path))
    with pytest.raises(OTCacheError, match="weights.*restore") as error:
        load_generator()
    check_sentence(str(error.value))
