"""Peers' formulas of the proof, each against an identity or a number of its paper."""

from itertools import combinations

import numpy as np
import pytest
import torch

from benchmarks.peers import (
    FORCED,
    between_measured,
    budcache_steps,
    dpcache_steps,
    held_final,
    lemica_steps,
    neighbours,
    outcome_costs,
    path_aware_costs,
    relative_changes,
    tea_changes,
    tea_schedule,
    tea_steps,
)
from otcache_core.sampling.cached_run import CachedRun
from otcache_core.sampling.solvers import euler
from otcache_core.sampling.trajectory import Trajectory
from otcache_core.schedules.schedule import Predictor, make_schedule


def run_of(velocities, start=0.0) -> Trajectory:
    """A run of one-element latents on an even grid from 1 to 0."""
    d = torch.as_tensor(velocities, dtype=torch.float64).view(-1, 1, 1, 1)
    x = torch.cumsum(torch.cat([torch.full((1, 1, 1, 1), float(start), dtype=torch.float64), -d / len(d)]), dim=0)
    return Trajectory(np.linspace(1, 0, len(d) + 1), x, d)


def evaluate_with(recording):
    return lambda x, sigma: recording.generator.velocity(x, sigma, [0] * len(x))


def test_teacaches_distance_is_relative_to_the_step_before():
    assert relative_changes(torch.tensor([[1.0, -3.0], [2.0, -2.0], [2.0, 0.0]])) == pytest.approx([2 / 4, 2 / 4])


def test_teacaches_polynomial_says_what_the_output_does_where_it_follows_from_the_input():
    """Output changes that are twice the input's lie on a polynomial of degree 1."""
    inputs, outputs = np.cumprod([1, 1.1, 1.3, 1.2, 1.05, 1.25, 1.4]), np.cumprod([1, 1.2, 1.6, 1.4, 1.1, 1.5])
    tensor = [torch.from_numpy(values).view(-1, 1, 1, 1) for values in (inputs, outputs)]
    found = tea_changes([Trajectory(np.linspace(1, 0, 7), *tensor)])
    assert found == pytest.approx([0, 0.2, 0.6, 0.4, 0.1, 0.5])


def test_teacache_computes_where_the_changes_add_up_to_its_threshold():
    changes = np.insert(np.full(9, 0.1), 0, 0.0)
    assert tea_steps(changes, 0.3 - 1e-9) == (0, 3, 6, 9)
    assert tea_steps(changes, 0.05) == tuple(range(10)) and tea_steps(changes, np.inf) == (0, 9)
    assert tea_schedule(changes, 4) == (0, 3, 6, 9)


def test_lemicas_cost_is_the_finished_latents_error_with_that_segment_alone_held(recording):
    run, evaluate = recording.trajectories[0], evaluate_with(recording)
    costs = outcome_costs(evaluate, run, spans=(2, 4))
    assert costs[3][0, 0] == 0 and np.isinf(costs[3][0, 4:]).all()
    steps = [step for step in range(recording.steps) if step not in (4, 5, 6)]
    final = held_final(evaluate, run.x[:1], run.sigmas, steps)
    assert costs[3][0, 3] == pytest.approx(float((final - run.x[-1]).abs().mean()), rel=1e-6)
    assert min(costs[3][0, 1], costs[3][0, 3]) <= costs[3][0, 2] <= max(costs[3][0, 1], costs[3][0, 3])


def test_lengths_between_measured_ones_lie_on_a_power_law():
    found = between_measured(np.array([0.0, 2.0**3, np.nan, 4.0**3, np.nan]))
    assert found[:4] == pytest.approx([0, 8, 27, 64]) and np.isinf(found[4])


def test_lemicas_path_has_the_least_peak(recording):
    costs = outcome_costs(evaluate_with(recording), recording.trajectories[0])

    def peak(path):
        return max(costs[i][0, j - i - 1] for i, j in zip(path, (*path[1:], recording.steps), strict=True))

    paths = [(0, *rest) for rest in combinations(range(1, recording.steps), 3)]
    assert peak(lemica_steps(costs, 4)) == min(map(peak, paths))


def test_dpcaches_cost_is_the_taylor_forecasts_relative_error():
    """Of squares, from 1 and 4: 7 and 10 in place of 9 and 16. Lines cost nothing."""
    costs = path_aware_costs([run_of([1.0, 4.0, 9.0, 16.0, 25.0])])
    assert costs[0, 1, 2:5] == pytest.approx([0, 2 / 9, 2 / 9 + 6 / 16])
    assert costs[0, 0, 3] == pytest.approx(3 / 4 + 8 / 9)  # held
    assert path_aware_costs([run_of(range(1, 7))])[1, 2, 3:] == pytest.approx(0, abs=1e-6)


def test_dpcache_finds_the_cheapest_path_where_the_step_before_does_not_matter():
    rng, steps = np.random.default_rng(1), 9
    plain = rng.random((steps, steps + 1))
    costs = np.broadcast_to(plain, (steps, steps, steps + 1))

    def spent(path):
        return sum(plain[i, j] for i, j in zip(path[FORCED - 1 :], (*path[FORCED:], steps), strict=True))

    paths = [(0, 1, 2, *rest) for rest in combinations(range(FORCED, steps), 3)]
    assert spent(dpcache_steps(costs, 6)) == pytest.approx(min(map(spent, paths)))
    assert dpcache_steps(costs, 2) == (0, 1)


@pytest.mark.parametrize(("start", "end", "newest", "before"), [(1, 3, 1.134, -0.134), (42, 49, 1.431, -0.431)])
def test_meancaches_published_schedule_weighs_its_evaluations_as_its_code_does(start, end, newest, before):
    """Qwen-Image at 10 evaluations, on the grid of mu = 1.15: edges of span 2 and 4, all others one Euler step."""
    time = np.linspace(1, 1 / 50, 50)
    sigmas = np.append(np.exp(1.15) / (np.exp(1.15) + 1 / time - 1), 0.0)
    steps, spans = (0, 1, 3, 7, 14, 21, 28, 35, 42, 49), (0, 2, 1, 1, 1, 1, 1, 1, 4, 0)
    made = make_schedule(sigmas=tuple(sigmas), compute_steps=steps, predictor=Predictor(kind="mean_velocity"), spans=spans)
    run, moved = CachedRun(made), torch.zeros(len(steps), dtype=torch.float64)
    for step in range(end):
        if run.computes(step):
            d = torch.eye(len(steps), dtype=torch.float64)[steps.index(step)]
            run.observe(step, d)
        else:
            d = run.predict(step)
        moved += d * (sigmas[step + 1] - sigmas[step]) * (step >= start)
    weights = moved / (sigmas[end] - sigmas[start])
    at = steps.index(start)
    assert weights[[at, at - 1]].tolist() == pytest.approx([newest, before], abs=1e-3)


def test_holding_on_all_steps_is_the_full_run(recording):
    start = torch.stack([recording.generator.noise(case) for case in recording.cases])
    everything = held_final(evaluate_with(recording), start, recording.sigmas, range(recording.steps))
    assert torch.equal(everything, euler(recording.generator, recording.cases, recording.sigmas))


def test_budcache_comes_to_a_valley_and_asks_no_more_than_it_may():
    best, asked = (0, 1, 4, 9, 15), []

    def objective(mask):
        asked.append(mask)
        return sum(abs(a - b) for a, b in zip(mask, best, strict=False)) / 20

    assert budcache_steps(objective, 5, 20, calls=400) == best
    assert len(asked) == len(set(asked)) <= 400 and all(mask[0] == 0 and len(set(mask)) == 5 for mask in asked)
    asked.clear()
    found = budcache_steps(objective, 8, 20, calls=1)
    assert asked == [found] and found[:2] == (0, 1)  # a quarter of the budget is forced to come first


def test_budcaches_neighbours_move_one_step():
    mask = (0, 5, 10)
    found = neighbours(mask, 20, np.random.default_rng(0))
    assert {(0, place, 10) for place in (2, 3, 4, 6, 7, 8)} <= set(found)
    assert all(len(set(other) & set(mask)) == 2 and other[0] == 0 for other in found)
