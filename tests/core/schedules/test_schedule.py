import json
import os
import stat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import grids_with_steps

from otcache_core import files
from otcache_core.errors import OTCacheError
from otcache_core.schedules.schedule import (
    BANDS,
    HISTORY,
    MAX_FILE_BYTES,
    MAX_STEPS,
    Predictor,
    Schedule,
    check_budget,
    load_schedule,
    make_schedule,
    parse_schedule,
    trajectory_time,
    uniform_steps,
)

GOOD = {
    "sigmas": [1.0, 0.8, 0.5, 0.1, 0.0],
    "compute_steps": [0, 1, 3],
    "predictor": {"kind": "fitted", "damping": 0.5},
    "weights": [[1.0], [1.5, -0.5], [1.2, -0.1, -0.1]],
    "spans": [0, 1, 2],
}
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


@st.composite
def schedules(draw, prepared: bool = True):
    sigmas, steps = draw(grids_with_steps())
    bands = draw(st.integers(1, BANDS))
    sizes = [bands * draw(st.integers(1, min(k + 1, HISTORY))) for k in range(len(steps))]
    return make_schedule(
        name=draw(TEXT),
        sigmas=sigmas.tolist(),
        compute_steps=steps,
        predictor={
            "kind": draw(st.sampled_from(["hold", "linear", "quadratic", "mean_velocity", "fitted"])),
            "damping": draw(st.floats(0, 1)),
            "bands": bands,
        },
        weights=[draw(st.lists(FINITE, min_size=size, max_size=size)) for size in sizes],
        spans=draw(st.lists(st.integers(0, MAX_STEPS), min_size=len(steps), max_size=len(steps))),
        stage=draw(st.sampled_from(["full", "preset", "anchor", "interpolated"])),
        model=draw(TEXT),
        shift=draw(st.none() | FINITE),
        score=draw(st.none() | FINITE),
        cases=draw(st.lists(TEXT, max_size=3)),
        versions=draw(st.dictionaries(TEXT, TEXT, max_size=3)),
        prepared=draw(st.lists(schedules(prepared=False), max_size=2)) if prepared else (),
    )


def text(**changes) -> str:
    """The good schedule as JSON with changes; a value of None removes the field."""
    return json.dumps({key: value for key, value in (GOOD | changes).items() if value is not None})


def refused(data, *words) -> str:
    """The one-line message with which `data` is refused; it names the source and all of `words`."""
    with pytest.raises(OTCacheError) as error:
        parse_schedule(data, "my-file.json")
    message = str(error.value)
    assert "\n" not in message and message.startswith("my-file.json: ") and len(message) < 2000, message[
        :3000
    ]
    for word in words:
        assert word in message, message
    return message


@given(schedules())
def test_json_round_trip_keeps_every_field(schedule):
    assert parse_schedule(schedule.model_dump_json()) == schedule


@given(schedule=schedules())
@settings(max_examples=20)
def test_file_round_trip_keeps_every_field(tmp_path_factory, schedule):
    path = tmp_path_factory.mktemp("schedule") / "new folder" / "å schedule.json"
    schedule.save(path)
    assert load_schedule(path) == schedule and load_schedule(str(path)) == schedule
    assert os.listdir(path.parent) == [path.name]


def test_a_saved_file_is_readable_text_that_names_its_format(tmp_path):
    make_schedule(**GOOD).save(tmp_path / "a.json")
    data = (tmp_path / "a.json").read_bytes()
    content = json.loads(data)
    assert content["format"] == "otcache-schedule" and content["version"] == 1
    assert data.endswith(b"}\n") and b"\r" not in data


@pytest.mark.skipif(os.name == "nt", reason="file modes are POSIX's")
def test_a_saved_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_text("")
    make_schedule(**GOOD).save(tmp_path / "a.json")
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "usual").stat().st_mode
    )


def test_defaults_are_a_linear_full_schedule():
    schedule = parse_schedule('{"sigmas": [1, 0.5, 0], "compute_steps": [0]}')
    assert schedule.predictor == Predictor(kind="linear", damping=1.0) and schedule.stage == "full"
    assert (schedule.steps, schedule.budget, schedule.ideal_speedup) == (2, 1, 2.0)


@given(grids_with_steps())
def test_segments_cover_every_step_once(case):
    sigmas, steps = case
    segments = make_schedule(sigmas=sigmas.tolist(), compute_steps=steps).segments
    assert [start for start, _ in segments] == list(steps)
    assert [i for start, end in segments for i in range(start, end)] == list(range(len(sigmas) - 1))


@pytest.mark.parametrize("field", ["sigmas", "compute_steps"])
def test_a_missing_field_is_named(field):
    refused(text(**{field: None}), field, "required")


WRONG = {
    "format": ["otcache", "", 1, [], {}],
    "version": [0, 2, "1", 1e400, 10**400, [], {}, "one"],
    "name": [5, [], {}, True, "x" * 201],
    "sigmas": [
        "1,0", 5, True, {}, [], [1.0], ["1", "0.8", "0.5", "0.1", "0"], [True, False],
        [1.0, None, 0.1, 0.05, 0.0], [1.0, 0.8, 0.5, 0.5, 0.0], [0.0, 0.1, 0.5, 0.8, 1.0],
        [1.0, 0.8, 0.5, 0.1, -1e-9], [10**400, 0.8, 0.5, 0.1, 0],
        [[1.0], 0.8, 0.5, 0.1, 0.0], [float("nan"), 0.8, 0.5, 0.1, 0.0], [float("inf"), 0.8, 0.5, 0.1, 0.0],
        [1.0, 0.8, 0.5, 0.1, float("-inf")], list(range(MAX_STEPS + 2, 0, -1)),
    ],
    "compute_steps": [
        "0", 0, True, {}, [], [1, 2, 3], [0, 1, 1], [0, 2, 1], [3, 1, 0], [-1, 0, 1], [0, -1, 2],
        [0, 1, 4], [0, 1, 10**18], [0, 1, 10**300], [0, 1, -(10**300)], [0, 1, "2"], [0, 1, True],
        [0, 1, None], [0, 1, 2.5], [0, 1, [2]], [0, 1, float("nan")], [0, 1, float("inf")],
        list(range(2 * 10**5)),
    ],
    "predictor": [
        "linear", [], 5, {"kind": "cubic"}, {"kind": 1}, {"kind": None}, {"damping": "1"}, {"order": 2},
    ],
    "weights": [
        "1", 5, {}, [], [[1.0], [1.0]], [[1.0]] * 4, [[1.0], [1.0], []],
        [[1.0], [1.0], [1.0] * (HISTORY + 1)], [1.0, 1.0, 1.0], [[1.0], ["1"], [1.0]],
        [[1.0], [float("nan")], [1.0]], [[1.0], [float("inf")], [1.0]], [[1.0], [10**400], [1.0]],
        [[1.0], [True], [1.0]],
    ],
    "spans": [
        "1", 5, {}, [], [1, 2], [1, 2, 3, 4], [1, 2, -1], [1, 2, MAX_STEPS + 1], [1, 2, 10**300],
        [1, 2, "3"], [1, 2, 1.5], [1, 2, True],
    ],
    "stage": ["best", "", 3, []],
    "model": [5, "x" * 201],
    "sampler": [5, "x" * 101],
    "model_class": [5, "x" * 201],
    "model_key": [5, "x" * 201],
    "noise": ["epsilon", 3],
    "scheduler": [5, "x" * 101],
    "shift": ["3", True, [], float("nan"), float("inf"), 10**400],
    "metric": [5, "x" * 101],
    "score": ["0.1", False, {}, float("nan"), float("-inf"), 10**400],
    "psnr": ["0.1", False, {}, float("nan"), float("-inf"), 10**400],
    "cases": ["a", {}, [5], ["x" * 501], ["a"] * 10_001],
    "parents": ["a", [5], ["x" * 201], ["a"] * 101],
    "provenance": [5, "x" * 4001],
    "versions": [[], "1", {"a": 5}, {"a": "x" * 101}, {"x" * 51: "1"}],
    "speedup": ["3", True, 0.99, -1, float("nan"), float("inf"), 10**400],
    "rules": [
        5, [], "start", {"begin": 1.0}, {"start": "1"}, {"end": float("nan")}, {"max_skips": -1}, {"max_skips": 1.5},
        {"max_skips": 10**9}, {"on": 1.0}, {"on": ["1"]}, {"off": [float("inf")]}, {"off": [0.5] * 1001},
    ],
    "prepared": [5, {}, ["a"], [{}], [GOOD | {"compute_steps": [1]}], [GOOD | {"prepared": [GOOD]}]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param(field, value, id=f"{field}-{repr(value)[:40]}")
        for field, values in WRONG.items()
        for value in values
    ],
)
def test_a_wrong_value_names_its_field(field, value):
    refused(text(**{field: value}), field)


def test_every_field_is_covered_by_wrong_values():
    assert set(WRONG) == set(Schedule.model_fields)


@pytest.mark.parametrize("damping", [-0.1, 1.1, "1", True, float("nan"), float("inf"), None, 10**400])
def test_damping_out_of_range_is_named(damping):
    refused(text(predictor={"kind": "linear", "damping": damping}), "predictor.damping")


@pytest.mark.parametrize("bands", [0, BANDS + 1, "1", True, 1.5, None])
def test_bands_out_of_range_are_named(bands):
    refused(text(predictor={"kind": "fitted", "bands": bands}), "predictor.bands")


@pytest.mark.parametrize(
    ("bands", "row", "numbers"),
    [(1, 0, 2), (1, 1, 3), (1, 2, 4), (2, 0, 1), (2, 0, 4), (2, 1, 3), (2, 1, 6), (2, 2, 5), (2, 2, 7)],
)
def test_a_row_with_more_weights_than_evaluations_or_a_torn_band_is_named(bands, row, numbers):
    rows = [[1.0] * bands, [1.0] * bands, [1.0] * bands]
    rows[row] = [1.0] * numbers
    refused(text(predictor={"kind": "fitted", "bands": bands}, weights=rows), "weights", str(row))


@pytest.mark.parametrize("bands", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_rows_may_use_fewer_evaluations_than_were_made(bands, count):
    rows = [[1.0] * bands * min(k + 1, count) for k in range(3)]
    schedule = parse_schedule(text(predictor={"kind": "fitted", "bands": bands}, weights=rows))
    assert schedule.weights == tuple(map(tuple, rows))


@pytest.mark.parametrize(("kind", "field"), [("fitted", "weights"), ("mean_velocity", "spans")])
def test_a_predictor_without_what_it_needs_is_named(kind, field):
    refused(text(predictor={"kind": kind}, **{field: None}), field, kind)


@pytest.mark.parametrize("extra", ["computesteps", "__class__", "model_fields", "", "Sigmas"])
def test_an_unknown_field_is_refused_and_named(extra):
    refused(text(**{extra: [0, 2]}), extra)


@pytest.mark.parametrize("extra", ["a\nb", "x" * 100_000, "\x1b[31mred"])
def test_a_hostile_field_name_is_repeated_on_one_short_printable_line(extra):
    assert refused(text(**{extra: 1})).isprintable()


@pytest.mark.parametrize(
    "data",
    [
        b"", b" ", b"null", b"[]", b"5", b'"text"', b"{", b"{}", b"\xff\xfe{}", b"\x00" * 100,
        b"\x89PNG\r\n\x1a\n\x00\x00", b'{"name": "\xe9"}', b'{"name": "\\ud800"}', b"[" * 100_000,
        b'{"prepared":' * 100_000, b'{"a":' * 100_000, b'{"sigmas": [1, 0], "compute_steps": [0]} trailing',
        b"{'sigmas': [1, 0]}", b"9" * 100_000, "{\ud800}",
        b'{"sigmas": [1, 0], "compute_steps": [0, ' + b"9" * 5000 + b"]}",
    ],
    ids=lambda data: repr(data[:24]),
)  # fmt: skip
def test_what_is_no_schedule_is_one_line_that_names_the_file(data):
    refused(data)


@given(st.binary(max_size=200))
def test_binary_junk_is_refused(data):
    refused(data)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(Schedule.model_fields)), JSON_VALUES)
@settings(max_examples=300)
def test_any_json_value_in_any_field_gives_a_valid_schedule_or_our_error(field, value):
    try:
        schedule = parse_schedule(text(**{field: value}))
    except OTCacheError:
        return
    assert parse_schedule(schedule.model_dump_json()) == schedule


@given(st.data())
@settings(max_examples=100)
def test_a_cut_file_is_refused(data):
    whole = text().encode()
    refused(whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_missing_files_and_folders_are_named(tmp_path):
    for path in (tmp_path / "missing.json", tmp_path, tmp_path / "missing.json" / "deeper.json"):
        with pytest.raises(OTCacheError) as error:
            load_schedule(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_an_oversize_file_is_refused_without_reading_it(tmp_path, monkeypatch):
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda _: pytest.fail("was read"))
    with pytest.raises(OTCacheError, match="large.json is larger than 16 MiB"):
        load_schedule(path)


def test_the_largest_permitted_grid_loads():
    sigmas = np.linspace(1, 0, MAX_STEPS + 1).tolist()
    assert (
        parse_schedule(json.dumps({"sigmas": sigmas, "compute_steps": [0, MAX_STEPS - 1]})).steps == MAX_STEPS
    )


def test_a_null_byte_in_a_path_is_our_error(tmp_path):
    schedule = make_schedule(**GOOD)
    for action in (load_schedule, schedule.save):
        with pytest.raises(OTCacheError):
            action(f"{tmp_path}/a\0b.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a device file")
def test_a_device_is_refused_without_reading_it(monkeypatch):
    read = []
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda path: read.append(path) or b"")
    with pytest.raises(OTCacheError):
        load_schedule("/dev/zero")
    assert not read


def failing_replace(*_):
    raise OSError(28, "No space left on device")


def test_a_failing_write_leaves_the_old_file_and_no_partial_one(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    old = make_schedule(**GOOD)
    old.save(path)
    monkeypatch.setattr(files.os, "replace", failing_replace)
    with pytest.raises((OSError, OTCacheError)):
        old.replace(name="new").save(path)
    assert os.listdir(tmp_path) == ["a.json"] and load_schedule(path) == old


def test_a_full_disk_is_our_error(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "replace", failing_replace)
    with pytest.raises(OTCacheError, match="No space left"):
        make_schedule(**GOOD).save(tmp_path / "a.json")


def test_saving_over_a_folder_is_our_error(tmp_path):
    with pytest.raises(OTCacheError):
        make_schedule(**GOOD).save(tmp_path)


def test_a_folder_that_cannot_be_made_is_our_error_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OTCacheError, match="Cannot write .*a.json.*choose a folder"):
        make_schedule(**GOOD).save(tmp_path / "file" / "a.json")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_our_error_and_leaves_nothing(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OTCacheError, match="Permission denied"):
            make_schedule(**GOOD).save(tmp_path / "a.json")
        assert os.listdir(tmp_path) == []
    finally:
        tmp_path.chmod(0o700)


def test_schedules_are_immutable():
    schedule = make_schedule(**GOOD)
    with pytest.raises(ValueError, match="frozen"):
        schedule.name = "other"
    with pytest.raises(ValueError, match="frozen"):
        schedule.predictor.damping = 0.0


def test_replace_changes_a_copy_and_validates_it():
    schedule = make_schedule(**GOOD)
    assert schedule.replace(name="new").name == "new" and schedule.name == ""
    assert schedule.replace(name="new").replace(name="") == schedule
    with pytest.raises(OTCacheError, match="weights has 3 rows for 2 compute steps"):
        schedule.replace(compute_steps=(0, 1), spans=None)
    with pytest.raises(OTCacheError, match="nme"):
        schedule.replace(nme="typo")


@given(st.integers(1, 60), st.data())
def test_uniform_steps_are_distinct_and_even(steps, data):
    budget = data.draw(st.integers(1, steps))
    chosen = uniform_steps(budget, steps)
    gaps = np.diff((*chosen, steps))
    assert len(chosen) == budget and chosen[0] == 0 and gaps.min() >= 1 and gaps.max() - gaps.min() <= 1
    assert all(type(step) is int for step in chosen)


@given(grids_with_steps())
def test_trajectory_time_runs_from_0_to_1(case):
    t = trajectory_time(case[0])
    assert t[0] == 0 and t[-1] == 1 and (np.diff(t) > 0).all()


@pytest.mark.parametrize("budget", [0, -1, 6, 2.5, "3", 10**30])
def test_a_budget_out_of_range_names_itself_and_the_limit(budget):
    with pytest.raises(OTCacheError, match="anchor is .*whole number from 1 to the 5"):
        check_budget(budget, 5, "anchor")


@pytest.mark.parametrize("budget", [1, 5, 3.0, np.int64(4), np.float64(2)])
def test_a_whole_budget_becomes_an_int(budget):
    assert check_budget(budget, 5) == budget and type(check_budget(budget, 5)) is int


@pytest.mark.parametrize("budget", [float("nan"), float("inf"), None, [3]])
def test_a_budget_that_is_no_number_is_our_error(budget):
    with pytest.raises(OTCacheError):
        check_budget(budget, 5)


@pytest.mark.parametrize("name", ["sigmas", "compute_steps"])
def test_numpy_arrays_are_welcome(name):
    assert make_schedule(**GOOD | {name: np.array(GOOD[name])}) == make_schedule(**GOOD)
