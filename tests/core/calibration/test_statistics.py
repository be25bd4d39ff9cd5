import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from driving import drive, taken
from hypothesis import given, settings
from hypothesis import strategies as st
from mixture import MixtureGenerator, linear_sigmas
from safetensors import safe_open
from safetensors.torch import save_file

from otcache_core.calibration.fit_or_hold import expected_errors
from otcache_core.calibration.graph import edge_costs
from otcache_core.calibration.inner_products import recorded
from otcache_core.calibration.ladder import rehearsed_budgets
from otcache_core.calibration.solving import anchor_of, paths, solve
from otcache_core.calibration.statistics import (
    FORMAT,
    MOST_BYTES,
    MOST_STEPS,
    Origin,
    Statistics,
    load_statistics,
    of_recording,
    summed,
)
from otcache_core.errors import OTCacheError
from otcache_core.sampling.rehearsal import Rehearsal, Visit
from otcache_core.sampling.rollout import FITTED
from otcache_core.schedules.schedule import BANDS

STEPS = 12
SIGMAS = linear_sigmas(STEPS, shift=3.0)
ORIGIN = Origin(model_class="Flux", noise="flow", sampler="euler", cfg=3.5)


def taught(cases, steps_sets=((0, 2, 5, 8), (0, 4)), sigmas=SIGMAS, origin=ORIGIN) -> Statistics:
    """What a batch of full runs and their rehearsals teach."""
    generator = MixtureGenerator()
    recording = taken(generator, cases, sigmas)
    known = of_recording(recording, origin)
    visits, errors = [], {}
    full = recording.x[-1]
    for steps in steps_sets:
        rehearsal = Rehearsal(recording, steps)
        landed = drive(rehearsal, generator, cases)
        visits += rehearsal.visits.items()
        errors[steps] = float((landed - full).square().mean()), float(full.square().mean())
    return replace(known, visits=summed(visits), rehearsals=errors)


@pytest.fixture(scope="module")
def known() -> Statistics:
    return taught([1])


@pytest.fixture(scope="module")
def good(known, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "model.safetensors"
    known.save(path)
    return path.read_bytes()


def same(a: Statistics, b: Statistics, rtol=0.0) -> bool:
    return (
        np.array_equal(a.sigmas, b.sigmas)
        and (a.runs, a.origin, dict(a.rehearsals)) == (b.runs, b.origin, dict(b.rehearsals))
        and np.allclose(a.grams, b.grams, rtol=rtol, atol=0)
        and a.visits.keys() == b.visits.keys()
        and all(
            np.allclose(getattr(a.visits[key], name), getattr(b.visits[key], name), rtol=rtol, atol=rtol)
            for key in a.visits
            for name in ("gram", "moments", "squares")
        )
    )


# ---- sums


def test_full_runs_of_a_batch_and_one_by_one_teach_the_same():
    generator, cases = MixtureGenerator(), [1, 2, 3]
    batch = of_recording(taken(generator, cases, SIGMAS), ORIGIN)
    single = [of_recording(taken(generator, [case], SIGMAS), ORIGIN) for case in cases]
    total = single[0] + single[1] + single[2]
    assert batch.runs == total.runs == 3
    assert np.allclose(batch.grams, total.grams, rtol=1e-5, atol=1e-7)
    assert np.allclose(batch.grams.sum(0), recorded(taken(generator, cases, SIGMAS).trajectories).bands.sum((0, 1)))


def test_adding_is_independent_of_order_and_changes_neither():
    one, two, three = taught([1]), taught([2], ((0, 4), (0, 3, 6))), taught([3], ())
    before = taught([1])
    assert same((one + two) + three, three + (two + one), rtol=1e-12)
    assert same(one, before)
    both = one + two
    assert both.runs == 2 and set(both.visits) == set(one.visits) | set(two.visits)
    assert np.allclose(both.visits[0,].gram, one.visits[0,].gram + two.visits[0,].gram)
    assert both.rehearsals[0, 4] == pytest.approx(tuple(np.add(one.rehearsals[0, 4], two.rehearsals[0, 4])))
    assert both.rehearsals[0, 2, 5, 8] == one.rehearsals[0, 2, 5, 8]


@pytest.mark.parametrize("other", ["grid", "cfg", "sampler", "length"])
def test_statistics_that_do_not_fit_cannot_be_added(known, other):
    others = {
        "grid": replace(known, sigmas=known.sigmas * np.where(np.arange(STEPS + 1) == 3, 1.0001, 1)),
        "cfg": replace(known, origin=ORIGIN.model_copy(update={"cfg": 7.0})),
        "sampler": replace(known, origin=ORIGIN.model_copy(update={"sampler": "heun"})),
        "length": taught([1], (), linear_sigmas(6)),
    }
    assert not known.fits(others[other]) and known.fits(known)
    with pytest.raises(OTCacheError, match="cannot be added"):
        _ = known + others[other]


def test_the_sums_are_one_case_for_the_graph(known):
    assert known.recorded.grams.shape == (1, STEPS, STEPS) and known.recorded.bands.shape == (2, 1, STEPS, STEPS)
    costs, _ = edge_costs(known.recorded, FITTED)
    twice, _ = edge_costs((known + known).recorded, FITTED)
    assert all(np.allclose(b, 2**0.5 * a, rtol=1e-4, atol=1e-7) for a, b in zip(costs, twice, strict=True))


def test_errors_are_relative_and_of_all_rehearsals_of_a_budget(known):
    assert set(known.errors) == {2, 4}
    two = replace(known, rehearsals={(0, 4): (4.0, 100.0), (0, 5): (5.0, 125.0), (0, 1, 2): (1.0, 0.0)})
    assert two.errors == {2: pytest.approx(0.2)}


@pytest.mark.parametrize(("steps", "budgets"), [(2, []), (3, []), (4, [2]), (10, [5]), (20, [5]), (28, [5, 7]), (50, [6, 12])])
def test_rehearsed_budgets(steps, budgets):
    assert rehearsed_budgets(steps) == budgets


@pytest.mark.parametrize(
    ("steps", "asked", "budgets"),
    [(50, 18, [6, 12]), (50, 19, [6, 12, 19]), (50, 40, [6, 12, 25]), (20, 7, [5]), (20, 8, [5, 8]), (10, 9, [5]), (3, 2, [])],
)
def test_a_budget_far_above_the_others_is_rehearsed_too(steps, asked, budgets):
    assert rehearsed_budgets(steps, asked) == budgets


@pytest.mark.parametrize(
    ("steps", "asked", "budgets"),
    [
        *[(20, 6, [5]), (20, 7, [5, 7]), (28, 6, [5, 7]), (28, 9, [5, 9]), (20, 15, [5, 10]), (3, 2, [])],
        *[(50, 14, [6, 12]), (50, 15, [6, 15]), (50, 18, [6, 18]), (50, 19, [6, 12, 19]), (50, 40, [6, 12, 25])],
    ],
)
def test_multistep_samplers_rehearse_what_is_asked_for(steps, asked, budgets):
    assert rehearsed_budgets(steps, asked, looks_back=True) == budgets


@given(st.integers(1, MOST_STEPS))
def test_rehearsed_budgets_leave_half_the_steps_out(steps):
    assert all(2 <= budget <= steps / 2 for budget in rehearsed_budgets(steps)) and len(rehearsed_budgets(steps)) < 3


# ---- files


def test_a_file_keeps_everything_but_the_last_digits_of_visits(known, tmp_path):
    path = tmp_path / "new folder" / "model.safetensors"
    known.save(path)
    read = load_statistics(path)
    assert same(read, known, rtol=1e-6) and np.array_equal(read.grams, known.grams)
    assert read.grams.dtype == read.sigmas.dtype == read.visits[0,].gram.dtype == np.float64
    assert solve([read], SIGMAS, 4).compute_steps == solve([known], SIGMAS, 4).compute_steps
    assert read.fits(known) and os.listdir(path.parent) == ["model.safetensors"]


def test_what_was_read_is_written_in_the_same_bytes(known, good, tmp_path):
    for number in range(5):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(good)
        load_statistics(path).save(path)
        assert path.read_bytes() == good
        known.save(path)
        assert path.read_bytes() == good


def test_statistics_of_one_step_and_of_many_can_be_kept(tmp_path):
    for steps in (1, MOST_STEPS):
        grid = linear_sigmas(steps)
        known = taught([1], ((0,),), grid)
        known.save(tmp_path / "model.safetensors")
        assert load_statistics(tmp_path / "model.safetensors").steps == steps


@pytest.mark.parametrize("steps", [50, MOST_STEPS])
def test_files_are_small(steps):
    """Rehearsals of the usual budgets; sizes are of shapes alone."""
    count = sum(rehearsed_budgets(steps))
    assert 2 * steps**2 * 8 + count * 2 * 4 * (9 + 4 * steps) < MOST_BYTES / (8 if steps == 50 else 2)


def test_numpys_whole_numbers_can_be_kept(known, tmp_path):
    odd = replace(
        known,
        visits={tuple(np.array(key)): seen for key, seen in known.visits.items()},
        rehearsals={tuple(np.array(steps)): tuple(np.array(pair)) for steps, pair in known.rehearsals.items()},
    )
    odd.save(tmp_path / "model.safetensors")
    assert same(load_statistics(tmp_path / "model.safetensors"), known, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e35])
@pytest.mark.parametrize("part", ["grams", "visit", "error"])
def test_what_could_not_be_read_is_not_written(known, tmp_path, part, value):
    seen = known.visits[0,]
    bad = {
        "grams": replace(known, grams=known.grams * value),
        "visit": replace(known, visits=dict(known.visits) | {(0,): replace(seen, squares=seen.squares * value)}),
        "error": replace(known, rehearsals={(0, 1): (value, 1.0)}),
    }[part]
    with pytest.raises(OTCacheError):
        bad.save(tmp_path / "model.safetensors")
    assert os.listdir(tmp_path) == []


def refused(path: Path) -> str:
    """The message that `path` is refused with: one short line that names it."""
    with pytest.raises(OTCacheError, match=path.name) as error:
        load_statistics(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    return str(error.value)


def accepted_or_refused(path: Path) -> None:
    """What can be read can be used: everything that is made of it works, or says what is wrong."""
    try:
        read = load_statistics(path)
    except OTCacheError:
        refused(path)
        return
    assert expected_errors(read.errors, range(1, 9)) is not None
    for budget in (2, read.steps // 2, read.steps):
        try:
            made = solve([read], read.sigmas, budget)
        except OTCacheError as error:
            assert "\n" not in str(error)
        else:
            assert made.budget == budget
    _ = read + read


@given(place=st.integers(0, 10**6), value=st.integers(0, 255), header=st.booleans())
@settings(max_examples=300)
def test_a_flipped_byte_gives_statistics_or_our_error(good, tmp_path_factory, place, value, header):
    path = tmp_path_factory.mktemp("flip") / "model.safetensors"
    data = bytearray(good)
    end = 8 + struct.unpack("<Q", good[:8])[0]
    data[place % (end if header else len(data))] = value
    path.write_bytes(data)
    accepted_or_refused(path)


@given(length=st.integers(0, 10**6), junk=st.binary(max_size=40))
@settings(max_examples=150)
def test_a_cut_file_is_refused(good, tmp_path_factory, length, junk):
    path = tmp_path_factory.mktemp("cut") / "model.safetensors"
    path.write_bytes(good[: length % len(good)] + junk)
    if path.read_bytes() != good:
        refused(path)


@given(st.binary(max_size=300))
@settings(max_examples=100)
def test_junk_is_refused(tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("junk") / "model.safetensors"
    path.write_bytes(junk)
    refused(path)


@given(st.text(max_size=60), st.sampled_from([FORMAT, "format", ""]))
@settings(max_examples=100)
def test_any_description_is_refused(good, tmp_path_factory, text, name):
    tensors, _ = parts(good, tmp_path_factory.mktemp("parts"))
    path = tmp_path_factory.mktemp("text") / "model.safetensors"
    save_file(tensors, path, {name: text})
    refused(path)


def parts(good: bytes, folder: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """(tensors, description) of a good file."""
    path = folder / "good.safetensors"
    path.write_bytes(good)
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}, json.loads(file.metadata()[FORMAT])  # noqa: SIM118


TENSORS = {
    "no sigmas": lambda t: t.pop("sigmas"),
    "no grams": lambda t: t.pop("grams"),
    "no visit": lambda t: t.pop("gram.1"),
    "more than it says": lambda t: t.update(more=torch.zeros(2)),
    "rising sigmas": lambda t: t.update(sigmas=t["sigmas"].flip(0)),
    "negative sigmas": lambda t: t.update(sigmas=t["sigmas"] - 0.5),
    "sigmas NaN": lambda t: t["sigmas"].__setitem__(3, torch.nan),
    "sigmas a number": lambda t: t.update(sigmas=torch.tensor(1.0)),
    "sigmas a square": lambda t: t.update(sigmas=torch.eye(3)),
    "no sigma": lambda t: t.update(sigmas=torch.zeros(0)),
    "fewer sigmas": lambda t: t.update(sigmas=t["sigmas"][:-1]),
    "huge sigmas": lambda t: t.update(sigmas=t["sigmas"] * 1e40),
    "too long": lambda t: t.update(
        sigmas=torch.linspace(1, 0, MOST_STEPS + 2), grams=torch.zeros(2, MOST_STEPS + 1, MOST_STEPS + 1)
    ),
    "grams NaN": lambda t: t["grams"].__setitem__((0, 1, 1), torch.nan),
    "grams infinite": lambda t: t["grams"].__setitem__((0, 1, 1), torch.inf),
    "grams huge": lambda t: t["grams"].mul_(1e40),
    "grams of one band": lambda t: t.update(grams=t["grams"][:1].clone()),
    "grams of no vectors": lambda t: t["grams"].neg_(),
    "grams lopsided": lambda t: t["grams"][0].add_(torch.ones(STEPS, STEPS, dtype=torch.float64).triu(1)),
    "moments too large": lambda t: t["moments.2"].mul_(1e4),
    "squares below zero": lambda t: t["squares.0"].neg_(),
    "visit's gram of no vectors": lambda t: t["gram.3"].neg_(),
    "empty of a great shape": lambda t: t.update(grams=torch.zeros(0, 2**40, 2**20)),
} | {
    f"{name} {dtype}": lambda t, name=name, dtype=dtype: t.update({name: t[name].to(dtype)})
    for name in ("sigmas", "grams", "gram.0")
    for dtype in (torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int64, torch.bool, torch.complex64)
}


@pytest.mark.parametrize("change", TENSORS)
def test_wrong_tensors_are_refused(good, tmp_path, change):
    tensors, described = parts(good, tmp_path)
    TENSORS[change](tensors)
    save_file(tensors, tmp_path / "bad.safetensors", {FORMAT: json.dumps(described)})
    refused(tmp_path / "bad.safetensors")


DESCRIPTIONS = {
    "version": [2, 0, "1", None, 1.5],
    "runs": [0, -1, 10**7, 1.5, "1", None, True, 10**400],
    "origin": [None, {}, {"cfg": "x"}, {"more": 1}, {"model_class": "x" * 201}, {"noise": "other"}, []],
    "visits": [
        None, 5, {}, [], [[0]], [[0.0], [2, 0], [5, 2, 0], [8, 5, 2], [4, 0]], [[False], [2, 0], [5, 2, 0], [8, 5, 2], [4, 0]],
        [[0], [2, 0], [2, 0], [8, 5, 2], [4, 0]], [[0], [0, 2], [5, 2, 0], [8, 5, 2], [4, 0]],
        [[-1], [2, 0], [5, 2, 0], [8, 5, 2], [4, 0]], [[], [2, 0], [5, 2, 0], [8, 5, 2], [4, 0]],
        [[0], [2, 0], [5, 2, 0], [STEPS, 5, 2], [4, 0]], [[0], [2, 0], [5, 2, 0], [8, 5, 2], [4, 0], [3, 0]],
        [[0], [2, 0], [5, 2, 0], [8, 5, 2, 0], [4, 0]], [[0], [2, 2], [5, 2, 0], [8, 5, 2], [4, 0]],
    ],
    "rehearsals": [
        None, {}, [[]], [[[0, 1], 1.0]], [[[0, 1], 1.0, 1.0, 1.0]], [[[0, 1.5], 1, 1]], [["01", 1, 1]], [[[1, 2], 1, 1]],
        [[[], 1, 1]], [[[0, STEPS], 1, 1]], [[[0, 1, 1], 1, 1]], [[[0, 1], -1.0, 1.0]], [[[0, 1], 1.0, -1.0]],
        [[[0, 1], 1e400, 1.0]], [[[0, 1], float("nan"), 1.0]], [[[0, 1], 1e300, 1.0]], [[[0, int("9" * 4000)], 1, 1]],
        [[[0, 1], 1, 1], [[0, 1], 2, 2]],
    ],
    "holds": [None, {}, [[]], [[[0, 1], 1.0]], [[[0, STEPS], 1, 1]], [[[0, 1], -1.0, 1.0]], [[[0, 1], 1, 1], [[0, 1], 2, 2]]],
    "more": [1],
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "number"), [(field, number) for field, values in DESCRIPTIONS.items() for number in range(len(values))]
)
def test_wrong_descriptions_are_refused(good, tmp_path, field, number):
    tensors, described = parts(good, tmp_path)
    value = DESCRIPTIONS[field][number]
    if (field, value) == ("origin", {}):  # all that an origin has may be unknown
        return
    save_file(tensors, tmp_path / "bad.safetensors", {FORMAT: json.dumps(described | {field: value})})
    refused(tmp_path / "bad.safetensors")


def of_bands(known: Statistics, count: int) -> Statistics:
    """`known` with `count` bands, made of its two."""
    chosen = [number % 2 for number in range(count)]
    visits = {
        steps: Visit(seen.gram[chosen], seen.moments[chosen], seen.squares[chosen]) for steps, seen in known.visits.items()
    }
    return replace(known, grams=known.grams[chosen], visits=visits)


@pytest.mark.parametrize("count", [1, 2, 4, BANDS])
def test_files_say_how_many_bands_they_tell_apart(known, tmp_path, count):
    ours = of_bands(known, count)
    ours.save(tmp_path / "a.safetensors")
    found = load_statistics(tmp_path / "a.safetensors")
    assert same(found, ours, rtol=1e-6) and found.bands == ours.bands == count
    assert solve([found], SIGMAS, 4).predictor.bands == count
    assert ours.fits(known) == (count == 2) and same(ours + ours, of_bands(known + known, count))
    if count != 2:
        with pytest.raises(OTCacheError, match="bands"):
            _ = ours + known


def test_files_that_do_not_say_it_are_of_pictures(good, tmp_path):
    tensors, words = parts(good, tmp_path)
    assert words.pop("bands") == 2
    path = tmp_path / "old.safetensors"
    save_file(tensors, path, metadata={FORMAT: json.dumps(words)})
    assert load_statistics(path).bands == 2


@pytest.mark.parametrize("bands", [0, 1, 3, BANDS + 1, "2", 2.5, True, None])
def test_files_that_say_another_count_than_they_hold_are_refused(good, tmp_path, bands):
    tensors, words = parts(good, tmp_path)
    path = tmp_path / "bad.safetensors"
    save_file(tensors, path, metadata={FORMAT: json.dumps(words | {"bands": bands})})
    refused(path)


@pytest.mark.parametrize("field", ["version", "runs", "origin", "visits", "rehearsals"])
def test_a_description_without_a_field(good, tmp_path, field):
    tensors, described = parts(good, tmp_path)
    del described[field]
    save_file(tensors, tmp_path / "bad.safetensors", {FORMAT: json.dumps(described)})
    refused(tmp_path / "bad.safetensors")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"runs": ' + "9" * 5000 + "}", "\ud7ff\x00", "null", '"' + "\\n" * 50])
def test_hostile_descriptions_are_refused(good, tmp_path, text):
    tensors, _ = parts(good, tmp_path)
    save_file(tensors, tmp_path / "bad.safetensors", {FORMAT: text})
    refused(tmp_path / "bad.safetensors")


def test_other_models_files_are_refused(good, tmp_path):
    tensors, _ = parts(good, tmp_path)
    for metadata in (None, {}, {"format": "pt"}):
        save_file(tensors, tmp_path / "lora.safetensors", metadata)
        assert "another kind" in refused(tmp_path / "lora.safetensors")


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    assert "larger than 8 MiB" in refused(path)


def test_what_is_no_file_is_named(tmp_path):
    assert "check the path" in refused(tmp_path)
    assert "check the path" in refused(tmp_path / "missing.safetensors")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.safetensors")  # which would be waited for
        assert "check the path" in refused(tmp_path / "pipe.safetensors")
    with pytest.raises(OTCacheError):
        load_statistics("a\0b")


def test_a_folder_that_cannot_be_written_to_is_our_error(known, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OTCacheError, match="Cannot write"):
        known.save(tmp_path / "file" / "model.safetensors")


def test_the_graphs_anchor_carries_every_budget_that_was_learnt(known):
    anchor = anchor_of(known)
    assert [made.budget for made in anchor.prepared] == list(range(2, STEPS // 2 + 1)) and anchor.stage == "anchor"
    graph = paths(known, STEPS // 2)
    assert all(made.compute_steps == graph[made.budget] and made.score > 0 for made in anchor.prepared)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_short_runs_have_an_anchor_too(steps):
    assert anchor_of(taught([1], (), linear_sigmas(steps))).budget == max(steps // 2, 1)


def test_an_anchor_of_rehearsals_of_more_than_half_the_steps(known):
    assert anchor_of(replace(known, rehearsals={tuple(range(STEPS - 1)): (1.0, 1.0)})).budget == STEPS // 2
