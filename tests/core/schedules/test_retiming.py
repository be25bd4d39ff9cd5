import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mixture import linear_sigmas
from strategies import grids_with_steps, sigma_grids

from otcache_core.errors import OTCacheError
from otcache_core.schedules.extrapolation import extrapolated_mean_weights, prior_weights
from otcache_core.schedules.retiming import retime, retimed_weights, with_segments
from otcache_core.schedules.schedule import HISTORY, Predictor, make_schedule, parse_schedule

BANDS = {"fitted": 1, "two bands": 2, "five bands": 5}
KINDS = ["hold", "linear", "mean_velocity", *BANDS]
STEPS = (0, 1, 2, 4, 7, 11, 16, 22, 29, 37, 45)


def schedule(sigmas, steps, kind="two bands", seed=0, **fields):
    """A schedule of `kind` with random weights and spans."""
    random, bands = np.random.default_rng(seed), BANDS.get(kind, 1)
    rows = [random.normal(size=bands * min(k + 1, HISTORY)).tolist() for k in range(len(steps))]
    return make_schedule(
        sigmas=np.asarray(sigmas).tolist(),
        compute_steps=steps,
        predictor=Predictor(kind="fitted" if kind in BANDS else kind, bands=bands),
        weights=rows if kind in BANDS else None,
        spans=random.integers(0, 6, size=len(steps)).tolist() if kind == "mean_velocity" else None,
        **fields,
    )


def moved_sigmas(old, new):
    """Distances in sigma between the compute steps of two schedules of equal budgets."""
    return np.abs([old.sigmas[i] - new.sigmas[j] for i, j in zip(old.compute_steps, new.compute_steps, strict=True)])


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_grid_gives_the_same_object(kind):
    ours = schedule(linear_sigmas(50, 3.0), STEPS, kind)
    for grid in (ours.sigmas, list(ours.sigmas), np.array(ours.sigmas)):
        assert retime(ours, grid) is ours


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "shift"), [(28, 3.0), (20, 3.0), (50, 1.0), (100, 3.0), (40, 12.0)])
def test_compute_sigmas_go_to_the_nearest_steps_of_another_grid(kind, steps, shift):
    ours = schedule(linear_sigmas(50, 3.0), STEPS, kind)
    grid = linear_sigmas(steps, shift)
    moved = retime(ours, grid)
    assert moved.sigmas == tuple(grid.tolist()) and moved.compute_steps[0] == 0
    assert moved.budget == ours.budget and moved.predictor == ours.predictor
    nearest = [int(np.abs(grid[:-1] - ours.sigmas[i]).argmin()) for i in ours.compute_steps]
    if len(set(nearest)) == len(nearest):
        assert moved.compute_steps == tuple(nearest)
    assert moved_sigmas(ours, moved).max() <= 2 * np.abs(np.diff(grid)).max()


def test_half_the_steps_and_the_other_shift_by_hand():
    ours = schedule(linear_sigmas(8), (0, 2, 4, 6), "hold")
    assert retime(ours, linear_sigmas(4)).compute_steps == (0, 1, 2, 3)
    assert retime(ours, linear_sigmas(16)).compute_steps == (0, 4, 8, 12)
    # Sigmas 1, .75, .5, .25 on 3 t / (1 + 2 t): 1, .955, .9, .833, .75, .643, .5, .3.
    assert retime(ours, linear_sigmas(8, shift=3.0)).compute_steps == (0, 4, 6, 7)


def after_start(sigmas, steps, first):
    """The compute steps of a whole that are left for a slice that begins at step `first`, which is computed anyway.

    The nearest of them all to the beginning, in sigma, is what its evaluation stands for.
    """
    nearest = min(steps, key=lambda i: (abs(sigmas[i] - sigmas[first]), i))
    return {i for i in steps if i > first} - {nearest}


@pytest.mark.parametrize("kind", KINDS)
def test_a_denoise_tail_keeps_what_lies_in_it(kind):
    ours, grid = schedule(linear_sigmas(50, 3.0), STEPS, kind), linear_sigmas(40, 3.0)[20:]
    moved = retime(ours, grid)
    inside = [ours.sigmas[i] for i in STEPS if ours.sigmas[i] < grid[0]]
    assert moved.steps == 20 and moved.compute_steps[0] == 0 and moved.budget == 1 + len(inside)
    for sigma, step in zip(inside, moved.compute_steps[1:], strict=True):
        assert abs(grid[step] - sigma) <= np.abs(np.diff(grid)).max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("first", "last"), [(0, 20), (7, 50), (10, 40), (8, 9), (46, 50), (0, 1), (3, 22)])
@pytest.mark.parametrize("finish", [False, True])
def test_slices_of_the_grid_compute_their_first_step_and_the_wholes_own(kind, first, last, finish):
    """KSamplerAdvanced's start_at_step, end_at_step; with `finish` its last sigma becomes zero."""
    ours = schedule(linear_sigmas(50, 3.0), STEPS, kind)
    grid = np.array(ours.sigmas[first : last + 1])
    if finish:
        grid[-1] = 0.0
    moved = retime(ours, grid)
    assert moved.steps == last - first
    expected = {0} | {i - first for i in after_start(ours.sigmas, STEPS, first) if i < last}
    if finish and last < STEPS[-1] and last - first > 1:
        expected |= {last - first - 1}  # the jump to the end stands for all that the whole still computes
    assert set(moved.compute_steps) == expected


@pytest.mark.parametrize("kind", KINDS)
@given(split=st.integers(1, 49))
def test_the_halves_of_a_split_compute_what_the_whole_does(kind, split):
    ours = schedule(linear_sigmas(50, 3.0), STEPS, kind)
    high, low = retime(ours, ours.sigmas[: split + 1]), retime(ours, ours.sigmas[split:])
    together = high.compute_steps + tuple(split + i for i in low.compute_steps)
    before = {i for i in STEPS if i < split}
    assert set(together) == before | {split} | after_start(ours.sigmas, STEPS, split) and len(together) == len(set(together))


def test_a_run_that_starts_just_above_a_compute_sigma_does_not_evaluate_twice():
    """Denoise 0.6 of 50 steps on a usual schedule: its steps were 0, 1, 8, 17, ..."""
    ours = schedule(linear_sigmas(50), (0, 2, 6, 13, 20, 25, 31, 36, 41, 46), "hold")
    moved = retime(ours, linear_sigmas(83)[-51:])
    assert abs(moved.sigmas[0] - ours.sigmas[20]) < 0.015  # the compute sigma that lies just below
    assert moved.compute_steps[1] > 5 and moved.budget == len([s for s in ours.compute_steps if s >= 20])


@pytest.mark.parametrize("above", [1 + 1e-5, 1.001, 1.02])
def test_a_run_that_starts_above_the_schedule_does_not_evaluate_twice(above):
    ours = schedule(linear_sigmas(50, 3.0), STEPS, "two bands")
    moved = retime(ours, np.append(above, ours.sigmas[1:]))
    assert moved.compute_steps == STEPS


def test_a_longer_segment_does_not_take_the_row_of_a_single_step():
    """Such a row is the evaluation itself, which nothing was predicted with: on a longer segment it would hold."""
    ours = schedule(linear_sigmas(50), (0, 1, 2, 3, 4, 8, 14, 20), "two bands")
    own = (1.0, 0.0, 0.0) * 2
    ours = ours.replace(weights=(*ours.weights[:2], own, own, *ours.weights[4:]))
    grid, steps = np.array(ours.sigmas), (0, 1, 3, 5, 9, 15)
    rows = with_segments(ours, grid, steps, [0, 1, 3, 4, 5, 6]).weights
    assert rows[2] == tuple(prior_weights(grid[[3, 1, 0]], grid[3:6]).tolist()) * 2
    assert not any(np.allclose(row, own) for row in retime(ours, linear_sigmas(100)).weights[2:])


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_that_computes_every_step_does_so_on_every_grid(kind):
    """Image to image with 12 steps is the tail of a finer grid: nothing may be skipped there either."""
    ours = schedule(linear_sigmas(12), tuple(range(12)), kind)
    assert retime(ours, linear_sigmas(24)[12:]).compute_steps == tuple(range(12))
    assert retime(ours, linear_sigmas(50, 3.0)).compute_steps == tuple(range(50))


def test_float32_grids_are_the_same_grid():
    """ComfyUI's sigmas are float32: a slice must not compute its first step twice over."""
    ours = schedule(linear_sigmas(50, 3.0), STEPS, "hold")
    grid = np.float32(ours.sigmas)
    assert retime(ours, grid).compute_steps == STEPS
    for split in STEPS[1:]:
        high, low = retime(ours, grid[: split + 1]), retime(ours, grid[split:])
        assert high.compute_steps + tuple(split + i for i in low.compute_steps) == STEPS


@given(st.sampled_from(KINDS), grids_with_steps(), sigma_grids(), st.integers(0, 9), st.floats(0.1, 1.5))
def test_any_schedule_can_be_carried_to_any_grid(kind, case, grid, seed, scale):
    sigmas, steps = case
    ours = schedule(sigmas, steps, kind, seed, name="old", score=0.5)
    grid = grid / grid[0] * sigmas[0] * scale
    moved = retime(ours, grid)
    assert moved.steps == len(grid) - 1 and moved.compute_steps[0] == 0  # the rest is validated by the schedule itself
    assert moved.budget <= (moved.steps if ours.budget == ours.steps else ours.budget + 1)
    assert moved.score is None and moved.parents == ("old",)
    assert f"re-timed from {ours.steps} steps" in moved.provenance
    assert parse_schedule(moved.model_dump_json()) == moved


@given(grids_with_steps(), st.data())
def test_a_grid_of_fewer_steps_than_compute_sigmas_is_computed_in_full(case, data):
    sigmas, steps = case
    count = data.draw(st.integers(1, len(steps)))
    moved = retime(schedule(sigmas, steps), np.linspace(sigmas[0], sigmas[-1], count + 1))
    assert moved.compute_steps == tuple(range(count))


def test_prepared_schedules_are_left_behind_and_the_rest_is_kept():
    inner = schedule(linear_sigmas(50), STEPS)
    ours = inner.replace(prepared=(inner,), model="m", shift=3.0, metric="rmse", provenance="guard")
    moved = retime(ours, linear_sigmas(20))
    assert moved.prepared == () and (moved.model, moved.shift, moved.metric) == ("m", 3.0, "rmse")
    assert moved.provenance == "re-timed from 50 steps; guard"


# -- weights -------------------------------------------------------------------------------------------------


@given(grids_with_steps(min_steps=2), st.sampled_from(list(BANDS)), st.integers(0, 99))
def test_weights_on_the_same_grid_are_unchanged(case, kind, seed):
    sigmas, steps = case
    ours = schedule(sigmas, steps, kind, seed)
    rows = retimed_weights(ours, sigmas, steps, range(len(steps)))
    for row, old in zip(rows, ours.weights, strict=True):
        assert np.allclose(row, old, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", BANDS)
@pytest.mark.parametrize("scale", [1e-3, 0.7, 14.6, 1000.0])
def test_weights_do_not_depend_on_the_unit_of_sigma(kind, scale):
    ours = schedule(linear_sigmas(50, 3.0), STEPS, kind)
    rows = retimed_weights(ours, np.array(ours.sigmas) * scale, STEPS, range(len(STEPS)))
    for row, old in zip(rows, ours.weights, strict=True):
        assert np.allclose(row, old, rtol=1e-9, atol=1e-9)


def stretched(sigmas, steps, lengths):
    """`sigmas` with each segment stretched to a new length, its inner points in proportion."""
    ends, grid = (*steps, len(sigmas) - 1), [float(np.sum(lengths))]
    for (a, b), length in zip(zip(ends, ends[1:], strict=False), lengths, strict=True):
        inner = (sigmas[a] - sigmas[a + 1 : b + 1]) / (sigmas[a] - sigmas[b])
        grid += (grid[-1] - length * inner).tolist()
    return np.maximum(grid, 0.0)


@given(grids_with_steps(min_steps=2), st.data(), st.floats(0, 1))
def test_linear_extrapolation_stays_exact_when_segments_are_stretched(case, data, damping):
    """Newton's form keeps span * v' whatever the gaps, so such weights are again those of the new grid."""
    sigmas, steps = case
    count = st.lists(st.floats(0.2, 5), min_size=len(steps), max_size=len(steps))
    grid = stretched(sigmas, steps, data.draw(count))

    def weights(sigmas):
        ends = (*steps[1:], len(sigmas) - 1)
        return [
            extrapolated_mean_weights(sigmas[list(steps[k::-1][:HISTORY])], sigmas[i : j + 1], 1, damping)
            for k, (i, j) in enumerate(zip(steps, ends, strict=True))
        ]

    ours = make_schedule(sigmas=sigmas.tolist(), compute_steps=steps, predictor={"kind": "fitted"}, weights=weights(sigmas))
    for row, exact in zip(retimed_weights(ours, grid, steps, range(len(steps))), weights(grid), strict=True):
        assert np.allclose(row, exact, rtol=1e-6, atol=1e-7 * np.abs(exact).max())


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize(("steps", "shift"), [(100, 1.0), (200, 3.0)])
def test_polynomials_stay_predicted_on_a_finer_grid(order, steps, shift):
    """From even segments of ten steps to others: the mean of the polynomial, up to where its steps fall."""
    sigmas, path = linear_sigmas(100), tuple(range(0, 100, 10))
    pasts = [sigmas[list(path[k::-1][:HISTORY])] for k in range(10)]
    rows = [extrapolated_mean_weights(past, sigmas[i : i + 11], order) for past, i in zip(pasts, path, strict=True)]
    ours = make_schedule(sigmas=sigmas.tolist(), compute_steps=path, predictor={"kind": "fitted"}, weights=rows)
    moved = retime(ours, linear_sigmas(steps, shift))
    grid, velocity = np.array(moved.sigmas), np.polynomial.Polynomial([0.3, -1.0, 2.0][: order + 1])
    assert moved.budget == 10
    for k, (start, end) in enumerate(moved.segments[2:], 2):
        past = grid[list(moved.compute_steps[k::-1][:HISTORY])]
        true = np.diff(grid[start : end + 1]) @ velocity(grid[start:end]) / (grid[end] - grid[start])
        held = abs(velocity(grid[start]) - true)
        assert abs(moved.weights[k] @ velocity(past) - true) <= 1e-9 + 0.25 * held


@given(grids_with_steps(min_steps=2), sigma_grids(min_steps=2), st.integers(0, 99))
def test_constant_velocities_keep_their_multiple(case, grid, seed):
    """Each band's weights sum to what their segment's did, or to one where the unfitted prior stands in."""
    sigmas, steps = case
    ours = schedule(sigmas, steps, "two bands", seed)
    known = [np.sum(half) for row in ours.weights for half in np.split(np.array(row), 2)] + [1.0]
    for row in retime(ours, grid / grid[0] * sigmas[0]).weights:
        for half in np.split(np.array(row), 2):
            assert np.abs(np.array(known) - half.sum()).min() < 1e-6 * (1 + np.abs(half).sum())


@pytest.mark.parametrize(("steps", "shift"), [(28, 3.0), (50, 1.0), (64, 5.0)])
def test_each_segment_takes_the_weights_of_the_compute_sigma_that_moved_there(steps, shift):
    """Also where its step is a little above that sigma, in what was the segment before."""
    ours = schedule(linear_sigmas(50, 3.0), STEPS, "two bands")
    moved = retime(ours, linear_sigmas(steps, shift))
    assert any(moved.sigmas[i] > ours.sigmas[j] for i, j in zip(moved.compute_steps, STEPS, strict=True))
    for row, old, (start, end) in zip(moved.weights, ours.weights, ours.segments, strict=True):
        assert end == start + 1 or np.allclose(np.reshape(row, (2, -1)).sum(1), np.reshape(old, (2, -1)).sum(1))


def test_the_start_of_a_slice_gets_the_prior():
    """It sees fewer evaluations than its segments were fitted with."""
    ours = schedule(linear_sigmas(50, 3.0), STEPS, "two bands")
    grid = np.array(ours.sigmas[7:])
    moved = retime(ours, grid)
    assert moved.compute_steps[:4] == (0, 4, 9, 15) and [len(row) for row in moved.weights[:4]] == [2, 4, 6, 6]
    for k, (start, end) in enumerate(moved.segments[:2]):
        past = grid[list(moved.compute_steps[k::-1])]
        assert moved.weights[k] == tuple(prior_weights(past, grid[start : end + 1]).tolist()) * 2
    for ours_row, row in zip(ours.weights[STEPS.index(16) :], moved.weights[2:], strict=True):
        assert np.allclose(ours_row, row, rtol=1e-9)


def test_a_slice_from_the_start_keeps_every_weight_of_its_whole_segments():
    ours = schedule(linear_sigmas(50, 3.0), STEPS, "two bands")
    moved = retime(ours, ours.sigmas[:23])
    assert moved.compute_steps == STEPS[:7]
    for row, old in zip(moved.weights, ours.weights, strict=False):
        assert np.allclose(row, old, rtol=1e-9)


@pytest.mark.parametrize("last", [1, 3, 5, 8])
def test_a_slice_within_the_first_segment_continues_the_first_segment(last):
    ours = schedule(linear_sigmas(20), (0, 8, 14), "fitted")
    assert retime(ours, ours.sigmas[: last + 1]).weights == (ours.weights[0],)


# -- spans ---------------------------------------------------------------------------------------------------


def spanned(steps: int, path=(0, 4, 8), spans=(1, 2, 5), shift=1.0):
    return make_schedule(
        sigmas=linear_sigmas(steps, shift).tolist(), compute_steps=path, predictor={"kind": "mean_velocity"}, spans=spans
    )


def test_spans_scale_with_the_gaps():
    assert retime(spanned(10), linear_sigmas(20)).spans == (2, 4, 10)
    assert retime(spanned(20, (0, 8, 16), (1, 4, 10)), linear_sigmas(10)).spans == (0, 2, 5)
    assert retime(spanned(10), np.linspace(1, 0.1, 10)).spans == (1, 2, 5)  # a slice has the same gaps
    assert retime(spanned(10), linear_sigmas(10)[4:]).spans == (2, 5)
    assert retime(spanned(10), linear_sigmas(20)[7:]).spans == (4, 10)  # it starts near the second compute sigma


@pytest.mark.parametrize("last", [1, 2, 4])
def test_a_slice_within_the_first_segment_keeps_its_span(last):
    assert retime(spanned(10, spans=(3, 0, 0)), linear_sigmas(10)[: last + 1]).spans == (min(3, last),)


def test_spans_on_a_very_fine_slice_stay_valid():
    grid = np.array([1e-6, 0.5e-6, 0.0])
    assert max(retime(spanned(10), grid).spans) <= len(grid)


@pytest.mark.parametrize(
    "grid",
    [
        [], [1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.5, 0.5, 0.0], [1.0, float("nan"), 0.0], [float("inf"), 0.0],
        [1.0, -0.1], [[1.0, 0.0]], 1.0,
    ],
)  # fmt: skip
def test_an_invalid_grid_is_our_error(grid):
    with pytest.raises(OTCacheError, match="sigmas") as error:
        retime(schedule(linear_sigmas(8), (0, 2, 5)), grid)
    assert "\n" not in str(error.value)
