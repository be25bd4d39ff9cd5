"""Files that version 0.1 wrote (saved/0.1/README.md) still load, sample and go on."""

import json
import shutil
from pathlib import Path

import numpy as np
import optuna
import pytest

from otcache_core import load_schedule, sample
from otcache_core.__main__ import main
from otcache_core.calibration.measurement_log import MeasurementLog
from otcache_core.demo.generator import DemoGenerator, cases

SAVED = Path(__file__).parent / "saved" / "0.1"
LATENTS = json.loads((SAVED / "latents.json").read_text(encoding="utf-8"))
EVERY = 512  # of a latent's numbers, one is kept in latents.json
MEMO = "otcache-B0-ae717dedcc6bb123.jsonl"


def still_there(old, new) -> bool:
    """Whether all that was saved is equal now; fields that came later are no matter."""
    if isinstance(old, dict):
        return all(key in new and still_there(value, new[key]) for key, value in old.items())
    if isinstance(old, list):
        return len(old) == len(new) and all(map(still_there, old, new))
    return old == new


@pytest.mark.parametrize("name", LATENTS)
def test_schedules_are_equal_in_every_field(name):
    saved = json.loads((SAVED / name).read_text(encoding="utf-8"))
    loaded = load_schedule(SAVED / name)
    assert still_there(saved, json.loads(loaded.model_dump_json()))
    assert len(loaded.prepared) == len(saved["prepared"]) == len(LATENTS[name]) - 1
    assert not still_there(saved, json.loads(loaded.replace(name="another").model_dump_json()))


@pytest.fixture(scope="module")
def generator():
    return DemoGenerator()


@pytest.mark.parametrize("name", LATENTS)
def test_schedules_give_the_latents_that_0_1_gave(generator, name):
    whole = load_schedule(SAVED / name)
    for schedule, row in zip((whole, *whole.prepared), LATENTS[name], strict=True):
        latent = sample(generator, cases(1, 2000), schedule).flatten()[::EVERY]
        np.testing.assert_allclose(latent, row, atol=1e-3, rtol=0, err_msg=schedule.name)


def test_a_saved_schedule_is_written_as_it_was(tmp_path):
    load_schedule(SAVED / "anchor.json").save(tmp_path / "again.json")
    assert load_schedule(tmp_path / "again.json") == load_schedule(SAVED / "anchor.json")


def test_a_search_goes_on_in_the_file_of_an_old_one(tmp_path, recwarn):
    storage, out = tmp_path / "search.db", tmp_path / "best.json"
    shutil.copy(SAVED / "search.db", storage)
    before = trials(storage)
    assert [len(found) for found in before.values()] == [6]
    arguments = ["search", "--budget", "6", "--cases", "1", "--trials", "8", "--storage", str(storage), "--out", str(out)]
    assert main(arguments) == 0
    assert not [warning for warning in recwarn if "experimental" in str(warning.message)]
    best = load_schedule(out)
    assert (best.budget, best.steps, best.stage) == (6, 50, "search")
    after = trials(storage)
    for name, old in before.items():
        assert after[name][: len(old)] == old
    assert max(map(len, after.values())) >= 8


def trials(storage: Path) -> dict[str, list]:
    """The finished trials of every study in an SQLite file: (number, state, value, parameters)."""
    url = f"sqlite:///{storage}"
    found = {name: optuna.load_study(study_name=name, storage=url).trials for name in optuna.get_all_study_names(url)}
    return {
        name: [(t.number, t.state, t.value, t.params) for t in those if t.state.is_finished()] for name, those in found.items()
    }


def test_a_damaged_memo_keeps_what_is_whole(tmp_path):
    lines = (SAVED / MEMO).read_bytes().splitlines(keepends=True)
    path, lost = tmp_path / MEMO, (3, len(lines) - 1)
    damaged = [*lines[:3], b"\x00\xff[[[0, 3\n", *lines[4:-1], lines[-1][:25]]
    path.write_bytes(b"".join(damaged))
    measured = [json.loads(line) for line in lines]
    memo = MeasurementLog(path)
    for number, (key, value) in enumerate(measured):
        assert memo.get(key) == (None if number in lost else value)
    for number in lost:
        memo.put(*measured[number])
    again = MeasurementLog(path)
    assert all(again.get(key) == value for key, value in measured)
