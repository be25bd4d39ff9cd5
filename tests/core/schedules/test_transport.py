from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance
from strategies import grids_with_steps, sigma_grids, step_sets

from otcache_core.errors import OTCacheError
from otcache_core.schedules.schedule import trajectory_time
from otcache_core.schedules.transport import (
    budget_to_lambda,
    geodesic,
    quantile_function,
    round_to_steps,
    steps_at_budget,
    wasserstein,
)

EVEN = np.linspace(1, 0, 41)
FRACTIONS = st.floats(0, 1)


@st.composite
def warp_pairs(draw):
    """Two schedules' warps, each on a grid of its own."""
    return tuple(
        quantile_function(steps, sigmas)
        for sigmas, steps in (draw(grids_with_steps()), draw(grids_with_steps()))
    )


@st.composite
def wanted_times(draw):
    sigmas = draw(sigma_grids())
    return sigmas, sorted(draw(st.lists(FRACTIONS, min_size=1, max_size=len(sigmas) - 1)))


@given(grids_with_steps())
def test_quantile_function_has_the_schedule_as_its_knots(case):
    sigmas, steps = case
    warp = quantile_function(steps, sigmas)
    assert warp(0.0) == 0 and warp(1.0) == 1
    expected = [(sigmas[0] - sigmas[i]) / (sigmas[0] - sigmas[-1]) for i in steps]
    assert np.array_equal(warp(np.arange(len(steps)) / len(steps)), expected)


@given(grids_with_steps())
def test_reading_a_schedule_at_its_own_budget_gives_the_same_steps(case):
    sigmas, steps = case
    assert steps_at_budget(quantile_function(steps, sigmas), len(steps), sigmas) == steps


@given(st.data())
def test_geodesic_ends_reproduce_both_schedules(data):
    sigmas = data.draw(sigma_grids())
    a, b = (data.draw(step_sets(len(sigmas) - 1)) for _ in range(2))
    warps = quantile_function(a, sigmas), quantile_function(b, sigmas)
    assert steps_at_budget(geodesic(*warps, 0.0), len(a), sigmas) == a
    assert steps_at_budget(geodesic(*warps, 1.0), len(b), sigmas) == b


@given(warp_pairs(), FRACTIONS, FRACTIONS)
def test_geodesic_mixes_quantiles_pointwise(pair, lam, u):
    a, b = pair
    assert geodesic(a, b, lam)(u) == pytest.approx((1 - lam) * a(u) + lam * b(u), abs=1e-12)


@given(warp_pairs(), st.floats(-3, 4))
def test_geodesic_is_monotone_from_0_to_1_even_when_it_extrapolates(pair, lam):
    warp = geodesic(*pair, lam)
    assert warp.u[0] == 0 and warp.u[-1] == 1 and (np.diff(warp.u) > 0).all()
    assert warp.t[0] == 0 and warp.t[-1] == pytest.approx(1, abs=1e-12)
    assert (np.diff(warp.t) >= 0).all() and warp.t.max() <= 1


@given(warp_pairs(), FRACTIONS, st.data())
def test_any_point_of_the_geodesic_gives_distinct_rising_steps_at_any_budget(pair, lam, data):
    sigmas = data.draw(sigma_grids())
    budget = data.draw(st.integers(1, len(sigmas) - 1))
    steps = steps_at_budget(geodesic(*pair, lam), budget, sigmas)
    assert len(steps) == budget and steps[0] == 0 and steps[-1] < len(sigmas) - 1
    assert all(b > a for a, b in pairwise(steps))
    assert all(type(step) is int for step in steps)


@given(wanted_times())
@example((np.linspace(1, 0, 7), [0.0, 0.0, 0.0, 0.0]))
@example((np.linspace(1, 0, 7), [1.0, 1.0, 1.0]))
@example((np.linspace(1, 0, 5), [0.0, 1.0, 1.0, 1.0]))
def test_rounding_gives_distinct_rising_steps_from_0(case):
    sigmas, times = case
    steps = round_to_steps(times, sigmas)
    assert len(steps) == len(times) and steps[0] == 0 and steps[-1] < len(sigmas) - 1
    assert all(b > a for a, b in pairwise(steps))


@given(st.data())
def test_rounding_is_the_exact_least_squares_optimum(data):
    sigmas = data.draw(sigma_grids(max_steps=8))
    grid = trajectory_time(sigmas)
    # Coarse times collide with each other and with the grid, where greedy and isotonic rounding go wrong.
    times = data.draw(
        st.lists(
            FRACTIONS | st.sampled_from([0.0, 0.1, 0.5, 0.52, 0.9, 1.0]), min_size=1, max_size=len(sigmas) - 1
        )
    )
    times = np.sort(times)

    def cost(steps):
        return float(np.sum((grid[list(steps)] - times)[1:] ** 2))

    best = min(cost((0, *rest)) for rest in combinations(range(1, len(sigmas) - 1), len(times) - 1))
    assert cost(round_to_steps(times, sigmas)) == pytest.approx(best, abs=1e-13)


def test_rounding_minimises_squares_and_not_absolute_values():
    sigmas = 1 - np.array([0.0, 0.2, 0.3, 0.58, 1.0])
    # Errors (0, 0.18) have the smaller sum, (0.1, 0.1) the smaller sum of squares.
    assert round_to_steps([0.0, 0.3, 0.4], sigmas) == (0, 1, 2)


@given(sigma_grids())
def test_a_full_budget_computes_every_step(sigmas):
    steps = len(sigmas) - 1
    assert round_to_steps(np.zeros(steps), sigmas) == tuple(range(steps))


@pytest.mark.parametrize("count", [0, 6])
def test_rounding_to_an_impossible_number_of_steps_names_the_limit(count):
    with pytest.raises(OTCacheError, match=f"budget is {count}.* 5 sampling steps"):
        round_to_steps(np.linspace(0, 1, count), np.linspace(1, 0, 6))


@given(warp_pairs(), FRACTIONS, st.sampled_from([1.0, 2.0, 3.0]))
def test_geodesic_has_constant_speed_in_every_wasserstein_distance(pair, lam, p):
    a, b = pair
    assert wasserstein(a, geodesic(a, b, lam), p) == pytest.approx(
        lam * wasserstein(a, b, p), rel=1e-6, abs=1e-9
    )


@given(warp_pairs(), FRACTIONS, FRACTIONS, st.sampled_from([1.0, 2.0, 3.0]))
def test_distance_between_two_geodesic_points_is_their_share_of_the_whole(pair, s, t, p):
    a, b = pair
    between = wasserstein(geodesic(a, b, s), geodesic(a, b, t), p)
    assert between == pytest.approx(abs(s - t) * wasserstein(a, b, p), rel=1e-6, abs=1e-8)


@given(warp_pairs(), st.sampled_from([1.0, 1.5, 2.0, 3.0]))
def test_wasserstein_equals_numeric_integration(pair, p):
    a, b = pair
    knots = np.union1d(a.u, b.u)
    # Gauss-Legendre on 64 parts of every linear piece.
    nodes, weights = np.polynomial.legendre.leggauss(3)
    edges = np.unique(np.concatenate([np.linspace(*piece, 65) for piece in pairwise(knots)]))
    half, middle = np.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    u = middle + half * nodes
    integral = np.sum(np.abs(a(u) - b(u)) ** p * half * weights)
    assert wasserstein(a, b, p) ** p == pytest.approx(integral, rel=1e-3, abs=1e-9)


def test_w1_agrees_with_scipy_on_samples():
    a = quantile_function((0, 1, 2, 9, 30), EVEN)
    b = quantile_function((0, 12, 20), EVEN)
    u = (np.arange(200_000) + 0.5) / 200_000
    assert wasserstein(a, b, 1) == pytest.approx(wasserstein_distance(a(u), b(u)), abs=1e-6)


def test_wasserstein_of_hand_computed_warps():
    # Q_a = u; Q_b goes through (1/2, 0.75): the gap is a tent of height 0.25.
    a = quantile_function((0, 20), EVEN)
    b = quantile_function((0, 30), EVEN)
    assert wasserstein(a, b, 1) == pytest.approx(0.125)
    assert wasserstein(a, b, 2) == pytest.approx(0.25 / np.sqrt(3))
    assert wasserstein(a, b, 3) == pytest.approx(0.25 / 4 ** (1 / 3))


def test_wasserstein_of_warps_that_run_in_parallel():
    a = quantile_function((0, 10, 20, 30), EVEN)
    b = quantile_function((0, 14, 24, 34), EVEN)  # 0.1 later on the middle half, ramps on both sides
    assert wasserstein(a, b, 1) == pytest.approx(0.5 * 0.1 + 0.5 * 0.05)
    assert wasserstein(a, b, 2) == pytest.approx(np.sqrt(0.5 * 0.01 + 0.5 * 0.01 / 3))


@given(warp_pairs(), warp_pairs(), st.sampled_from([1.0, 2.0, 3.0]))
def test_wasserstein_is_a_distance(first, second, p):
    (a, b), (c, _) = first, second
    assert wasserstein(a, a, p) == 0
    assert wasserstein(a, b, p) == pytest.approx(wasserstein(b, a, p), rel=1e-9, abs=1e-12)
    assert wasserstein(a, b, p) <= wasserstein(a, c, p) + wasserstein(c, b, p) + 1e-9
    assert wasserstein(a, b, 1) <= wasserstein(a, b, 2) + 1e-9 <= wasserstein(a, b, 3) + 2e-9


@given(anchor=st.integers(1, 40), extra=st.integers(1, 40))
def test_lambda_is_0_at_the_anchor_1_at_the_reference_and_rises_between(anchor, extra):
    values = [budget_to_lambda(b, anchor, anchor + extra) for b in range(anchor, anchor + extra + 1)]
    assert values[0] == 0 and values[-1] == 1
    assert all(b > a for a, b in pairwise(values))


def test_lambda_is_half_at_the_geometric_mean():
    assert budget_to_lambda(np.sqrt(4 * 25), 4, 25) == pytest.approx(0.5)


@pytest.mark.parametrize(("anchor", "reference"), [(8, 8), (9, 8)])
def test_lambda_needs_an_anchor_below_the_reference(anchor, reference):
    with pytest.raises(OTCacheError, match=f"budget {anchor} must be below .* {reference}"):
        budget_to_lambda(8, anchor, reference)


def test_geodesic_between_even_schedules_is_the_even_one():
    a, b = quantile_function(range(0, 40, 10), EVEN), quantile_function(range(0, 40, 2), EVEN)
    assert wasserstein(a, b, 2) == pytest.approx(0, abs=1e-12)
    assert steps_at_budget(geodesic(a, b, 0.37), 8, EVEN) == tuple(range(0, 40, 5))


@given(grids_with_steps(min_steps=2), st.floats(1e-3, 1e3))
def test_transport_does_not_depend_on_the_scale_of_sigma(case, scale):
    sigmas, steps = case
    ours, theirs = quantile_function(steps, sigmas), quantile_function(steps, sigmas * scale)
    assert np.allclose(ours.t, theirs.t, atol=1e-12)
