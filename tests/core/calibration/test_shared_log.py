"""The log that workers share, two of them in this process; test_sharing.py has real ones."""

import json
import logging
import threading
import time

import numpy as np
import optuna
import pytest
from mixture import MixtureGenerator, linear_sigmas

from otcache_core.calibration import shared_log
from otcache_core.calibration.full_runs import record_cases
from otcache_core.calibration.measurement_log import MeasurementLog
from otcache_core.calibration.metrics import LATENT
from otcache_core.calibration.parts import agreed, divide, one_at_a_time, own_number
from otcache_core.calibration.places import find_place
from otcache_core.calibration.scoring import FINAL, Scorer
from otcache_core.calibration.settings import Settings
from otcache_core.calibration.shared_log import SharedLog
from otcache_core.calibration.sharing import FOLDER, Told, is_shared, shared_folder
from otcache_core.calibration.sharing import shared_log as open_shared
from otcache_core.calibration.storages import import_optuna
from otcache_core.errors import NotFiniteError, OTCacheError
from otcache_core.sampling.rollout import Counted, record

import_optuna()
GRID, CASES = linear_sigmas(12, shift=3.0), [1, 2, 3]


@pytest.fixture
def place(tmp_path):
    return find_place(f"journal:{tmp_path / 'log'}")


@pytest.fixture
def pair(place, monkeypatch):
    """Two workers' logs that always look anew."""
    monkeypatch.setattr(shared_log, "FRESH", -1.0)
    return SharedLog(place, "study"), SharedLog(place, "study")


def seen(log: SharedLog, key):
    log.look()
    return log.get(key)


def test_a_part_is_one_workers_until_it_is_done_or_given_back(pair):
    a, b = pair
    assert a.claim([[1], [2]], 1) == [[1]] and b.claim([[1], [2]], 2) == [[2]] and a.claim([[1], [2]], 2) == []
    a.put([1], [0.5, (1, 2)])
    b.release([[2]])
    assert seen(b, [1]) == a.get([1]) == [0.5, [1, 2]] and seen(a, [2]) is None
    assert b.claim([[1], [2]], 2) == [[2]]


def test_of_claims_of_one_moment_the_first_counts(pair, monkeypatch):
    """Both have looked before either claims, as it happens on a slow disk."""
    a, b = pair
    monkeypatch.setattr(SharedLog, "_is_free", lambda *_: True)
    assert a.claim(["part"], 1) == ["part"] and b.claim(["part"], 1) == []
    a.put("part", 1)
    assert b.claim(["part"], 1) == [] and seen(b, "part") == 1


def test_a_worker_without_a_sign_of_life_loses_its_part_and_what_it_finds_later(pair, monkeypatch):
    a, b = pair
    monkeypatch.setattr(shared_log, "PATIENCE", 0.3)
    a.claim(["part"], 1)
    assert b.claim(["part"], 1) == []
    time.sleep(0.4)
    assert b.claim(["part"], 1) == ["part"]
    a.put("part", "late")
    assert seen(a, "part") is seen(b, "part") is None
    b.put("part", "in time")
    assert seen(a, "part") == seen(b, "part") == "in time"


def test_a_worker_that_gives_signs_of_life_keeps_its_part(pair, monkeypatch):
    a, b = pair
    monkeypatch.setattr(shared_log, "PATIENCE", 0.6)
    monkeypatch.setattr(shared_log, "BEAT", 0.05)
    a.claim(["part"], 1)
    for _ in range(10):
        time.sleep(0.15)
        assert b.claim(["part"], 1) == []
    a.put("part", 1)
    time.sleep(0.2)
    assert not a._beating, "whoever holds nothing gives none"


def test_evaluations_are_counted_once_and_by_all(pair):
    a, b = pair
    a.counted, b.counted = (Counted(MixtureGenerator()) for _ in pair)
    x = a.counted.noise(1)[None]

    def work(log, count):
        return lambda keys: [(log.counted.velocity(x, 1.0, [1] * count), log.put(key, 0)) for key in keys]

    divide(a, ["p", "q"], work(a, 3))
    divide(b, ["p", "q", "r"], work(b, 2))
    b.counted.velocity(x, 1.0, [1])  # beside parts
    for key in "pqr":
        seen(a, key), seen(b, key), seen(b, key)
    assert (a.evaluations, b.evaluations) == (8, 9)


def test_what_diverges_for_one_diverges_for_all(pair):
    a, b = pair

    def work(keys):
        a.failed("part", NotFiniteError("not finite at step 3"))

    divide(a, ["part"], work)
    divide(b, ["part"], pytest.fail)
    with pytest.raises(NotFiniteError, match="at step 3"):
        b.get("part")


def test_what_raises_gives_its_part_back(pair):
    a, b = pair

    def work(keys):
        raise OTCacheError("full disk")

    with pytest.raises(OTCacheError):
        divide(a, ["part"], work)
    assert b.claim(["part"], 1) == ["part"]


def test_one_that_waits_begins_with_what_comes_later_and_can_be_interrupted(pair):
    a, b = pair
    a.claim(["now"], 1)
    made = []

    def stop():
        raise KeyboardInterrupt

    b.waiting = stop
    with pytest.raises(KeyboardInterrupt):
        divide(b, ["now"], lambda keys: [(made.append(key), b.put(key, 1)) for key in keys], ahead=lambda: ["later"])
    assert made == ["later"]


@pytest.mark.parametrize("held", [0, 1])
def test_one_that_waits_runs_who_leads_on_the_next_cases_and_what_comes_later(pair, held):
    """Another worker has the second candidate, on the first or the second group of cases."""
    a, b = pair
    runs = [record(MixtureGenerator(), case, GRID) for case in CASES]
    scorer, first, second, third = Scorer(MixtureGenerator(), CASES, runs, fit_cases=1), (0, 3, 7), (0, 2, 6), (0, 4, 8)
    scorer.log, scorer.ahead = b, [[third, 0], [third, FINAL]]
    for number in range(held):
        b.claim([[second, number]], 1)
        scorer._measure([[second, number]])
    a.claim([[second, held]], 1)

    def stop():
        raise KeyboardInterrupt

    b.waiting = stop
    with pytest.raises(KeyboardInterrupt):
        scorer.choose([first, second], margin=10.0)
    b.look()
    done = {(steps, part) for steps in (first, second, third) for part in (0, 1, 2, FINAL) if b.knows([steps, part])}
    alike = {(first, 0), (first, 1), (first, 2), (third, 0), (third, FINAL)}
    assert done == alike | ({(second, 0), (second, 2)} if held else set())


def test_a_worker_takes_first_what_it_has_begun(pair):
    a, _ = pair
    made, begun = [], {"p": 0, "q": 2, "r": 2}
    divide(a, [*begun], lambda keys: [(made.append(key), a.put(key, 1)) for key in keys], begun=begun.get)
    assert made == ["q", "r", "p"]


def test_the_first_decides_for_all(pair):
    a, b = pair
    assert agreed(a, "which", lambda: [3, 1]) == [3, 1] == agreed(b, "which", lambda: [0, 0])
    assert agreed(MeasurementLog(), "which", lambda: (0, 0)) == (0, 0)


def test_numbers_are_different_while_they_are_held(pair):
    a, b = pair
    with own_number(a, "n", 4, 6) as first:
        with own_number(b, "n", 4, 6) as second, own_number(MeasurementLog(), "n", 4, 6) as alone:
            assert (first, second, alone) == (4, 5, 4)
        with own_number(b, "n", 4, 5) as second:
            assert second is None
    with own_number(b, "n", 4, 6) as second:
        assert second == 4


def test_nobody_else_is_in_a_block_that_is_for_one(pair):
    inside, most = [], []

    def enter(log):
        with one_at_a_time(log, "block"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.1)
            inside.pop()

    threads = [threading.Thread(target=enter, args=(log,)) for log in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1, 1]


def test_a_storage_that_vanishes_is_one_sentence(place, pair):
    with open(place.url.removeprefix("journal:"), "wb") as file:
        file.write(b"no journal\nno journal\n")
    with pytest.raises(OTCacheError, match="failed") as error:
        SharedLog.look(pair[0])
        pair[0].claim(["part"], 1)
    assert "\n" not in str(error.value)


def test_half_a_line_of_a_killed_worker_does_not_stop_the_others(place, pair):
    """Optuna itself would glue the next line to it, and nobody could read the file any more."""
    a, b = pair
    a.claim(["part"], 1)
    path = place.url.removeprefix("journal:")
    with open(path, "ab") as file:
        file.write(b'{"op_code":4,"wor')
    a.put("part", 1)
    assert seen(b, "part") == 1
    with open(path, "rb") as file:
        assert all(json.loads(line) for line in file)


# -- what is shared, and where -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("storage", "shared"),
    [(None, False), ("a.db", False), ("sqlite:///a.db", False), ("journal:a", True), ("grpc://a:1", True),
     ("postgresql://a/b", True), ("mysql+pymysql://a/b", True), ("env:OTCACHE_WHERE", True)],
)  # fmt: skip
def test_servers_and_journals_are_for_several_machines(monkeypatch, storage, shared):
    monkeypatch.setenv("OTCACHE_WHERE", "postgresql://a:secret@b/c")
    assert is_shared(storage) is shared


def test_full_runs_lie_beside_a_journal_or_where_all_machines_are_told(monkeypatch, tmp_path):
    monkeypatch.delenv(FOLDER, raising=False)
    assert shared_folder("journal:/share/a.log", "name").as_posix() == "/share/a.log.recordings/name"
    assert shared_folder("postgresql://a/b", "name") is shared_folder("a.db", "name") is None
    monkeypatch.setenv(FOLDER, str(tmp_path))
    assert shared_folder("postgresql://a/b", "name") == shared_folder("journal:a", "name") == tmp_path / "name"


def test_only_the_same_calibration_is_shared(place):
    def name(cases=CASES, grid=GRID, metric=LATENT, **settings):
        log = open_shared(Settings(**{"storage": place, "identity": "a"} | settings), cases, grid, metric)
        return log and log._study

    assert name() == name() and name(identity="") is None and name(storage="a.db") is None
    others = [name(identity="b"), name(cases=[1, 2]), name(grid=GRID[1:]), name(metric="rmse"), name(model="m")]
    assert len({name(), *others}) == 6


def test_where_it_waits_it_tells_again_where_it_stands(place):
    told = []
    progress = Told(lambda *news: told.append(news))
    log = open_shared(Settings(storage=place, identity="a"), CASES, GRID, LATENT, progress)
    log.waiting()
    progress("guard", 3, 8, "budget 5")
    log.waiting()
    assert told == [("guard", 3, 8, "budget 5"), ("guard", 3, 8, "waiting for another worker")]


@pytest.mark.parametrize("change", ["gone", "other", "damaged"])
def test_a_run_that_is_not_in_the_folder_is_made_again_and_says_so(pair, tmp_path, caplog, change):
    """As on a machine that reaches the storage and not the folder."""
    a, b = pair
    folder = tmp_path / "runs"
    first = record_cases(MixtureGenerator(), CASES, GRID, folder=folder, log=a)
    path = folder / "2.safetensors"
    path.unlink()  # what was read of it stays mapped
    if change != "gone":
        path.write_bytes((folder / "1.safetensors").read_bytes() if change == "other" else b"junk")
    counted = Counted(MixtureGenerator())
    with caplog.at_level(logging.WARNING):
        again = record_cases(counted, CASES, GRID, folder=folder, log=b)
    assert counted.evaluations == len(GRID) - 1 and "OTCACHE_RECORDINGS" in caplog.text
    assert all(np.array_equal(x.x, y.x) for x, y in zip(first, again, strict=True))


def test_candidates_are_shared_and_those_that_diverge_are_dropped_by_all(pair, recording):
    scorers = [Scorer(Counted(recording.generator), recording.cases, recording.trajectories, fit_cases=1) for _ in pair]
    for scorer, log in zip(scorers, pair, strict=True):
        scorer.log, log.counted = log, scorer.generator
        run = scorer.groups[0].run

        def broken(steps, rows=None, run=run):
            if steps == (0, 3, 7):
                raise NotFiniteError("not finite")
            return run(steps, rows)

        scorer.groups[0].run = broken
    candidates = [(0, 3, 7), (0, 2, 5), (0, 4, 8)]
    first, second = (scorer.choose(candidates) for scorer in scorers)
    assert first == second and scorers[1].generator.evaluations == 0
    assert scorers[0].final_rows(first[0]) == scorers[1].final_rows(first[0])
    assert scorers[0].psnr(first[0]) == scorers[1].psnr(first[0])
    study = optuna.load_study(study_name="study", storage=pair[0]._storage)
    done = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    keys = [json.dumps(trial.user_attrs["part"]) for trial in done]
    assert len(keys) == len(set(keys))
