from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import step_sets

from otcache_core.calibration import inner_products
from otcache_core.calibration.error_growth import (
    Partial,
    growth_rates,
    growth_sums,
    output_gains,
    segment_scores,
    state_aware_paths,
)
from otcache_core.calibration.inner_products import GramData
from otcache_core.errors import OTCacheError
from otcache_core.sampling.predictors import RIDGE
from otcache_core.sampling.rollout import Rollouts, record, sample
from otcache_core.schedules.schedule import Predictor, make_schedule

STEPS = 10
SIGMAS = np.linspace(1, 0, STEPS + 1) ** 1.3


class LinearFlow:
    """d = kappa(sigma) x + forcing(sigma): errors grow exactly by kappa, with varied velocities."""

    def __init__(self, kappa=lambda sigma: -1.2):
        self.kappa = kappa
        self.forcing = torch.randn(4, 3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def noise(self, case):
        return torch.randn(3, 4, generator=torch.Generator().manual_seed(case), dtype=torch.float64)

    def velocity(self, x, sigma, cases):
        powers = torch.tensor([sigma**k for k in range(4)]).double()
        return self.kappa(sigma) * x + torch.tensordot(powers, self.forcing, 1)

    def decode(self, x):
        return x


def rates(generator, sigmas=SIGMAS):
    return np.array([generator.kappa(sigma) for sigma in sigmas[:-1]])


def recordings(generator, cases=(1, 2), sigmas=SIGMAS):
    runs = [record(generator, case, sigmas) for case in cases]
    return runs, inner_products.recorded(runs)


def rollout(generator, steps, runs, cases=(1, 2), kind="hold", sigmas=SIGMAS):
    """(x, d, recorded x, recorded d) at each compute step of a cached run, as `growth_sums` takes them."""
    rollouts = Rollouts(generator, cases, runs, Predictor(kind=kind))
    nodes = [rollouts.state_at(steps[: k + 1]) for k in range(len(steps))]
    full = [[torch.stack([getattr(run, name)[step] for run in runs]) for step in steps] for name in "xd"]
    return [node.x for node in nodes], [node.d[0] for node in nodes], *full


@pytest.mark.parametrize("kappa", [-2.0, -0.3, 0.0, 1.5])
@pytest.mark.parametrize("steps", [(0, 2, 5, 7), (0, 9), (0, 1, 2, 3, 6, 8)])
def test_growth_rates_recover_kappa_of_a_linear_flow(kappa, steps):
    generator = LinearFlow(lambda sigma: kappa)
    runs, _ = recordings(generator)
    estimate = growth_rates(SIGMAS, steps, growth_sums(*rollout(generator, steps, runs)))
    assert estimate.shape == (STEPS,)
    assert np.allclose(estimate, kappa, atol=1e-9)


def test_growth_rates_follow_a_changing_kappa():
    sigmas = np.linspace(1, 0, 61)
    generator = LinearFlow(lambda sigma: -1 - 3 * sigma)
    runs, _ = recordings(generator, sigmas=sigmas)
    steps = tuple(range(0, 60, 2))
    estimate = growth_rates(sigmas, steps, growth_sums(*rollout(generator, steps, runs, sigmas=sigmas)), smooth=0.5)
    assert np.allclose(estimate[4:56], rates(generator, sigmas)[4:56], atol=0.1)


def test_growth_rates_smooth_the_noise_of_single_steps():
    sigmas, steps = np.linspace(1, 0, 61), tuple(range(0, 60, 2))
    generator = LinearFlow(lambda sigma: -1)
    runs, _ = recordings(generator, sigmas=sigmas)
    x, d, recorded_x, recorded_d = rollout(generator, steps, runs, sigmas=sigmas)
    noise = torch.Generator().manual_seed(0)
    noisy = [v + 0.5 * torch.randn(1, generator=noise) * (a - b) for v, a, b in zip(d, x, recorded_x, strict=True)]
    raw, smooth = (
        np.abs(growth_rates(sigmas, steps, growth_sums(x, noisy, recorded_x, recorded_d), **options) + 1).mean()
        for options in ({"smooth": 1e-9}, {})
    )
    assert smooth < 0.6 * raw


def test_growth_rates_of_single_precision_are_summed_in_double():
    """Over the elements of a video a float32 sum loses what tells growth from none."""
    random = np.random.default_rng(0)
    error, change = random.normal(size=(2, 1, 200_000)).astype(np.float32)
    x, d, zero = torch.from_numpy(error), torch.from_numpy(change), torch.zeros(1, 200_000)
    estimate = growth_rates([1.0, 0.0], (0,), growth_sums([x], [d], [zero], [zero]))
    error, change = error.astype(np.float64), change.astype(np.float64)
    assert estimate == pytest.approx([(error * change).sum() / (error**2).sum()], rel=1e-9)


def test_a_rollout_without_any_error_gives_no_growth():
    generator = LinearFlow()
    runs, _ = recordings(generator)
    steps = tuple(range(STEPS))
    estimate = growth_rates(SIGMAS, steps, growth_sums(*rollout(generator, steps, runs)))
    assert np.array_equal(estimate, np.zeros(STEPS))


def test_steps_before_the_first_error_take_their_neighbours_growth():
    sigmas = np.linspace(1, 0, 31)
    generator = LinearFlow()
    runs, _ = recordings(generator, sigmas=sigmas)
    steps = (*range(14), 18, 23)
    estimate = growth_rates(sigmas, steps, growth_sums(*rollout(generator, steps, runs, sigmas=sigmas)))
    assert np.allclose(estimate, -1.2, atol=1e-6)


@pytest.mark.parametrize("kappa", [lambda sigma: -1.2, lambda sigma: 2 - 5 * sigma])
@pytest.mark.parametrize("step", [0, 4, STEPS])
def test_output_gains_are_the_true_growth_of_a_perturbation(kappa, step):
    generator = LinearFlow(kappa)
    sigmas, x = SIGMAS.tolist(), generator.noise(1)
    other = x.clone()
    for i in range(STEPS + 1):
        if i == step:
            other = other + 1e-3
        if i < STEPS:
            h = sigmas[i + 1] - sigmas[i]
            x = x + h * generator.velocity(x, sigmas[i], [1])
            other = other + h * generator.velocity(other, sigmas[i], [1])
    gains = output_gains(SIGMAS, rates(generator))
    assert gains.shape == (STEPS + 1,)
    assert np.allclose(((other - x) / 1e-3).numpy(), gains[step], rtol=1e-9)


def test_output_gains_stay_positive_on_a_stiff_flow():
    gains = output_gains(np.array([1.0, 0.5, 0.0]), np.array([10.0, 10.0]))
    assert np.allclose(gains, [0.05**2, 0.05, 1.0])


def simulate(recorded, kappa, path):
    """Error coefficients at the end of a path, chained segment by segment."""
    partial = Partial.begin(recorded.steps)
    for step in path[1:]:
        weights, _ = segment_scores(recorded, [partial], RIDGE)
        partial = partial.extended(step, weights[0, step], recorded.travelled, kappa[step])
    weights, _ = segment_scores(recorded, [partial], RIDGE)
    return partial.error_at(recorded.steps, weights[0, -1], recorded.travelled)


@pytest.mark.parametrize("kappa", [lambda sigma: -1.2, lambda sigma: 2 - 5 * sigma])
@given(data=st.data())
@settings(max_examples=15)
def test_the_simulated_error_is_that_of_the_real_rollout_on_a_linear_flow(kappa, data):
    generator, cases = LinearFlow(kappa), (1, 2)
    runs, recorded = recordings(generator)
    path = data.draw(step_sets(STEPS))
    latents, rows = Rollouts(generator, cases, runs, Predictor(kind="fitted")).run(path)
    simulated = torch.from_numpy(simulate(recorded, rates(generator), path))
    stepwise = sample(
        generator,
        cases,
        make_schedule(sigmas=SIGMAS, compute_steps=path, predictor={"kind": "fitted"}, weights=rows),
    )
    for run, latent, other in zip(runs, latents, stepwise, strict=True):
        expected = run.x[-1] + torch.tensordot(simulated, run.d, 1)
        torch.testing.assert_close(latent, expected, atol=1e-7, rtol=0)
        torch.testing.assert_close(other, expected, atol=1e-7, rtol=0)


def test_a_wide_beam_finds_the_optimum_of_its_own_objective():
    generator = LinearFlow()
    sigmas = np.linspace(1, 0, 8)
    _, recorded = recordings(generator, sigmas=sigmas)
    kappa = rates(generator, sigmas)

    def objective(path):
        error = simulate(recorded, kappa, path)
        return float(np.log(np.maximum(recorded.mean_squares(error), 1e-30)).mean())

    paths = state_aware_paths(recorded, kappa, range(1, 8), beam=1000)
    for budget, path in paths.items():
        everything = [(0, *rest) for rest in combinations(range(1, 7), budget - 1)]
        assert path in everything
        # The full budget's error is zero up to rounding, the log of which is noise.
        assert (
            objective(path) == pytest.approx(min(map(objective, everything)), abs=1e-6)
            or objective(path) < -60
        )


@pytest.mark.parametrize("seed", [0, 2, 3, 10])
def test_paths_are_judged_by_the_geometric_mean_over_cases(seed):
    """One case is a thousand times larger: it must not decide as it would a maximum or a mean square."""
    random = np.random.default_rng(seed)
    velocities = random.normal(size=(3, 7, 9)) * np.array([1.0, 30.0, 1000.0])[:, None, None]
    grams = velocities @ velocities.transpose(0, 2, 1) / 9
    recorded = GramData(np.linspace(1, 0, 8), grams, grams[None])
    kappa = random.normal(size=7)
    candidates = [(0, *rest) for rest in combinations(range(1, 7), 2)]
    errors = np.array([recorded.mean_squares(simulate(recorded, kappa, path)) for path in candidates])
    best = np.log(errors).mean(1).argmin()
    assert best not in (errors.max(1).argmin(), errors.mean(1).argmin())
    assert state_aware_paths(recorded, kappa, [3], beam=1000)[3] == candidates[best]


def test_no_narrow_beam_beats_the_exhaustive_one(recording):
    recorded = inner_products.recorded(recording.trajectories)
    kappa = np.full(recorded.steps, -1.0)

    def objective(beam):
        error = simulate(recorded, kappa, state_aware_paths(recorded, kappa, [5], beam=beam)[5])
        return float(np.log(recorded.mean_squares(error)).mean())

    assert objective(1000) <= min(objective(1), objective(4)) + 1e-12


@pytest.mark.parametrize("budgets", [[1], [STEPS], [2, 5], range(1, STEPS + 1)])
def test_budgets_are_honoured(budgets):
    generator = LinearFlow()
    _, recorded = recordings(generator)
    paths = state_aware_paths(recorded, rates(generator), budgets)
    assert set(paths) == set(budgets)
    for budget, path in paths.items():
        assert len(path) == budget and path[0] == 0 and path[-1] < STEPS
        assert list(path) == sorted(set(path)) and all(type(step) is int for step in path)


@pytest.mark.parametrize("budget", [0, STEPS + 1, 1.5])
def test_a_budget_out_of_range_is_refused(budget):
    generator = LinearFlow()
    _, recorded = recordings(generator)
    with pytest.raises(OTCacheError, match=f"budget is {budget}"):
        state_aware_paths(recorded, rates(generator), [budget])


def test_the_state_aware_path_is_the_best_real_one_on_a_linear_flow():
    """The simulation is exact there, so its winner must win the real rollouts as well."""
    generator, cases = LinearFlow(), (1, 2)
    runs, recorded = recordings(generator)
    rollouts = Rollouts(generator, cases, runs, Predictor(kind="fitted"))

    def real(path):
        latents, _ = rollouts.run(path)
        misses = [float(((a - run.x[-1]) ** 2).mean()) for a, run in zip(latents, runs, strict=True)]
        return float(np.log(misses).mean())

    path = state_aware_paths(recorded, rates(generator), [4], beam=1000)[4]
    best = min(real((0, *rest)) for rest in combinations(range(1, STEPS), 3))
    assert real(path) == pytest.approx(best, abs=1e-4)
