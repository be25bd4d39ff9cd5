import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mixture import linear_sigmas
from strategies import grids_with_steps

from otcache_core.sampling.step_finder import StepFinder

CHURN = 2**0.5 - 1  # the most that Karras et al. add


@given(grids_with_steps(min_steps=2), st.data())
def test_a_grid_point_is_its_own_step(case, data):
    sigmas, _ = case
    finder = StepFinder(sigmas)
    step = data.draw(st.integers(0, len(sigmas) - 2))
    assert finder.locate(float(sigmas[step])) == (step, True)


@given(grids_with_steps(min_steps=2), st.floats(0, 2))
def test_a_sigma_belongs_to_the_step_whose_interval_holds_it(case, fraction):
    sigmas, _ = case
    sigma = fraction * sigmas[0]
    step, on_grid = StepFinder(sigmas).on_grid(sigma)
    if on_grid:
        assert abs(sigmas[step] - sigma) <= 1.01e-4 * sigmas[step]
        assert abs(sigmas[step] - sigma) <= min(abs(s - sigma) for s in sigmas[:-1])
    elif sigma > sigmas[0]:
        assert step == 0
    elif sigma < sigmas[-1]:
        assert step == len(sigmas) - 2
    else:
        assert sigmas[step] >= sigma >= sigmas[step + 1]


def test_float32_arithmetic_of_a_sampler_still_hits_its_grid_point():
    sigmas = linear_sigmas(50, shift=3.0)
    finder = StepFinder(sigmas)
    for step, sigma in enumerate(sigmas[:-1]):
        passed = np.exp(-np.float32(-np.log(np.float32(sigma))))  # as samplers in log sigma do
        assert finder.locate(float(passed)) == (step, True)


# -- samplers that raise the noise level -----------------------------------------------------------------------


def euler(sigmas, raised):
    """(sigma, step) of every evaluation."""
    return [(sigma * raised(sigma), step) for step, sigma in enumerate(sigmas[:-1])]


def midpoint(sigmas, raised):
    """As dpm_2: a second stage at the geometric mean of the raised sigma and the next."""
    found = []
    for step, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        found.append((sigma * raised(sigma), step))
        if following > 0:
            found.append(((sigma * raised(sigma) * following) ** 0.5, step))
    return found


def karras(steps, top=14.6, rho=7.0):
    ramp = np.linspace(top ** (1 / rho), 0.03 ** (1 / rho), steps) ** rho
    return np.append(ramp, 0.0)


@pytest.mark.parametrize("grid", [linear_sigmas(12), linear_sigmas(50, 3.0), karras(20), karras(50)])
@pytest.mark.parametrize("gamma", [1e-3, 0.02, 0.09, CHURN])
@pytest.mark.parametrize("sampler", [euler, midpoint])
def test_steps_that_begin_above_their_sigma_are_found(grid, gamma, sampler):
    finder = StepFinder(grid)
    calls = sampler(grid, lambda sigma: 1 + gamma)
    assert [finder.locate(sigma)[0] for sigma, _ in calls] == [step for _, step in calls]


def heun(sigmas, raised):
    """A second stage at the next sigma itself, which is taken for that step's: both are computed or both are not."""
    found = []
    for step, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        found.append((sigma * raised(sigma), step))
        if following > 0:
            found.append((following, step + 1))
    return found


@pytest.mark.parametrize("low", [0.0, 0.3])
@pytest.mark.parametrize("grid", [linear_sigmas(12), karras(20)])
@pytest.mark.parametrize("gamma", [0.02, 0.09, CHURN])
@pytest.mark.parametrize("sampler", [euler, midpoint, heun])
def test_noise_that_is_added_in_a_part_of_the_run_only(grid, low, gamma, sampler):
    """s_tmin and s_tmax: the first steps begin on the grid, the next above it, the last on it again.

    That has to be told, for a raised beginning looks like a stage of the step before.
    """

    def raised(sigma):
        return 1 + gamma * (low <= sigma <= grid[3])

    finder = StepFinder(grid, [sigma * raised(sigma) for sigma in grid[:-1]])
    calls = sampler(grid, raised)
    assert [finder.locate(sigma)[0] for sigma, _ in calls] == [step for _, step in calls]


def test_two_stages_a_step_are_not_taken_for_added_noise():
    grid = karras(20)
    for calls in (midpoint(grid, lambda sigma: 1), [(s, k) for s, k in euler(grid, lambda sigma: 1) for _ in range(2)]):
        finder = StepFinder(grid)
        assert [finder.locate(sigma)[0] for sigma, _ in calls] == [step for _, step in calls]


def test_a_run_that_goes_back_up_is_followed():
    grid = karras(20)
    finder = StepFinder(grid)
    order = [*range(12), *range(5, 20)]
    assert [finder.locate(grid[step]) for step in order] == [(step, True) for step in order]


@pytest.mark.parametrize("first", [1.0, 0.999, 1.003])
@pytest.mark.parametrize("calls", [1, 2, 3])
def test_sigmas_that_are_shaken_are_followed(first, calls):
    """As Detail Daemon does: no step is guessed to have begun before its sigmas are reached."""
    grid = linear_sigmas(50)
    finder = StepFinder(grid)
    asked = [(grid[0] * first, 0)] + [(grid[i] * (0.997 - 0.002 * k), i) for i in range(1, 50) for k in range(calls)]
    assert all(0 <= finder.locate(sigma)[0] - step <= 1 for sigma, step in asked)
