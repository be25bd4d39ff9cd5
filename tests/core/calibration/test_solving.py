from dataclasses import replace

import numpy as np
import pytest
import torch
from driving import drive, taken
from hypothesis import given, settings
from hypothesis import strategies as st
from mixture import MixtureGenerator, linear_sigmas
from strategies import sigma_grids

from otcache_core.calibration.fit_or_hold import STEEP, expected_errors
from otcache_core.calibration.inner_products import GramData
from otcache_core.calibration.ladder import rehearsed_budgets
from otcache_core.calibration.learnt_paths import EDGE, at_sigmas, held_paths, paths, spread, spread_steps, within
from otcache_core.calibration.lessons import rehearsal_steps
from otcache_core.calibration.metrics import psnr
from otcache_core.calibration.solving import Sight, covers, fitted, sights, solve, weights
from otcache_core.calibration.statistics import Statistics, of_recording, summed
from otcache_core.demo.generator import DemoGenerator, cases
from otcache_core.errors import OTCacheError
from otcache_core.sampling.rehearsal import Rehearsal, Visit
from otcache_core.sampling.rollout import sample
from otcache_core.sampling.solvers import euler

STEPS = 16


def lesson(generator, learnt, sigmas, budgets=None) -> Statistics:
    """What full runs of the cases `learnt`, one batch, and rehearsals of `budgets` teach."""
    recording = taken(generator, learnt, sigmas)
    known, full = of_recording(recording), recording.x[-1]
    visits, errors = [], {}
    graph = paths(known, len(sigmas) // 2)
    for budget in rehearsed_budgets(known.steps) if budgets is None else budgets:
        rehearsal = Rehearsal(recording, graph[budget])
        landed = drive(rehearsal, generator, learnt)
        visits += rehearsal.visits.items()
        errors[graph[budget]] = float((landed - full).square().mean()), float(full.square().mean())
    return replace(known, visits=summed(visits), rehearsals=errors)


class Scaled(MixtureGenerator):
    """The same flow of latents `scale` times as large."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    def noise(self, case):
        return super().noise(case) * self.scale

    def velocity(self, x, sigma, cases):
        return super().velocity(x / self.scale, sigma, cases) * self.scale


@pytest.fixture(scope="module")
def known() -> Statistics:
    return lesson(MixtureGenerator(), [1], linear_sigmas(STEPS, 3.0), [3, 5])


@pytest.fixture(scope="module")
def slice_known() -> Statistics:
    """Of a run that ends above 0."""
    return lesson(MixtureGenerator(), [1], linear_sigmas(STEPS, 3.0)[:-5], [3])


# ---- steps


def test_the_recorded_grid_gets_the_graphs_own_paths(known):
    graph = paths(known, STEPS)
    for budget in range(1, STEPS + 1):
        made = solve([known], known.sigmas, budget)
        assert made.compute_steps == graph[budget] and made.budget == budget
        assert np.array_equal(made.sigmas, known.sigmas) and made.predictor.bands == 2


def test_paths_at_one_budget_do_not_depend_on_the_largest(known):
    assert all(paths(known, most).items() <= paths(known, STEPS).items() for most in (1, 4, 9))


@pytest.mark.parametrize("scale", [2.0**-20, 0.1, 3.0, 2.0**20])
def test_scaling_all_latents_changes_no_steps_and_no_weights(known, scale):
    scaled = lesson(Scaled(scale), [1], known.sigmas, [3, 5])
    exact = np.log2(scale) % 1 == 0
    for budget in (2, 4, 7, 12):
        one, other = (solve([learnt], known.sigmas, budget) for learnt in (known, scaled))
        assert one.compute_steps == other.compute_steps
        for ours, theirs in zip(one.weights, other.weights, strict=True):
            assert np.allclose(ours, theirs, rtol=1e-9 if exact else 2e-3, atol=1e-9 if exact else 2e-3)
    assert scaled.errors == pytest.approx(known.errors, rel=1e-3)


def test_a_run_twice_says_the_same(known):
    twice = known + known
    for budget in (2, 5, 11):
        one, other = solve([known], known.sigmas, budget), solve([twice], known.sigmas, budget)
        assert one.compute_steps == other.compute_steps and np.allclose(one.weights[-1], other.weights[-1])
    assert twice.errors == pytest.approx(known.errors) and "2 ordinary runs" in other.provenance


def valid(schedule, grid, budget) -> bool:
    """Whether a schedule is what was asked for: `make_schedule` has checked the rest."""
    sums = np.array([np.reshape(row, (2, -1)).sum(1) for row in schedule.weights])
    return schedule.budget == budget and np.array_equal(schedule.sigmas, grid) and bool(np.abs(sums - 1).max() < 1.5)


@st.composite
def runs_inside(draw, top: float, bottom: float):
    """A grid between two noise levels: any part of it, linear, shifted or as uneven as may be."""
    kind = draw(st.sampled_from(["any", "shifted", "beta"]))
    steps = draw(st.integers(1, 40))
    grid = draw(sigma_grids(1, 20)) if kind == "any" else linear_sigmas(steps, draw(st.floats(0.2, 12)))
    if kind == "beta":
        t = np.linspace(0, 1, steps + 1)
        grid = (1 + np.cos(np.pi * t)) / 2  # dense at both ends
    grid = (grid - grid[-1]) / (grid[0] - grid[-1])
    low, high = sorted(draw(st.tuples(st.floats(0, 1), st.floats(0, 1))))
    low, high = draw(st.sampled_from([(0.0, 1.0), (low, 1.0), (0.0, high), (low, high)]))
    if high - low < 1e-3:
        low, high = 0.0, 1.0
    grid = bottom + (top - bottom) * (low + (high - low) * grid)
    return grid if (np.diff(grid) < 0).all() else bottom + (top - bottom) * np.linspace(1, 0, steps + 1)


@given(data=st.data())
@settings(max_examples=40)
def test_any_run_inside_the_recorded_range_gets_every_budget(known, data):
    grid = data.draw(runs_inside(1.0, 0.0))
    for budget in range(1, len(grid)):
        assert valid(solve([known], grid, budget), grid, budget)


@given(data=st.data())
@settings(max_examples=20)
def test_any_run_inside_a_recorded_slice_gets_every_budget(slice_known, data):
    grid = data.draw(runs_inside(1.0, float(slice_known.sigmas[-1])))
    for budget in range(1, len(grid)):
        assert valid(solve([slice_known], grid, budget), grid, budget)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("rehearsed", [False, True])
def test_lessons_of_few_steps_serve_any_run(steps, rehearsed):
    short = lesson(MixtureGenerator(), [1], linear_sigmas(steps), None if rehearsed else [])
    for other in (linear_sigmas(30), linear_sigmas(7, 5.0)[2:], linear_sigmas(steps)):
        for budget in range(1, len(other)):
            assert valid(solve([short], other, budget), other, budget)


@pytest.mark.parametrize("first", ["coarse", "fine"])
def test_several_lessons_serve_together(known, first):
    fine = lesson(MixtureGenerator(), [2], linear_sigmas(24), [4])
    both = [known, fine] if first == "coarse" else [fine, known]
    grid = linear_sigmas(20, 2.0)
    for budget in range(1, 21):
        made = solve(both, grid, budget)
        assert valid(made, grid, budget) and made.compute_steps == solve(both[:1], grid, budget).compute_steps


@pytest.mark.parametrize("budget", [1, 3, 40])
def test_a_lesson_without_rehearsals_serves_too(known, budget):
    assert valid(solve([replace(known, visits={}, rehearsals={})], linear_sigmas(40), budget), linear_sigmas(40), budget)


def test_runs_beyond_what_was_recorded_are_refused(known, slice_known):
    grid, end = linear_sigmas(10), slice_known.sigmas[-1]
    for learnt, run in [(known, grid * 1.1), (known, grid * 14.6), (slice_known, grid), (slice_known, grid[:-2] - 0.01 + end)]:
        if learnt is slice_known and run[-1] >= end:
            run = run - (run[-1] - end) - 0.01
        assert not covers(learnt, run)
        with pytest.raises(OTCacheError, match="sample once in full"):
            solve([learnt], run, 3)
    with pytest.raises(OTCacheError, match="Nothing was learnt"):
        solve([], grid, 3)


def test_rounding_is_not_beyond(known, slice_known):
    assert valid(solve([known], linear_sigmas(10) * (1 + EDGE / 2), 4), linear_sigmas(10) * (1 + EDGE / 2), 4)
    run = np.append(slice_known.sigmas[:-1], slice_known.sigmas[-1] - EDGE / 2)
    assert valid(solve([slice_known], run, 4), run, 4)


@pytest.mark.parametrize("budget", [0, -1, 11, 2.5, None, np.nan])
def test_a_budget_that_does_not_fit_is_refused(known, budget):
    with pytest.raises(OTCacheError, match=f"budget is {budget}"):
        solve([known], linear_sigmas(10), budget)


@pytest.mark.parametrize(
    "grid", [[], [1.0], [0.0, 0.5, 1.0], [1.0, 0.5, 0.5, 0.0], [1.0, np.nan, 0.0], [1.0, 0.5, -0.1], [[1, 0]]]
)
def test_a_grid_that_is_none_is_refused(known, grid):
    with pytest.raises(OTCacheError, match="sigmas"):
        solve([known], grid, 1)


def test_a_run_between_two_recorded_points_is_served(known):
    a, b = known.sigmas[4:6]
    for grid in (np.linspace(a - 1e-6, b + 1e-6, 9), np.linspace(a, b, 2), np.linspace(known.sigmas[-2] / 2, 1e-4, 5)):
        for budget in range(1, len(grid)):
            assert valid(solve([known], grid, budget), grid, budget)


def test_a_part_of_what_was_recorded_holds_the_points_inside(known):
    grid = known.sigmas
    assert within(known.recorded, grid) is known.recorded and within(known.recorded, linear_sigmas(7)) is known.recorded
    part = within(known.recorded, np.array([grid[3], 0.4, grid[9]]))
    assert np.array_equal(part.sigmas, grid[3:10]) and part.grams.shape == (1, 6, 6) and part.bands.shape == (2, 1, 6, 6)
    assert np.array_equal(part.grams, known.recorded.grams[:, 3:9, 3:9])
    inner = within(known.recorded, np.array([grid[3] - 0.01, grid[9] + 0.01]))
    assert np.array_equal(inner.sigmas, grid[4:9])


@given(grid=sigma_grids(2, 10), other=sigma_grids(1, 15), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_velocities_linear_in_sigma_are_known_everywhere(grid, other, seed):
    grid = (grid - grid[-1]) / (grid[0] - grid[-1])
    other = grid[-2] + (1 - grid[-2]) * (other - other[-1]) / (other[0] - other[-1])
    a, b = np.random.default_rng(seed).normal(size=(2, 50))

    def grams(points):
        d = a + points[:-1, None] * b
        return (d @ d.T)[None]

    seen = GramData(grid, grams(grid), grams(grid)[None])
    moved = at_sigmas(seen, other)
    assert np.allclose(moved.grams, grams(other), atol=1e-8) and np.allclose(moved.bands[0], grams(other), atol=1e-8)
    same = at_sigmas(seen, grid)
    assert np.array_equal(same.grams, seen.grams)


# ---- weights


def test_segments_of_one_step_hold(known):
    made = fitted([known], known.sigmas, (0, 1, 2, 3, 7))
    assert made.weights[:3] == ((1.0, 1.0), (1.0, 0.0) * 2, (1.0, 0.0, 0.0) * 2)


def test_after_evaluations_that_all_but_coincide_nothing_is_multiplied(slice_known):
    """The gaps of all sights are far larger there; a row of theirs was (58, -88, 31)."""
    grid = np.array([1.0, 0.824, 0.8235, 0.788, 0.753, 0.718, 0.647, 0.577])
    for row in fitted([slice_known], grid, (0, 1, 2)).weights:
        assert sum(row[: len(row) // 2]) == pytest.approx(1, abs=0.3)
    far = fitted([slice_known], grid, (0, 1, 2)).weights[2]
    assert abs(sum(far[2::3])) < 1  # what the third evaluation gets, a long way back


def test_moments_are_per_unit_of_sigma_and_straight_between_recorded_points():
    later = np.array([0.6, 0.4, 0.0])
    moments = np.array([[[-0.2, -0.6, -1.0]], [[-0.1, -0.2, -0.3]]])
    sight = Sight(np.array([0.8, 0.9]), later, later - 0.8, Visit(np.zeros((2, 2, 2)), moments, np.zeros((2, 3))))
    assert sight.moment(-0.2) == pytest.approx(np.array([[1.0], [0.5]]))
    assert sight.moment(-0.1) == pytest.approx(np.array([[1.0], [0.5]]))  # on the way to the first point
    assert sight.moment(-1e-9) == pytest.approx(np.array([[1.0], [0.5]]))
    assert sight.moment(-0.3) == pytest.approx(np.array([[0.4 / 0.3], [0.15 / 0.3]]))
    assert sight.moment(-0.8) == pytest.approx(np.array([[1.25], [0.375]]))
    assert sight.moment(-5.0) == pytest.approx(np.array([[1.25], [0.375]]))  # no farther than was recorded
    assert sight.gaps == pytest.approx([0.1])


def test_sights_are_the_visits_and_the_recorded_run(known):
    seen = sights(known)
    assert sum(not sight.doubt for sight in seen) == len(known.visits) and len(seen) == len(known.visits) + 3 * STEPS
    assert all(len(sight.past) <= 3 and len(sight.later) and sight.past[0] > sight.later[0] for sight in seen)
    own = next(sight for sight in seen if sight.doubt and sight.past[0] == known.sigmas[5])
    assert np.allclose(own.visit.gram[0], known.grams[0][np.ix_([5, 4, 3], [5, 4, 3])])


def test_a_budget_that_is_asked_for_later_joins_the_rehearsals_of_before(known):
    asked = rehearsal_steps(known, asked=8)
    assert [len(steps) for steps in asked] == [5, 8]
    assert rehearsal_steps(known, known, asked=7) == list(known.rehearsals)
    again = rehearsal_steps(known, known, asked=8)
    assert again == [*known.rehearsals, asked[-1]] and rehearsal_steps(known, known) == list(known.rehearsals)


@pytest.mark.parametrize("steps", [20, 60, 150])
def test_rows_add_up_to_one_on_runs_finer_than_the_lesson(steps):
    """Of a constant velocity any row is one that adds up to 1; the ridge pulls to it as well."""

    class Straight(MixtureGenerator):
        def velocity(self, x, sigma, cases):
            return torch.ones_like(x)

    straight, grid = lesson(Straight(), [1], linear_sigmas(10), [2, 4]), linear_sigmas(steps)
    for budget in (3, 8, steps // 3, steps - 2):
        for row in solve([straight], grid, budget).weights:
            assert sum(row[: len(row) // 2]) == pytest.approx(1.0, abs=1e-6)


def test_without_anything_alike_rows_are_the_prior():
    rows = weights([], linear_sigmas(6), (0, 2, 3))
    assert rows[0] == (1.0, 1.0) and len(rows[2]) == 6 and sum(rows[2][:3]) == pytest.approx(1.0)


# ---- expected errors


@given(
    pairs=st.lists(st.tuples(st.integers(1, 60), st.floats(0, 1e3), st.floats(1e-3, 1e3)), max_size=4),
    budgets=st.lists(st.integers(1, 100), min_size=2, max_size=20, unique=True),
)
def test_expected_errors_fall_with_the_budget(known, pairs, budgets):
    learnt = replace(known, rehearsals={tuple(range(b)): (error, square) for b, error, square in pairs})
    errors = expected_errors(learnt.errors, sorted(budgets))
    if not pairs:
        assert errors == {}
        return
    assert list(errors) == sorted(budgets) and all(np.isfinite(e) and e > 0 for e in errors.values())
    assert (np.diff(list(errors.values())) <= 1e-12).all()


def test_expected_errors_are_the_measured_ones_and_a_line_beyond(known):
    learnt = replace(known, rehearsals={tuple(range(4)): (0.04, 1.0), tuple(range(8)): (0.0025, 1.0)})
    errors = expected_errors(learnt.errors, [2, 4, 8, 16])
    assert errors == {b: pytest.approx(0.2 * (b / 4) ** -2) for b in (2, 4, 8, 16)}
    one = replace(known, rehearsals={tuple(range(4)): (0.04, 1.0)})
    assert expected_errors(one.errors, [4, 8]) == {4: pytest.approx(0.2), 8: pytest.approx(0.2 * 2**STEEP)}


# ---- the embedded model


@pytest.fixture(scope="module")
def demo() -> DemoGenerator:
    return DemoGenerator(cfg=7.5)


@pytest.fixture(scope="module")
def learnt(demo) -> Statistics:
    """From one picture in 50 steps."""
    return lesson(demo, cases(1, 1000), demo.sigmas(50))


@pytest.fixture(scope="module")
def full(demo):
    """{steps: final latents} of four other pictures."""
    return {steps: demo.sample(cases(4, 3000), demo.sigmas(steps)) for steps in (50, 60)}


def test_one_picture_teaches_how_to_make_others(demo, learnt, full):
    """At least 5 dB above Euler with as many steps; measured are 9 and more."""
    others, gains = cases(4, 3000), {}
    for budget in (10, 15):
        ours = sample(demo, others, solve([learnt], demo.sigmas(50), budget))
        theirs = euler(demo, others, demo.sigmas(budget))
        reference = demo.decode(full[50])
        gains[budget] = float((psnr(demo.decode(ours), reference) - psnr(demo.decode(theirs), reference)).mean())
    print(gains)
    assert min(gains.values()) > 5


def test_a_lesson_of_twenty_steps_serves_runs_of_sixty(demo, full):
    """Finer than what was recorded; before segments were measured from their beginning, Euler was better."""
    short, others = lesson(demo, cases(1, 1000), demo.sigmas(20)), cases(4, 3000)
    for budget, gain in ((12, 3), (24, 1.5)):
        ours = sample(demo, others, solve([short], demo.sigmas(60), budget))
        theirs = euler(demo, others, demo.sigmas(budget))
        reference = demo.decode(full[60])
        better = psnr(demo.decode(ours), reference) - psnr(demo.decode(theirs), reference)
        print(budget, better)
        assert better.mean() > gain


def test_expected_errors_rank_budgets_as_their_real_errors_do(demo, learnt, full):
    budgets, others = (4, 6, 9, 13, 20), cases(4, 3000)
    real = [
        float((sample(demo, others, solve([learnt], demo.sigmas(50), budget)) - full[50]).norm() / full[50].norm())
        for budget in budgets
    ]
    expected = expected_errors(learnt.errors, budgets)
    print(real, expected)
    assert sorted(budgets, key=expected.get) == [b for _, b in sorted(zip(real, budgets, strict=True))]
    assert learnt.errors.keys() == {6, 12}


# ---- samplers that add noise


@given(st.integers(1, 60), st.floats(0.3, 3.0), st.data())
def test_spread_steps_are_distinct_and_leave_the_rest(steps, power, data):
    budget = data.draw(st.integers(1, steps))
    chosen = spread_steps(budget, steps, power)
    assert len(set(chosen)) == budget and chosen[0] == 0 and chosen == tuple(sorted(chosen)) and chosen[-1] < steps
    assert budget < steps or chosen == tuple(range(steps))


def test_spread_steps_lie_closer_at_the_end_or_at_the_beginning():
    late, even, early = (spread_steps(7, 20, power) for power in (0.75, 1.0, 1.8))
    assert even == (0, 3, 6, 9, 12, 15, 18) and late[0] == early[0] == 0 and late[-1] == early[-1] == 18
    assert all(a > b > c for a, b, c in zip(late[1:-1], even[1:-1], early[1:-1], strict=True))


@pytest.mark.parametrize(
    ("errors", "power"),
    [({}, 1.0), ({4: 0.9}, 0.75), ({4: 0.56}, 0.75), ({4: 0.28}, 1.8), ({4: 0.01}, 1.8), ({2: 0.792}, 1.275)],
)
def test_steps_are_spread_by_how_near_rehearsals_came(known, errors, power):
    told = replace(known, held=True, rehearsals={tuple(range(b)): (error**2, 1.0) for b, error in errors.items()})
    assert spread(told, 4) == pytest.approx(power, abs=2e-3)


def test_where_noise_is_added_denoised_latents_are_held_on_spread_steps_of_few(known):
    held = replace(known, held=True, visits={})
    for budget in (2, 4, 7):
        made = solve([held], known.sigmas, budget)
        assert made.predictor.kind == "hold" and made.weights is None
        assert made.compute_steps == spread_steps(budget, STEPS, spread(held, budget)) == paths(held, 7)[budget]
    fine = linear_sigmas(40, 3.0)
    assert solve([held], fine, 6).compute_steps != spread_steps(6, 40, spread(held, 6)) and solve([held], fine, 6).budget == 6


def test_rehearsals_where_noise_is_added_are_of_even_steps(known):
    """Whatever was learnt before, so that their errors say the same."""
    held = replace(known, held=True, visits={}, rehearsals={})
    before = replace(held, rehearsals={(0, 6): (0.01, 1.0)})
    assert rehearsal_steps(held, before) == [(0, 6), spread_steps(5, held.steps)]


def test_where_more_evaluations_came_no_nearer_steps_are_held(known):
    small, large = sorted(known.rehearsals, key=len)
    for error, settles in ((0.5, True), (0.9, False), (2.0, False)):
        told = replace(known, rehearsals={small: (1.0, 100.0), large: (error**2, 100.0)})
        made = solve([told], known.sigmas, 6)
        assert told.holds_at(6) != settles and (made.predictor.kind == "fitted") == settles
        assert made.compute_steps == solve([known], known.sigmas, 6).compute_steps
    for error, settles in ((0.5, True), (1.0, False)):
        assert replace(known, rehearsals={small: (error**2, 1.0)}).holds_at(6) != settles


def test_held_paths_need_nothing_where_denoised_latents_do_not_change():
    """Only the first half of a run changes them: no evaluation is spent on the second."""
    steps = 10
    basis = np.eye(steps)
    basis[5:] = basis[5]
    gram = (basis @ basis.T)[None]
    grid = linear_sigmas(steps)
    for budget in (3, 5):
        assert max(held_paths(GramData(grid, gram, gram[None]), budget)[budget]) <= 5
