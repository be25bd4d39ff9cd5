import numpy as np
import pytest
import torch
from hypothesis import given, settings
from mixture import MixtureGenerator, linear_sigmas
from strategies import grids_with_steps

from otcache_core.sampling.rollout import Counted, sample
from otcache_core.sampling.solvers import SOLVERS, adams_bashforth_2, dpmpp_2m, euler
from otcache_core.schedules.schedule import Predictor, make_schedule

ORDERS = {"euler": 1, "adams-bashforth 2": 2, "dpmpp_2m": 2}
CASES = [1, 2]


class Smooth:
    """dx / dsigma = cos(3 sigma) x, whose solution is known."""

    def noise(self, case):
        return torch.full((2, 2), float(case), dtype=torch.float64)

    def velocity(self, x, sigma, cases):
        return np.cos(3 * sigma) * x

    def exact(self, cases, sigmas):
        growth = np.exp((np.sin(3 * sigmas[-1]) - np.sin(3 * sigmas[0])) / 3)
        return torch.stack([self.noise(case) for case in cases]) * growth


class Point(MixtureGenerator):
    """Every run ends at one picture, to which its latents go in a straight line."""

    def velocity(self, x, sigma, cases):
        return (x - self.means[0]) / sigma


def order(errors):
    """Order of convergence from errors of grids with twice the steps each."""
    return np.log2(errors[-2] / errors[-1])


def uneven(steps: int) -> np.ndarray:
    return 0.15 + 0.8 * linear_sigmas(steps, shift=2.0)


def rms(x) -> float:
    return float(x.square().mean().sqrt())


def test_every_solver_is_tested():
    assert set(ORDERS) == set(SOLVERS)


@pytest.mark.parametrize("name", SOLVERS)
def test_convergence_on_a_smooth_equation_is_of_the_solvers_order(name):
    errors = [
        rms(SOLVERS[name](Smooth(), CASES, uneven(n)) - Smooth().exact(CASES, uneven(n))) for n in (16, 32, 64, 128)
    ]
    assert errors == sorted(errors, reverse=True) and order(errors) == pytest.approx(ORDERS[name], abs=0.1)


@pytest.mark.parametrize("name", SOLVERS)
def test_convergence_on_the_mixture_is_of_the_solvers_order(name):
    generator = MixtureGenerator()
    exact = adams_bashforth_2(generator, CASES, uneven(2560))
    errors = [rms(SOLVERS[name](generator, CASES, uneven(n)) - exact) for n in (80, 160, 320)]
    assert order(errors) == pytest.approx(ORDERS[name], abs=0.25)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_runs_from_noise_to_the_end_converge_to_the_flow(name, shift):
    """Sigma 1, where log SNR is infinite, and sigma 0 are both met."""
    generator = MixtureGenerator()
    exact = adams_bashforth_2(generator, CASES, linear_sigmas(1280, shift))
    coarse, fine = (rms(SOLVERS[name](generator, CASES, linear_sigmas(n, shift)) - exact) for n in (20, 320))
    assert fine < 0.1 * coarse and fine < 5e-3


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_one_evaluation_a_step_at_the_steps_own_sigma(name, steps):
    asked = []

    class Noted(MixtureGenerator):
        def velocity(self, x, sigma, cases):
            asked.append(sigma)
            return super().velocity(x, sigma, cases)

    counted, sigmas = Counted(Noted()), linear_sigmas(steps, 3.0)
    x = SOLVERS[name](counted, CASES, sigmas)
    assert asked == sigmas[:-1].tolist() and counted.evaluations == steps * len(CASES)
    assert x.shape == (2, 3, 16, 16) and torch.isfinite(x).all()


@pytest.mark.parametrize("name", SOLVERS)
def test_straight_lines_are_followed_exactly_on_any_grid(name):
    generator = Point()
    x = SOLVERS[name](generator, CASES, linear_sigmas(5, 4.0))
    torch.testing.assert_close(x, generator.means[:1].expand_as(x), atol=1e-12, rtol=0)


def test_the_first_step_is_first_order():
    generator, sigmas = MixtureGenerator(), linear_sigmas(1)
    for solver in (adams_bashforth_2, dpmpp_2m):
        torch.testing.assert_close(solver(generator, CASES, sigmas), euler(generator, CASES, sigmas))


@given(grids_with_steps(min_steps=2))
@settings(max_examples=20)
def test_euler_on_the_compute_steps_alone_equals_caching_by_hold(case):
    sigmas, steps = case
    sigmas = sigmas / sigmas[0]
    generator = MixtureGenerator()
    hold = make_schedule(sigmas=sigmas.tolist(), compute_steps=steps, predictor=Predictor(kind="hold"))
    plain = euler(generator, CASES, np.append(sigmas[list(steps)], sigmas[-1]))
    torch.testing.assert_close(sample(generator, CASES, hold), plain, atol=1e-10, rtol=0)
