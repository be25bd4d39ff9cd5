"""Peers' formulas, each against what its paper says of it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mixture import MixtureGenerator, linear_sigmas

from otcache_core.commands.rivals import (
    WARM_UP,
    chebyshev,
    differences,
    follow,
    magnitude_ratios,
    magnitude_steps,
    skipped_by_magnitude,
    taylor,
    ways,
    window_steps,
)
from otcache_core.sampling.rollout import record
from otcache_core.sampling.solvers import euler

STEPS = 50


def values(function, steps):
    return [torch.tensor([float(function(step))]) for step in steps]


@given(st.integers(1, 9), st.integers(1, 9))
def test_taylors_differences_are_backward_ones(gap, ahead):
    """Exact for lines; of squares the first difference is at the middle of its gap, which costs gap x distance."""
    steps = [30, 30 - gap, 30 - 2 * gap]
    assert taylor(steps, values(lambda s: 3 * s + 1, steps), 30 + ahead, 1) == pytest.approx(3 * (30 + ahead) + 1, rel=1e-6)
    squares = taylor(steps, values(lambda s: s * s, steps), 30 + ahead, 2)
    assert float(squares) == pytest.approx((30 + ahead) ** 2 - gap * ahead, rel=1e-5)
    assert taylor(steps[:1], values(lambda s: s, steps[:1]), 40, 2) == 30


@given(st.lists(st.floats(-3, 3), min_size=5, max_size=5), st.integers(6, 20))
def test_a_chebyshev_forecast_without_ridge_is_exact_for_polynomials_of_its_degree(coefficients, count):
    def curve(step):
        return sum(c * (step / STEPS) ** i for i, c in enumerate(coefficients))

    steps = list(range(2 * count, 0, -2))
    found = chebyshev(steps, values(curve, steps), steps[0] + 3, STEPS, ridge=0.0, blend=1.0)
    assert float(found) == pytest.approx(curve(steps[0] + 3), abs=0.02)
    half = chebyshev(steps, values(curve, steps), steps[0] + 3, STEPS, ridge=0.0)
    line = taylor(steps, values(curve, steps), steps[0] + 3, 1)
    assert float(half) == pytest.approx(float(found + line) / 2, abs=1e-4)


def test_its_ridge_pulls_the_forecast_of_few_values_towards_nothing():
    assert 0.8 < float(chebyshev([4, 3, 2, 1, 0], values(lambda s: 1.0, range(5)), 6, STEPS, blend=1.0)) < 1.0


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_differences_are_exact_for_polynomials_of_their_order(coefficients):
    def curve(order):
        return lambda step: sum(c * (step / 10) ** i for i, c in enumerate(coefficients[: order + 1]))

    for order in (1, 2):
        steps = [20, 19, 18]
        expected = pytest.approx(curve(order)(21), abs=1e-4)
        assert float(differences(steps, values(curve(order), steps), 21, order)) == expected


@given(st.integers(1, STEPS))
def test_windows_grow_and_keep_to_the_budget(budget):
    found = window_steps(budget, STEPS)
    assert len(found) <= budget and found[0] == 0
    if budget > WARM_UP:
        gaps = np.diff(found)
        assert (gaps[: WARM_UP - 1] == 1).all() and (np.diff(gaps[WARM_UP - 1 :]) >= 0).all()


def test_magcache_adds_up_what_the_product_of_ratios_misses():
    """By hand: 0.9 each step misses 0.1, then 0.19 of the last computed one, which adds up to 0.29."""
    ratios = np.full(10, 0.9)
    assert skipped_by_magnitude(ratios, 0.3) == (0, 1, 4, 7)
    assert skipped_by_magnitude(ratios, 0.05) == tuple(range(10))
    assert skipped_by_magnitude(np.ones(10), 0.0, most=3) == (0, 1, 5, 9)
    assert magnitude_steps(ratios, 4) == (0, 1, 4, 7) and magnitude_steps(ratios, 1) is None


@pytest.mark.parametrize("budget", [4, 15, 25])
def test_each_follows_its_steps_and_all_steps_are_the_full_run(budget):
    generator, sigmas = MixtureGenerator(), linear_sigmas(STEPS, 3.0)
    runs = [record(generator, case, sigmas) for case in (1, 2)]
    assert magnitude_ratios(runs).shape == (STEPS,)
    full = euler(generator, [3], sigmas)
    found = ways(budget, runs)
    assert ("MagCache" in found) == (budget > 10) and len(found) >= 5
    for steps, predict in found.values():
        assert len(steps) <= budget and steps[0] == 0
        ended = follow(generator, [3], sigmas, (steps, predict))
        assert ended.isfinite().all() and not torch.equal(ended, full)
        assert torch.equal(follow(generator, [3], sigmas, (range(STEPS), predict)), full)
