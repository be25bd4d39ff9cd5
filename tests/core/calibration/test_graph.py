from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otcache_core.calibration import inner_products
from otcache_core.calibration.graph import (
    SPANS,
    cheapest_neighbours,
    edge_costs,
    edge_errors,
    history_of,
    minimax_paths,
    path_cost,
    peak_suppressed_paths,
)
from otcache_core.calibration.inner_products import GramData
from otcache_core.errors import OTCacheError
from otcache_core.sampling.cached_run import CachedRun
from otcache_core.sampling.layout import low_pass
from otcache_core.sampling.predictors import RIDGE, combine, fit_weights, mean_velocity
from otcache_core.sampling.rollout import FITTED
from otcache_core.sampling.trajectory import Trajectory
from otcache_core.schedules.extrapolation import prior_weights
from otcache_core.schedules.schedule import Predictor, make_schedule

EXTRAPOLATIONS = [("hold", 1.0), ("linear", 1.0), ("linear", 0.4), ("quadratic", 1.0)]


@pytest.fixture(scope="module")
def recorded(recording) -> GramData:
    return inner_products.recorded(recording.trajectories)


def packed(dense: np.ndarray) -> list[np.ndarray]:
    """`Costs` of costs [N, N, N + 1] over (previous, start, j)."""
    return [dense[: max(start, 1), start, start + 1 :] for start in range(len(dense))]


def unpacked(costs) -> np.ndarray:
    """The same the other way round, inf where there is no edge."""
    dense = np.full((len(costs), len(costs), len(costs) + 1), np.inf)
    for start, edges in enumerate(costs):
        dense[: len(edges), start, start + 1 :] = edges
    return dense


def all_paths(steps: int, budget: int):
    return [(0, *rest) for rest in combinations(range(1, steps), budget - 1)]


def edges_of(path, steps):
    """(previous, start, j) of every edge of a path."""
    ends = (*path, steps)
    return [(path[max(k - 1, 0)], path[k], ends[k + 1]) for k in range(len(path))]


@st.composite
def random_costs(draw, first_order: bool = False):
    """Costs of every edge that exists, with many ties."""
    steps = draw(st.integers(1, 7))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = random.choice([0.0, 0.1, 0.5, 1.0], size=(steps, steps, steps + 1))
    values = np.where(
        random.random(values.shape) < draw(st.floats(0, 1)), values, random.random(values.shape)
    )
    if first_order:
        values[:] = values[0]
    previous, start, j = np.indices(values.shape)
    exists = (j > start) & ((previous < start) | ((start == 0) & (previous == 0)))
    return np.where(exists, values, np.inf)


def total(costs, path, gamma, gains=None):
    gains = np.ones(costs.shape[2]) if gains is None else gains
    return sum((costs[p, i, j] * gains[j]) ** gamma for p, i, j in edges_of(path, costs.shape[1]))


@given(random_costs(), st.sampled_from([1.0, 2.0, 4.0]), st.data())
@settings(max_examples=100)
def test_peak_suppressed_paths_are_optimal_among_all(costs, gamma, data):
    steps = costs.shape[1]
    # Gains as large as 20 reorder the edges.
    gains = data.draw(
        st.none() | st.lists(st.floats(0.05, 20), min_size=steps + 1, max_size=steps + 1).map(np.array)
    )
    budgets = range(1, steps + 1)
    paths = peak_suppressed_paths(packed(costs), budgets, gamma, gains)
    assert list(paths) == list(budgets)
    for budget, path in paths.items():
        assert path in all_paths(steps, budget)
        best = min(total(costs, other, gamma, gains) for other in all_paths(steps, budget))
        assert total(costs, path, gamma, gains) == pytest.approx(best, rel=1e-9, abs=1e-12)


@given(random_costs(first_order=True))
@settings(max_examples=100)
def test_minimax_paths_are_lexicographically_smallest_among_all(costs):
    steps = costs.shape[1]
    budgets = range(1, steps + 1)
    paths = minimax_paths(packed(costs), budgets)
    assert list(paths) == list(budgets)

    def peaks(path):
        return sorted((costs[0, i, j] for _, i, j in edges_of(path, steps)), reverse=True)

    for budget, path in paths.items():
        assert path in all_paths(steps, budget)
        assert peaks(path) == min(peaks(other) for other in all_paths(steps, budget))


@pytest.mark.parametrize("conditioned", [True, False])
@pytest.mark.parametrize("kind", ["hold", "linear", "mean_velocity", "fitted"])
def test_paths_on_recorded_costs_equal_brute_force(recorded, kind, conditioned):
    costs, _ = edge_costs(recorded, Predictor(kind=kind), conditioned)
    for budget, path in peak_suppressed_paths(costs, [1, 3, 5, 11, 12]).items():
        dense = unpacked(costs)
        best = min(total(dense, other, 4.0) for other in all_paths(recorded.steps, budget))
        assert total(dense, path, 4.0) == pytest.approx(best, rel=1e-9, abs=0)


def test_conditioning_can_change_the_path():
    """The best path of a conditioned graph is not always found by first-order dynamic programming."""
    costs = np.full((4, 4, 5), np.inf)
    for previous, start, j in [
        (p, s, j) for s in range(4) for p in range(max(s, 1)) for j in range(s + 1, 5)
    ]:
        costs[previous, start, j] = 1.0
    costs[0, 0, 2], costs[0, 0, 1] = 0.5, 0.6
    costs[1, 3, 4], costs[0, 3, 4], costs[2, 3, 4] = 0.0, 9.0, 9.0
    costs[0, 1, 3] = 0.7
    assert peak_suppressed_paths(packed(costs), [3])[3] == (0, 1, 3)


@pytest.mark.parametrize("budgets", [[5], [2, 7], [12, 1], range(1, 13), {3, 4}, (np.int64(4),)])
def test_exactly_the_wanted_budgets_are_answered(recorded, budgets):
    costs, _ = edge_costs(recorded, Predictor(kind="hold"))
    for paths in (peak_suppressed_paths(costs, budgets), minimax_paths(costs, budgets)):
        assert set(paths) == {int(b) for b in budgets}
        for budget, path in paths.items():
            assert len(path) == budget and path[0] == 0 and path[-1] < recorded.steps
            assert all(b > a for a, b in pairwise(path)) and all(type(step) is int for step in path)


def test_budgets_one_and_all_are_forced(recorded):
    costs, _ = edge_costs(recorded, Predictor(kind="linear"))
    for paths in (peak_suppressed_paths(costs, [1, 12]), minimax_paths(costs, [1, 12])):
        assert paths == {1: (0,), 12: tuple(range(12))}


@pytest.mark.parametrize("search", [peak_suppressed_paths, minimax_paths])
@pytest.mark.parametrize("budget", [0, 13, 2.5])
def test_a_budget_out_of_range_is_refused(recorded, search, budget):
    costs, _ = edge_costs(recorded, Predictor(kind="hold"))
    with pytest.raises(OTCacheError, match=f"budget is {budget}"):
        search(costs, [3, budget])


def test_gamma_below_one_is_refused(recorded):
    costs, _ = edge_costs(recorded, Predictor(kind="hold"))
    with pytest.raises(OTCacheError, match="gamma is 0.5"):
        peak_suppressed_paths(costs, [3], gamma=0.5)


def test_budgets_may_be_a_generator(recorded):
    costs, _ = edge_costs(recorded, Predictor(kind="hold"))
    assert list(peak_suppressed_paths(costs, (b for b in [2, 3]))) == [2, 3]


@given(st.integers(0, 20), st.integers(1, 20))
def test_assumed_history_repeats_the_gap(previous, gap):
    history = history_of(previous + gap, previous)
    assert history == [step for step in (previous + gap, previous, previous - gap) if step >= 0]
    assert history_of(previous + gap, None) == [previous + gap] and history_of(0, 0) == [0]


def teacher_forced(recording, steps, start, predictor, spans=None):
    """Mean squared displacement error [N - start, cases]: a run fed recorded velocities until `start`."""
    errors = []
    for trajectory in recording.trajectories:
        run = CachedRun(
            make_schedule(sigmas=recording.sigmas, compute_steps=steps, predictor=predictor, spans=spans)
        )
        for step in steps:
            run.observe(step, trajectory.d[step])
        moved, row = torch.zeros_like(trajectory.x[0]), []
        for step in range(start, recording.steps):
            d = trajectory.d[start] if step == start else run.predict(step)
            moved = moved + d * float(recording.sigmas[step + 1] - recording.sigmas[step])
            truth = trajectory.x[step + 1] - trajectory.x[start]
            row.append(float(((moved - truth) ** 2).mean()))
        errors.append(row)
    return np.array(errors).T


@pytest.mark.parametrize(("kind", "damping"), EXTRAPOLATIONS)
@pytest.mark.parametrize(
    ("start", "previous"), [(0, None), (0, 0), (2, 1), (4, 2), (6, 3), (7, 0), (11, 10), (5, None)]
)
def test_edge_errors_equal_a_teacher_forced_run(recording, recorded, kind, damping, start, previous):
    predictor = Predictor(kind=kind, damping=damping)
    ours = edge_errors(recorded, start, previous, predictor)
    if start and previous is None:  # a run has always seen step 0: hold stands for "no history"
        predictor = Predictor(kind="hold")
    steps = sorted({0, *history_of(start, previous)})
    theirs = teacher_forced(recording, steps, start, predictor)
    assert ours.shape == (recorded.steps - start, 3)
    assert np.allclose(ours, theirs, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("start", [0, 1, 3, 7, 11])
def test_mean_velocity_edge_errors_equal_a_teacher_forced_run(recording, recorded, span, start):
    predictor = Predictor(kind="mean_velocity")
    steps = range(start + 1)  # the lookback sees recorded velocities
    ours = edge_errors(recorded, start, None, predictor, span)
    theirs = teacher_forced(recording, steps, start, predictor, spans=(span,) * len(steps))
    assert np.allclose(ours, theirs, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("kind", ["hold", "linear", "quadratic", "mean_velocity", "fitted"])
def test_an_edge_of_one_step_makes_no_error(recorded, kind):
    for start in range(recorded.steps):
        errors = edge_errors(recorded, start, max(start - 1, 0), Predictor(kind=kind), span=min(3, start))
        assert np.allclose(errors[0], 0, atol=1e-15)


@pytest.mark.parametrize(("kind", "damping"), EXTRAPOLATIONS)
def test_fitted_edges_beat_every_extrapolation_of_the_same_history_in_each_band(recording, recorded, kind, damping):
    one_band = inner_products.recorded(recording.trajectories, bands=1)
    for seen in (one_band, *(GramData(recorded.sigmas, band, band[None]) for band in recorded.bands)):
        for start in range(seen.steps):
            for previous in range(max(start, 1)):
                fitted = edge_errors(seen, start, previous, FITTED, ridge=1e-12).mean(1)
                other = edge_errors(seen, start, previous, Predictor(kind=kind, damping=damping)).mean(1)
                assert (fitted <= other * (1 + 1e-6) + 1e-13).all()


@pytest.mark.parametrize("bands", [1, 2])
@pytest.mark.parametrize(("start", "previous"), [(0, 0), (2, 1), (6, 3), (7, 0)])
def test_fitted_edge_errors_equal_a_fit_to_the_recorded_latents(recording, bands, start, previous):
    seen, history = inner_products.recorded(recording.trajectories, bands), history_of(start, previous)
    x, d = (torch.stack([getattr(run, name) for run in recording.trajectories], 1) for name in "xd")
    ours = edge_errors(seen, start, previous, FITTED)
    for j in range(start + 2, seen.steps + 1):
        span = float(seen.sigmas[j] - seen.sigmas[start])
        target = (x[j] - x[start]) / span
        basis = list(d[history])
        prior = prior_weights(seen.sigmas[history], seen.sigmas[start : j + 1])
        row = fit_weights(basis, target, prior, RIDGE, bands)
        misses = [target - combine(weights, basis) for weights in np.split(row, bands)]
        parts = misses if bands == 1 else [low_pass(misses[0]), misses[1] - low_pass(misses[1])]
        torch.testing.assert_close(sum(parts), target - mean_velocity(row, basis, bands))
        theirs = sum((part * span).square().flatten(1).mean(1) for part in parts)
        assert np.allclose(ours[j - start - 1], theirs.numpy(), rtol=1e-6, atol=1e-13)


def test_two_bands_are_recorded_by_default_and_one_on_request(recording, recorded):
    one_band = inner_products.recorded(recording.trajectories, bands=1)
    assert recorded.bands.shape == (2, 3, 12, 12) and recorded.grams.shape == (3, 12, 12)
    assert np.array_equal(one_band.bands[0], one_band.grams) and np.array_equal(one_band.grams, recorded.grams)
    assert np.array_equal(one_band.sigmas, recording.sigmas)


def test_edge_costs_are_root_mean_squares_over_cases_where_edges_exist(recorded):
    costs, spans = edge_costs(recorded, Predictor(kind="linear"))
    assert not spans.any()
    costs = unpacked(costs)
    for previous, start, j in np.ndindex(costs.shape):
        if j > start and (previous < start or previous == start == 0):
            errors = edge_errors(recorded, start, previous, Predictor(kind="linear"))
            assert costs[previous, start, j] == pytest.approx(
                np.sqrt(errors[j - start - 1].mean()), rel=1e-12, abs=1e-15
            )
        else:
            assert costs[previous, start, j] == np.inf


@pytest.mark.parametrize("kind", ["linear", "quadratic", "fitted"])
def test_unconditioned_costs_assume_the_coming_gap_as_the_last_one(recorded, kind):
    free, _ = edge_costs(recorded, Predictor(kind=kind), conditioned=False)
    conditioned, _ = edge_costs(recorded, Predictor(kind=kind))
    free, conditioned = unpacked(free), unpacked(conditioned)
    for start in range(recorded.steps):
        for j in range(start + 1, recorded.steps + 1):
            column = free[: max(start, 1), start, j]
            assert (column == column[0]).all()
            assert column[0] == conditioned[max(2 * start - j, 0), start, j]


def test_mean_velocity_keeps_the_best_lookback_of_each_edge(recorded):
    predictor = Predictor(kind="mean_velocity")
    costs, spans = edge_costs(recorded, predictor)
    costs = unpacked(costs)
    for start in range(recorded.steps):
        errors = {s: edge_errors(recorded, start, None, predictor, s).mean(1) for s in SPANS if s <= start}
        for j in range(start + 1, recorded.steps + 1):
            best = min(error[j - start - 1] for error in errors.values())
            assert errors[spans[start, j]][j - start - 1] == best
            assert (costs[: max(start, 1), start, j] == np.sqrt(best)).all()
    assert (spans > 1).any()  # on this flow looking back does help somewhere


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_gram_matrices_measure_any_combination_of_velocities(recording, recorded, seed):
    coefficients = np.random.default_rng(seed).normal(size=(2, recorded.steps))
    for row, ours in zip(coefficients, recorded.mean_squares(coefficients), strict=True):
        for trajectory, value in zip(recording.trajectories, ours, strict=True):
            combined = torch.tensordot(torch.from_numpy(row), trajectory.d, 1)
            assert value == pytest.approx(float((combined**2).mean()), rel=1e-9)


@pytest.mark.parametrize("start", [0, 5, 11])
def test_displacements_are_the_recorded_latents_own(recording, recorded, start):
    rows = recorded.displacements(start)
    assert rows.shape == (recorded.steps - start, recorded.steps)
    trajectory = recording.trajectories[0]
    for row, latent in zip(rows, trajectory.x[start + 1 :], strict=True):
        moved = torch.tensordot(torch.from_numpy(row), trajectory.d, 1)
        torch.testing.assert_close(moved, latent - trajectory.x[start])


@given(random_costs(), st.data())
def test_path_cost_is_the_root_of_its_summed_squares(costs, data):
    path = data.draw(
        st.sampled_from([p for b in range(1, costs.shape[1] + 1) for p in all_paths(costs.shape[1], b)])
    )
    assert path_cost(packed(costs), path) == pytest.approx(np.sqrt(total(costs, path, 2.0)), rel=1e-12)


@pytest.mark.parametrize("path", [(0,), (0, 3, 4, 9), (0, 1, 2, 3), tuple(range(12)), (0, 11)])
@pytest.mark.parametrize("reach", [1, 2])
def test_neighbours_are_all_single_shifts_cheapest_first(recorded, path, reach):
    costs, _ = edge_costs(recorded, Predictor(kind="fitted"))
    everything = {
        other
        for other in all_paths(recorded.steps, len(path))
        if np.count_nonzero(shifts := np.abs(np.subtract(other, path))) == 1 and shifts.max() <= reach
    }
    found = cheapest_neighbours(costs, path, 1000, reach)
    assert set(found) == everything and len(found) == len(everything)
    values = [path_cost(costs, other) for other in found]
    assert values == sorted(values)
    assert cheapest_neighbours(costs, path, 2, reach) == found[:2]


@pytest.mark.parametrize("conditioned", [True, False])
@pytest.mark.parametrize("kind", ["hold", "fitted", "mean_velocity"])
def test_costs_take_memory_for_edges_that_exist_only(recorded, kind, conditioned):
    """Of [N, N, N + 1] five sixths would say that there is no edge: 8 GB at N = 1000."""
    costs, _ = edge_costs(recorded, Predictor(kind=kind), conditioned)
    n = recorded.steps
    assert [edges.shape for edges in costs] == [(max(start, 1), n - start) for start in range(n)]
    held = sum((edges if edges.base is None else edges.base).nbytes for edges in costs)
    assert held <= 8 * (n + (n - 1) * n * (n + 1) // 6)
    if kind == "mean_velocity" or not conditioned:
        assert held <= 8 * n * n  # the same for every previous step, and held once


def test_a_straight_flow_costs_nothing():
    d = torch.ones(5, 2, 2).double()
    x = torch.stack([torch.ones(2, 2).double() * (s - 1) for s in np.linspace(1, 0, 6)])
    straight = Trajectory(np.linspace(1, 0, 6), x, d)
    recorded = inner_products.recorded([straight])
    for kind in ("hold", "linear", "quadratic", "mean_velocity", "fitted"):
        costs, _ = edge_costs(recorded, Predictor(kind=kind), ridge=1e-9)
        assert all(np.allclose(edges, 0, atol=1e-7) for edges in costs)
        assert len(peak_suppressed_paths(costs, [3])[3]) == 3
