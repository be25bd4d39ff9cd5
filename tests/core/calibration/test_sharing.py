"""One calibration by several real processes: who did which part, that none was done twice, and what a killed one leaves."""

import importlib.util
import json
import os
import time
import warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from calibrating import BUDGETS, CASES, STAGES, STEPS, Workers
from services import grpc_proxy, postgres

from otcache_core.calibration.shared_log import FOUND, KEY
from otcache_core.calibration.storages import open_storage

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes are forked, so that each need not import torch")
COMPLETE = optuna.trial.TrialState.COMPLETE
PART = max(STEPS, len(CASES) * BUDGETS[-1])  # evaluations that one part takes at most


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """What makes processes; their full runs lie in a folder of the storage's name, as far as it is no journal."""
    made = Workers()
    yield made
    made.end()


@pytest.fixture(scope="module")
def database():
    """The URL of a PostgreSQL server of our own."""
    if importlib.util.find_spec("psycopg") is None:
        skip('NO PostgreSQL WAS TESTED: pip install "psycopg[binary]"')
    with postgres("hunter2-s3cret") as url:
        if url is None:
            skip("NO PostgreSQL WAS TESTED: install Debian's package postgresql")
        yield url


@contextmanager
def place(kind: str, folder: Path, database: str | None = None):
    """The address of a storage of a kind."""
    if kind == "proxy":
        if importlib.util.find_spec("grpc") is None:
            skip("NO gRPC PROXY WAS TESTED: pip install grpcio protobuf")
        with grpc_proxy(f"sqlite:///{folder}/study.db") as address:
            yield str(address)
    else:
        yield database if kind == "database" else f"journal:{folder / 'study.log'}"


def skip(words: str) -> None:
    """Skip, with a warning at the end of the run: a bare "s" is overlooked."""
    warnings.warn(words, stacklevel=1)
    pytest.skip(words)


def evaluations(notes: Path) -> Counter:
    """Evaluations that were made, by the process and by the stage, those of killed processes included."""
    lines = [line.split(" ", 1) for line in notes.read_text().splitlines()]
    return Counter(int(pid) for pid, _ in lines) + Counter(stage for _, stage in lines)


def parts(storage: str) -> dict[str, int]:
    """The evaluations of every part that was done; none was done twice."""
    opened, found = open_storage(storage), {}
    for name in optuna.get_all_study_names(opened):
        if not name.startswith("otcache-parts-"):
            continue
        for trial in optuna.load_study(study_name=name, storage=opened).get_trials(states=(COMPLETE,)):
            part = f"{name} {json.dumps(trial.user_attrs[KEY])}"
            assert part not in found and FOUND in trial.user_attrs
            found[part] = int(trial.value)
    return found


@pytest.fixture(scope="module")
def alone(workers, tmp_path_factory) -> dict:
    """What one process without a storage finds, and how many evaluations it makes."""
    folder = tmp_path_factory.mktemp("alone")
    worker = workers.begin(folder / "out", notes=str(folder / "notes"))
    found, made = worker.found(), evaluations(folder / "notes")
    assert sum(found["evaluations"].values()) * len(CASES) == made[worker.pid]
    return found | {"made": made[worker.pid]}


def same(found: dict, other: dict) -> bool:
    """Whether all is the same that does not depend on who did what."""
    return all(found[name] == other[name] for name in ("reference", "schedules"))


@pytest.mark.parametrize("kind", ["journal", "proxy", "database"])
def test_two_processes_divide_a_calibration(workers, tmp_path, request, alone, kind):
    """Both do a good part of it, none is done twice, and what both find is what one finds alone."""
    database = request.getfixturevalue("database") if kind == "database" else None
    notes = tmp_path / "notes"
    with place(kind, tmp_path, database) as storage:
        options = {"notes": str(notes), "storage": storage, "seconds": 0.02, "patience": 20.0}
        pair = [workers.begin(tmp_path / name, **options) for name in "ab"]
        found = [worker.found() for worker in pair]
        made, done = evaluations(notes), parts(storage)
    assert same(found[0], found[1]) and same(found[0], alone)
    shares = [made[worker.pid] for worker in pair]
    # Full runs do not go through a storage: without a folder that both reach, each makes them itself.
    twice = 0 if kind == "journal" else len(CASES) * STEPS
    assert made["record"] == len(CASES) * STEPS + twice
    assert sum(shares) == sum(done.values()) + (2 * twice), "all else that was evaluated is some part's"
    # Each has beginnings of its own, which one process shares among all candidates.
    assert sum(shares) <= 1.35 * alone["made"] + twice
    assert min(shares) >= 0.25 * sum(shares)
    for told in found:
        assert told["evaluations"]["record"] == STEPS
        assert sum(told["evaluations"].values()) * len(CASES) <= sum(shares)


def test_one_process_with_a_shared_storage_does_what_one_without_does(workers, tmp_path, alone):
    notes, storage = tmp_path / "notes", f"journal:{tmp_path / 'study.log'}"
    first = workers.begin(tmp_path / "a", notes=str(notes), storage=storage)
    assert same(first.found(), alone) and evaluations(notes)[first.pid] == alone["made"]
    again = workers.begin(tmp_path / "b", notes=str(notes), storage=storage)
    found = again.found()
    assert same(found, alone) and sum(found["evaluations"].values()) * len(CASES) == alone["made"]
    assert evaluations(notes)[again.pid] == 0, "all of it is remembered"


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_killed_process_was_at_is_done_by_the_other(workers, tmp_path, alone, stage):
    """It keeps its part as long as it lives, however long that takes; once it is gone the other one does that too."""
    notes, patience = tmp_path / "notes", 2.0
    options = {"notes": str(notes), "storage": f"journal:{tmp_path / 'study.log'}", "patience": patience}
    stuck = workers.begin(tmp_path / "a", block=stage, **options)
    stuck.hear("inside")
    other = workers.begin(tmp_path / "b", **options)
    other.hear("waiting")
    time.sleep(1.5 * patience)
    assert other.lives and stuck.lives
    stuck.kill()
    assert same(other.found(), alone)
    made = evaluations(notes)
    lost = made[stuck.pid] + made[other.pid] - sum(parts(options["storage"]).values())
    assert 0 <= lost <= PART


@pytest.mark.parametrize("shared", [True, False], ids=["journal", "sqlite"])
def test_a_calibration_that_is_killed_again_and_again_goes_on(workers, tmp_path, alone, shared):
    """The only worker, killed at any moment; benchmarks/machines.py does that fifty times, and counts what it costs."""
    notes = tmp_path / "notes"
    where = {"storage": f"journal:{tmp_path / 'study.log'}"} if shared else {"sqlite": str(tmp_path)}
    killed = []
    for number in range(3):
        killed.append(workers.begin(tmp_path / f"out {number}", notes=str(notes), seconds=0.02, patience=0.5, **where))
        time.sleep(2.0 + number)
        killed[-1].kill()
    last = workers.begin(tmp_path / "out", notes=str(notes), patience=0.5, **where)
    found = last.found()
    # A trial that was under way may be lost, and the search goes on with another.
    assert found["reference"] == alone["reference"]
    assert [len(steps) for steps, *_ in found["schedules"]] == [len(steps) for steps, *_ in alone["schedules"]]
    made = evaluations(notes)
    total = made[last.pid] + sum(made[worker.pid] for worker in killed)
    assert any(made[worker.pid] for worker in killed)
    if shared:
        assert sum(parts(where["storage"]).values()) <= total
