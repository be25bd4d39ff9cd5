import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otcache_core.calibration.measurement_log import MeasurementLog, model_log
from otcache_core.errors import OTCacheError

KEYS = st.recursive(st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=6)
VALUES = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4)


@given(st.dictionaries(KEYS.map(json.dumps), VALUES, max_size=5))
def test_what_was_put_is_found_again_bit_for_bit(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("log") / "a" / "log.jsonl"
    first = MeasurementLog(path)
    for key, value in table.items():
        first.put(json.loads(key), value)
    for log in (first, MeasurementLog(path)):
        assert {key: log.get(json.loads(key)) for key in table} == table
    assert MeasurementLog(path).get(["never", "put"]) is None


def test_tuples_and_lists_are_the_same_key():
    log = MeasurementLog()
    log.put([(0, 3), 1], [[1.5], [[0.5, 0.25]]])
    assert log.get(((0, 3), 1)) == [[1.5], [[0.5, 0.25]]]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_line_that_a_killed_process_left_unfinished_is_forgotten(tmp_path, cut):
    path = tmp_path / "log.jsonl"
    log = MeasurementLog(path)
    log.put([1], [0.5])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:cut].replace(b"1", b"2"))
    again = MeasurementLog(path)
    assert again.get([1]) == [0.5] and again.get([2]) is None
    again.put([3], [0.25])
    assert MeasurementLog(path).get([3]) == [0.25] and MeasurementLog(path).get([1]) == [0.5]


def test_strange_lines_are_passed_over(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'[1, 2, 3]\n\xff\xfe\n{}\n[{"a": 1}, 2]\n' + b"[" * 100_000 + b'\n[[7], "good"]\n')
    assert MeasurementLog(path).get([7]) == "good"


def test_a_file_that_cannot_be_written_is_our_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OTCacheError, match="Cannot write"):
        MeasurementLog(tmp_path / "file" / "log.jsonl")
    with pytest.raises(OTCacheError, match="Cannot write"):
        MeasurementLog(tmp_path)


RUNS = [[[1.0, 2.0], [3.0, 4.0]]]
ROUNDED, OTHER = [[[1.0001, 2.0], [3.0, 4.0]]], [[[1.01, 2.0], [3.0, 4.0]]]


def test_each_model_finds_its_own_memo_in_one_folder(tmp_path):
    for runs, value in ((RUNS, "a"), (OTHER, "b")):
        log = model_log(tmp_path, "name", runs)
        assert log.get("key") is None
        log.put("key", value)
    found = [model_log(tmp_path, "name", runs).get("key") for runs in (RUNS, OTHER, ROUNDED)]
    assert found == ["a", "b", "a"] and model_log(tmp_path, "other name", RUNS).get("key") is None


@pytest.mark.parametrize("line", [b"", b"\n", b"junk\n", b'["key", "a"]\n', b"\xff\n", b"[" * 100_000, b"[1]\n"])
def test_a_memo_whose_first_line_is_lost_is_another_models(tmp_path, line):
    model_log(tmp_path, "name", RUNS).put("key", "a")
    path, = tmp_path.glob("*.jsonl")
    path.rename(tmp_path / "name-elsewhere.jsonl")
    (tmp_path / "name-elsewhere.jsonl").write_bytes(line)
    assert model_log(tmp_path, "name", RUNS).get("key") is None


def test_memos_of_version_0_1_are_left_alone(tmp_path):
    """Their names end before the model's runs."""
    MeasurementLog(tmp_path / "name.jsonl").put("key", "of whichever model")
    assert model_log(tmp_path, "name", RUNS).get("key") is None
    assert MeasurementLog(tmp_path / "name.jsonl").get("key") == "of whichever model"


WRITER = """
import sys
from otcache_core.calibration.measurement_log import MeasurementLog
log = MeasurementLog(sys.argv[1])
for number in range(100):
    log.put([sys.argv[2], number], [number] * 20_000)
"""


def test_two_processes_share_a_memo(tmp_path):
    """Lines far beyond the buffer of a file, written at the same time, stay whole."""
    path, root = tmp_path / "log.jsonl", Path(__file__).parents[3]
    workers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], cwd=root) for name in "ab"]
    assert [worker.wait() for worker in workers] == [0, 0]
    log = MeasurementLog(path)
    assert all(log.get([name, number]) == [number] * 20_000 for name in "ab" for number in range(100))
