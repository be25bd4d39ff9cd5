"""Damaged recordings, full disks and several processes on one file: one clear sentence, and earlier results intact."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mixture import MixtureGenerator, linear_sigmas

from otcache_core.calibration.recording import analyse, record_cases
from otcache_core.commands.bars import Bars
from otcache_core.commands.search import demo_search
from otcache_core.sampling.rollout import Counted
from otcache_core.sampling.trajectory import Trajectory, load_trajectory
from otcache_core.schedules.schedule import load_schedule, make_schedule

ROOT = Path(__file__).parents[2]
GRID, CASES = linear_sigmas(12, shift=3.0), [1, 2]


def kept(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def damage(path: Path, kind: str) -> None:
    good, data = load_trajectory(path), path.read_bytes()
    other = {"x": torch.cat([good.x, good.x], -1), "d": torch.cat([good.d, good.d], -1)}
    if kind == "other shape":
        replace(good, **other).save(path)
    elif kind == "other grid":
        replace(good, sigmas=GRID * 0.9).save(path)
    elif kind == "fewer steps":
        Trajectory(good.sigmas[:-1], good.x[:-1], good.d[:-1]).save(path)
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    else:
        nan = data[:-8] + b"\xff" * 8
        path.write_bytes({"empty": b"", "half": data[: len(data) // 2], "junk": b"x" * 500, "NaN": nan}[kind])


@pytest.mark.parametrize("kind", ["empty", "half", "junk", "NaN", "other shape", "other grid", "fewer steps", "folder"])
def test_a_damaged_recording_is_made_again(tmp_path, caplog, kind):
    record_cases(MixtureGenerator(), CASES, GRID, folder=tmp_path)
    before = kept(tmp_path)
    damage(tmp_path / "1.safetensors", kind)
    counted = Counted(MixtureGenerator())
    with caplog.at_level(logging.WARNING):
        again = record_cases(counted, CASES, GRID, folder=tmp_path)
    assert counted.evaluations == len(GRID) - 1 + 1  # one run, and one evaluation to check the other
    assert len(again) == len(CASES) and np.array_equal(again[0].sigmas, GRID)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) <= 1 + (kind == "folder") and all(line.startswith("OTCache: ") and "\n" not in line for line in lines)
    if kind in ("empty", "half", "junk", "NaN"):
        assert "record it again" in lines[0]
    if kind != "folder":
        assert kept(tmp_path) == before


def test_a_folder_that_cannot_be_written_costs_a_line_and_no_run(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        runs = record_cases(MixtureGenerator(), CASES, GRID, folder=tmp_path / "file" / "folder")
    assert len(runs) == 2 and "Cannot write" in caplog.text and "Traceback" not in caplog.text


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("kind", ["", "journal:"])
def test_the_command_line_keeps_its_recordings(tmp_path, monkeypatch, kind):
    """A search that stops after its second full run makes neither of them again."""
    import otcache_core.commands.search as module

    evaluations, real = [], module.load_generator

    def counted():
        evaluations.append(Counted(real()))
        evaluations[-1].sigmas = evaluations[-1].generator.sigmas
        evaluations[-1].decode = evaluations[-1].generator.decode
        return evaluations[-1]

    def stopping(generator, cases, grid, progress=None, **options):
        def stop(stage, done, total, note):
            if stage == "record" and done == 2 and len(evaluations) == 1:
                raise Interrupted
            progress(stage, done, total, note)

        return analyse(generator, cases, grid, progress=stop, **options)

    monkeypatch.setattr(module, "load_generator", counted)
    monkeypatch.setattr(module, "analyse", stopping)
    storage = f"{kind}{tmp_path / 'study.db'}"
    with Bars() as bars:
        with pytest.raises(Interrupted):
            demo_search(2, 1, 2, 0, storage, bars)
        assert evaluations[0].evaluations == 2 * 50
        demo_search(2, 1, 2, 0, storage, bars)
        demo_search(2, 1, 2, 0, storage, bars)
    assert evaluations[1].evaluations < 60
    assert len(list(tmp_path.glob("study.db.recordings/*/*.safetensors"))) == 2


# -- full disks ----------------------------------------------------------------------------------------------

FULL = """
import json, resource, sys
from pathlib import Path
import numpy as np, torch
from otcache_core.calibration.measurement_log import MeasurementLog
from otcache_core.calibration.places import find_place
from otcache_core.calibration.statistics import load_statistics
from otcache_core.calibration.storages import open_storage
from otcache_core.errors import OTCacheError
from otcache_core.sampling.trajectory import load_trajectory
from otcache_core.schedules.schedule import load_schedule
import optuna

folder = Path(sys.argv[1])
schedule = load_schedule(folder / "schedule.json")
run = load_trajectory(folder / "run.safetensors")
statistics = load_statistics(folder / "statistics.safetensors")
memo = MeasurementLog(folder / "memo.jsonl")
acts = {
    "schedule": lambda: schedule.replace(provenance="y" * 4000).save(folder / "schedule.json"),
    "run": lambda: run.save(folder / "run.safetensors"),
    "statistics": lambda: statistics.save(folder / "statistics.safetensors"),
    "memo": lambda: memo.put("key", "y" * 5000),
    "new study": lambda: open_storage(str(folder / "study.db")),
}
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # a write beyond it fails as one on a full disk does
for name, act in acts.items():
    try:
        act()
        print(json.dumps([name, None]))
    except OTCacheError as error:
        print(json.dumps([name, str(error)]))
"""


@pytest.mark.skipif(os.name == "nt", reason="has no such limit")
def test_a_full_disk_is_one_sentence_and_what_was_there_stays(tmp_path):
    from test_hostile_files import check_sentence, statistics_file

    statistics_file(tmp_path / "statistics.safetensors")
    make_schedule(sigmas=tuple(GRID.tolist()), compute_steps=(0, 5)).save(tmp_path / "schedule.json")
    record_cases(MixtureGenerator(), [1], GRID)[0].save(tmp_path / "run.safetensors")
    (tmp_path / "memo.jsonl").write_text(json.dumps(["old", 1]) + "\n" + " " * 990 + "\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = dict(map(json.loads, done.stdout.splitlines()))
    assert len(told) == 5
    for name, message in told.items():
        assert message, f"{name} did not fail"
        check_sentence(message)
        assert str(tmp_path) in message
    for name, data in before.items():
        assert (tmp_path / name).read_bytes().startswith(data)
    assert {path.name for path in tmp_path.iterdir()} <= {*before, "study.db", "study.db-journal"}


# -- two processes -------------------------------------------------------------------------------------------

WRITER = """
import sys
from otcache_core.schedules.schedule import load_schedule
schedule = load_schedule(sys.argv[1]).replace(provenance=sys.argv[2] * 3000)
for _ in range(100):
    schedule.save(sys.argv[1])
"""


def test_two_processes_that_save_one_file_never_leave_it_half(tmp_path):
    path = tmp_path / "schedule.json"
    make_schedule(sigmas=tuple(GRID.tolist()), compute_steps=(0, 5)).save(path)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), letter], env=environment) for letter in "ab"]
    while any(writer.poll() is None for writer in writers):
        assert load_schedule(path).provenance in ("", "a" * 3000, "b" * 3000)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
