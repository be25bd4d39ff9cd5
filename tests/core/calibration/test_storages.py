"""Every storage with real processes: two workers share one study, and what cannot be used is one sentence and left as it is."""

import importlib.util
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import warnings
from pathlib import Path

import optuna
import pytest
from fake_scorer import FakeScorer, valley
from services import free_port, grpc_proxy, postgres

from otcache_core.calibration import storages
from otcache_core.calibration.places import Place
from otcache_core.calibration.search import search_steps
from otcache_core.calibration.storages import import_optuna, open_storage
from otcache_core.calibration.study import open_study
from otcache_core.errors import OTCacheError

import_optuna()
CORE = Path(__file__).parents[1]
STEPS, BUDGET, TRIALS = 20, 5, 12
BEST, START = (0, 3, 7, 12, 15), (0, 4, 8, 12, 16)
PASSWORD = "hunter2-s3cret"

WORKER = """
import sys, time
from fake_scorer import FakeScorer, valley
from otcache_core.calibration.places import find_place
from otcache_core.calibration.search import search_steps

landscape = valley((0, 3, 7, 12, 15))

def slowly(steps):
    time.sleep(0.1)
    return landscape(steps)

scorer = FakeScorer(20, slowly)
print("ready", flush=True)
sys.stdin.readline()
search_steps(scorer, 5, 12, [(0, 4, 8, 12, 16)], seed=int(sys.argv[1]), storage=find_place("env:OTCACHE_STORAGE"))
print(len(scorer.tried), flush=True)
"""


def skip(words: str) -> None:
    """Skip, with a warning at the end of the run: a bare "s" is overlooked."""
    warnings.warn(words, stacklevel=1)
    pytest.skip(words)


def needed(module: str, words: str) -> None:
    if importlib.util.find_spec(module) is None:
        skip(words)


def fake() -> FakeScorer:
    return FakeScorer(STEPS, valley(BEST))


def worker(storage: str, seed: int = 0) -> subprocess.Popen:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(CORE), str(CORE.parent.parent)]), "OMP_NUM_THREADS": "1", "OTCACHE_STORAGE": storage,
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(seed)], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def two_workers(storage: str) -> None:
    """Both take part in one study, which begins with them, and what they find is there for a third one."""
    workers = [worker(storage, seed) for seed in (0, 1)]
    for one in workers:
        assert one.stdout.readline() == "ready\n", one.stderr.read()
    for one in workers:
        one.stdin.write("\n")
        one.stdin.flush()
    told = [one.communicate(timeout=120) for one in workers]
    assert [one.returncode for one in workers] == [0, 0], told
    counts = [int(out) for out, _ in told]
    assert not any(error for _, error in told) and PASSWORD not in str(told)
    [name] = optuna.get_all_study_names(open_storage(storage))
    finished = [
        trial for trial in optuna.load_study(study_name=name, storage=open_storage(storage)).trials if trial.state.is_finished()
    ]
    assert min(counts) >= 2 and TRIALS <= len(finished) <= sum(counts) <= TRIALS + 2  # one trial may be made by both
    assert {trial.state for trial in finished} <= {optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED}
    again = fake()
    assert search_steps(again, BUDGET, TRIALS, [START], storage=storage)[1] <= again.score(START)
    assert again.calls == []


@pytest.mark.parametrize("kind", ["", "journal:"])
def test_two_processes_share_a_file(tmp_path, kind):
    two_workers(f"{kind}{tmp_path / 'study.db'}")


def test_a_trial_that_another_worker_told_first_is_no_error(tmp_path):
    """SQLite hands a waiting trial to two workers now and then."""
    storage, landscape, overtaken = str(tmp_path / "study.db"), valley(BEST), []

    def slower(steps):
        if not overtaken:
            [name] = optuna.get_all_study_names(open_storage(storage))
            study = optuna.load_study(study_name=name, storage=open_storage(storage))
            [running] = study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
            overtaken.append(study.tell(running.number, state=optuna.trial.TrialState.PRUNED).number)
        return landscape(steps)

    scorer = FakeScorer(STEPS, slower)
    found, score = search_steps(scorer, BUDGET, TRIALS, [START], storage=storage)
    assert len(overtaken) == 1 and score == scorer.score(found) and len(scorer.tried) == TRIALS


def test_a_trial_that_another_worker_tells_meanwhile_is_no_error(tmp_path, monkeypatch):
    """After Optuna has looked whether it still runs, and before the storage is told."""
    storage, overtaken = str(tmp_path / "study.db"), []
    tell = optuna.storages.RDBStorage.set_trial_state_values

    def overtake(self, trial_id, state, values=None):
        if state.is_finished() and not overtaken:
            overtaken.append(tell(self, trial_id, optuna.trial.TrialState.PRUNED))
        return tell(self, trial_id, state, values)

    monkeypatch.setattr(optuna.storages.RDBStorage, "set_trial_state_values", overtake)
    scorer = FakeScorer(STEPS, valley(BEST))
    found, score = search_steps(scorer, BUDGET, TRIALS, [START], storage=storage)
    assert overtaken == [True] and score == scorer.score(found)


def test_two_processes_share_a_proxy(tmp_path):
    needed("grpc", "NO gRPC PROXY WAS TESTED: pip install grpcio protobuf")
    with grpc_proxy(f"sqlite:///{tmp_path}/study.db") as address:
        two_workers(address)


@pytest.fixture(scope="module")
def database():
    """The URL of a PostgreSQL server of our own."""
    needed("psycopg", 'NO PostgreSQL WAS TESTED: pip install "psycopg[binary]"')
    with postgres(PASSWORD) as url:
        if url is None:
            skip("NO PostgreSQL WAS TESTED: install Debian's package postgresql")
        yield url


def test_two_processes_share_postgresql(database):
    two_workers(database)


def test_a_wrong_password_is_refused_and_neither_is_shown(database):
    wrong = database.replace(PASSWORD, "wr0ng-s3cret")
    with pytest.raises(OTCacheError, match="password authentication failed") as error:
        open_storage(wrong)
    assert "s3cret" not in str(error.value)


def test_a_server_that_stops_ends_the_search_with_one_sentence(tmp_path):
    needed("grpc", "NO gRPC PROXY WAS TESTED: pip install grpcio protobuf")
    with grpc_proxy(f"sqlite:///{tmp_path}/study.db") as address:
        scorer = fake()

        def landscape(steps):
            if len(scorer.tried) == 3:
                address.stop()
            return valley(BEST)(steps)

        scorer.landscape = landscape
        with pytest.raises(OTCacheError, match=r"grpc://127.0.0.1:\d+ failed") as error:
            search_steps(scorer, BUDGET, TRIALS, [START], storage=str(address))
    assert "\n" not in str(error.value) and error.value.__suppress_context__
    kept = open_study(fake(), BUDGET, str(tmp_path / "study.db")).trials
    assert sum(trial.state.is_finished() for trial in kept) >= 2


@pytest.mark.parametrize("address", ["grpc://", "grpc://127.0.0.1", "grpc://127.0.0.1:1/x", "grpc://127.0.0.1:99999", "grpc://:1"])
def test_a_proxy_has_a_host_and_a_port(address):
    with pytest.raises(OTCacheError, match="grpc://host:port|Port out of range|no URL"):
        open_storage(address)


def test_nobody_at_an_address_is_one_sentence(monkeypatch):
    needed("grpc", "NO gRPC PROXY WAS TESTED: pip install grpcio protobuf")
    monkeypatch.setattr("otcache_core.calibration.storages.SECONDS", 0.5)
    with pytest.raises(OTCacheError, match="timeout.*check the address"):
        open_storage(f"grpc://127.0.0.1:{free_port()}")


@pytest.mark.parametrize(("storage", "module", "command"), [
    ("grpc://127.0.0.1:1", "grpc", '"pip install grpcio protobuf"'),
    ("postgresql+psycopg://127.0.0.1:1/a", "psycopg", "'pip install \"psycopg[binary]\"'"),
    ("postgresql+psycopg2://127.0.0.1:1/a", "psycopg2", '"pip install psycopg2-binary"'),
    ("mysql+pymysql://127.0.0.1:1/a", "pymysql", '"pip install pymysql"'),
    ("mysql+mysqldb://127.0.0.1:1/a", "MySQLdb", '"pip install mysqlclient"'),
])  # fmt: skip
def test_a_missing_driver_is_named_with_its_command(monkeypatch, storage, module, command):
    class Missing:
        def find_spec(self, name, *_):
            if name.partition(".")[0] == module:
                raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    for name in [name for name in sys.modules if name.partition(".")[0] == module or ".auto_generated" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(OTCacheError) as error:
        open_storage(storage)
    assert command in str(error.value) and storage in str(error.value)


# -- files that are not what they should be ------------------------------------------------------------------


def searched(path: Path) -> bytes:
    """A small study in an SQLite file; what lies in it."""
    search_steps(fake(), BUDGET, 2, [START], storage=str(path))
    return path.read_bytes()


def refused(path: Path, words: str, kind: str = "") -> None:
    """The file is refused with `words` and not a byte of it, nor anything beside it, changes."""
    before, beside = path.read_bytes(), sorted(path.parent.iterdir())
    for _ in range(2):
        with pytest.raises(OTCacheError, match=words) as error:
            search_steps(fake(), BUDGET, 2, [START], storage=f"{kind}{path}")
        assert "\n" not in str(error.value) and path.name in str(error.value)
    assert path.read_bytes() == before and sorted(path.parent.iterdir()) == beside


@pytest.mark.parametrize(("version", "words"), [("v99.0.0", "update Optuna"), ("v3.0.0.a", "upgrade it")])
def test_a_database_of_another_optuna_is_left_as_it_is(tmp_path, version, words):
    path = tmp_path / "study.db"
    searched(path)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (version,))
    database.close()
    refused(path, f"another version of Optuna.*{words}")


def test_another_programs_database_is_left_as_it_is(tmp_path):
    path = tmp_path / "photos.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE photos (id INTEGER)")
    database.close()
    refused(path, "another program's database")


@pytest.mark.parametrize("content", [b"no journal", b"no journal\n", b"{}\n{}", b"[1]\n", b'{"op_code": 99}\n', b"\0" * 5000])
def test_a_file_that_is_no_journal_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "study.log"
    path.write_bytes(content)
    refused(path, "cannot be opened", "journal:")


@pytest.mark.parametrize("kind", ["missing/study.log", "", "   ", "folder"])
def test_a_journal_that_cannot_be_opened_is_one_sentence(tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OTCacheError, match="cannot be opened"):
        open_storage(f"journal:{kind}")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_a_journal_whose_last_line_is_half_goes_on(tmp_path):
    """What a killed worker leaves; Optuna itself would glue the next line to it and never read the file again."""
    path = tmp_path / "study.log"
    search_steps(fake(), BUDGET, 4, [START], storage=f"journal:{path}")
    whole = path.read_bytes()
    for cut in (1, 7, 30):
        path.write_bytes(whole[:-cut])
        scorer = fake()
        search_steps(scorer, BUDGET, 6, [START], storage=f"journal:{path}")
        assert 2 <= len(scorer.tried) <= 3
        assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_a_lock_that_a_killed_worker_left_is_taken_away(tmp_path, monkeypatch):
    monkeypatch.setattr(storages, "LOCKED_SECONDS", 0.2)
    path = tmp_path / "study.log"
    search_steps(fake(), BUDGET, 2, [START], storage=f"journal:{path}")
    lock = Path(f"{path}.lock")
    lock.touch()
    search_steps(fake(), BUDGET, 4, [START], storage=f"journal:{path}")
    assert not lock.exists()


def test_a_path_with_a_colon_is_a_path_still(tmp_path):
    shutil.rmtree(tmp_path / "none", ignore_errors=True)
    assert isinstance(open_storage(Place("a", str(tmp_path / "a:b.db"))), optuna.storages.RDBStorage)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    """Every write of the journal fails as it does on a full disk; what lay there stays."""
    path = tmp_path / "study.log"
    search_steps(fake(), BUDGET, 2, [START], storage=f"journal:{path}")
    before = path.read_bytes()
    begin, real = time.monotonic(), open
    scorer = fake()

    def full(file, mode="r", *args, **options):
        return real("/dev/full" if file == str(path) and "a" in mode else file, mode, *args, **options)

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(OTCacheError, match="failed.*No space left"):
        search_steps(scorer, BUDGET, 4, [START], storage=f"journal:{path}")
    monkeypatch.undo()
    assert path.read_bytes() == before and time.monotonic() - begin < 20
