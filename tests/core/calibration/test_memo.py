import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otcache_core.calibration.memo import Memo, model_memo
from otcache_core.errors import OTCacheError

KEYS = st.recursive(st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=6)
VALUES = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4)


@given(st.dictionaries(KEYS.map(json.dumps), VALUES, max_size=5))
def test_what_was_put_is_found_again_bit_for_bit(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("memo") / "a" / "memo.jsonl"
    first = Memo(path)
    for key, value in table.items():
        first.put(json.loads(key), value)
    for memo in (first, Memo(path)):
        assert {key: memo.get(json.loads(key)) for key in table} == table
    assert Memo(path).get(["never", "put"]) is None


def test_tuples_and_lists_are_the_same_key():
    memo = Memo()
    memo.put([(0, 3), 1], [[1.5], [[0.5, 0.25]]])
    assert memo.get(((0, 3), 1)) == [[1.5], [[0.5, 0.25]]]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_line_that_a_killed_process_left_unfinished_is_forgotten(tmp_path, cut):
    path = tmp_path / "memo.jsonl"
    memo = Memo(path)
    memo.put([1], [0.5])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:cut].replace(b"1", b"2"))
    again = Memo(path)
    assert again.get([1]) == [0.5] and again.get([2]) is None
    again.put([3], [0.25])
    assert Memo(path).get([3]) == [0.25] and Memo(path).get([1]) == [0.5]


def test_strange_lines_are_passed_over(tmp_path):
    path = tmp_path / "memo.jsonl"
    path.write_bytes(b'[1, 2, 3]\n\xff\xfe\n{}\n[{"a": 1}, 2]\n' + b"[" * 100_000 + b'\n[[7], "good"]\n')
    assert Memo(path).get([7]) == "good"


def test_a_file_that_cannot_be_written_is_our_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OTCacheError, match="Cannot write"):
        Memo(tmp_path / "file" / "memo.jsonl")
    with pytest.raises(OTCacheError, match="Cannot write"):
        Memo(tmp_path)


RUNS = [[[1.0, 2.0], [3.0, 4.0]]]
ROUNDED, OTHER = [[[1.0001, 2.0], [3.0, 4.0]]], [[[1.01, 2.0], [3.0, 4.0]]]


def test_each_model_finds_its_own_memo_in_one_folder(tmp_path):
    for runs, value in ((RUNS, "a"), (OTHER, "b")):
        memo = model_memo(tmp_path, "name", runs)
        assert memo.get("key") is None
        memo.put("key", value)
    found = [model_memo(tmp_path, "name", runs).get("key") for runs in (RUNS, OTHER, ROUNDED)]
    assert found == ["a", "b", "a"] and model_memo(tmp_path, "other name", RUNS).get("key") is None


@pytest.mark.parametrize("line", [b"", b"\n", b"junk\n", b'["key", "a"]\n', b"\xff\n", b"[" * 100_000, b"[1]\n"])
def test_a_memo_whose_first_line_is_lost_is_another_models(tmp_path, line):
    model_memo(tmp_path, "name", RUNS).put("key", "a")
    path, = tmp_path.glob("*.jsonl")
    path.rename(tmp_path / "name-elsewhere.jsonl")
    (tmp_path / "name-elsewhere.jsonl").write_bytes(line)
    assert model_memo(tmp_path, "name", RUNS).get("key") is None


def test_memos_of_version_0_1_are_left_alone(tmp_path):
    """Their names end before the model's runs."""
    Memo(tmp_path / "name.jsonl").put("key", "of whichever model")
    assert model_memo(tmp_path, "name", RUNS).get("key") is None
    assert Memo(tmp_path / "name.jsonl").get("key") == "of whichever model"


WRITER = """
import sys
from otcache_core.calibration.memo import Memo
memo = Memo(sys.argv[1])
for number in range(100):
    memo.put([sys.argv[2], number], [number] * 20_000)
"""


def test_two_processes_share_a_memo(tmp_path):
    """Lines far beyond the buffer of a file, written at the same time, stay whole."""
    path, root = tmp_path / "memo.jsonl", Path(__file__).parents[3]
    workers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], cwd=root) for name in "ab"]
    assert [worker.wait() for worker in workers] == [0, 0]
    memo = Memo(path)
    assert all(memo.get([name, number]) == [number] * 20_000 for name in "ab" for number in range(100))
