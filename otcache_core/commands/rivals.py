"""Peers' ways to choose steps and to predict between them, written from their papers' formulas: rows of `bench`.

Theirs keep features or residuals inside the network; here each works on what the sampler sees, velocities, so that steps and
predictions are compared and not places in a network. None knows the case that is sampled beforehand. All count in steps, as
the papers do, where ours counts in sigma.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import factorial

import numpy as np
import torch
from numpy.polynomial.chebyshev import chebvander

from ..sampling.generator import Generator
from ..sampling.layout import combine
from ..sampling.rollout import drive
from ..sampling.trajectory import Trajectory
from ..schedules.schedule import uniform_steps

# predict(steps, values, step): from values at computed `steps`, both newest first, that at a later `step`.
Predict = Callable[[Sequence[int], Sequence[torch.Tensor], int], torch.Tensor]
Way = tuple[tuple[int, ...], Predict]  # compute steps, and what happens between them

WARM_UP, WINDOW = 5, 2.0  # Spectrum's steps before the first skip, and its first window
DEGREE, RIDGE, BLEND = 4, 0.1, 0.5  # its polynomial's, the fit's, and the polynomial's share of the forecast
RETAINED = 0.2  # of the steps: MagCache skips none of the first
MOST_SKIPS = 8  # one after the other, of MagCache: more than published, or few evaluations could not be reached


def held(steps: Sequence[int], values: Sequence[torch.Tensor], step: int) -> torch.Tensor:
    """The newest value."""
    return values[0]


def taylor(steps: Sequence[int], values: Sequence[torch.Tensor], step: int, order: int) -> torch.Tensor:
    """TaylorSeer (arXiv 2503.06923): the Taylor series with differences in place of derivatives.

    A difference is that of the next lower one at the last two computed steps, over their distance.
    """
    ways, differences = step - steps[0], list(values[: order + 1])
    total = differences[0]
    for i in range(1, len(differences)):
        gap = zip(differences, differences[1:], steps, steps[1:], strict=False)
        differences = [(new - old) / (now - then) for new, old, now, then in gap]
        total = total + differences[0] * (ways**i / factorial(i))
    return total


def chebyshev(
    steps: Sequence[int], values: Sequence[torch.Tensor], step: int, total: int, ridge: float = RIDGE, blend: float = BLEND
) -> torch.Tensor:
    """Spectrum (arXiv 2603.01623): Chebyshev polynomials of degree 4 over the N = `total` steps, fitted with a ridge to all
    values so far, blended with the line through the last two."""
    basis = chebvander(2 * np.array([*steps, step]) / (total - 1) - 1, DEGREE)
    known, wanted = basis[:-1], basis[-1]
    weights = wanted @ np.linalg.solve(known.T @ known + ridge * np.eye(DEGREE + 1), known.T)
    return blend * combine(weights.tolist(), values) + (1 - blend) * taylor(steps, values, step, 1)


def differences(steps: Sequence[int], values: Sequence[torch.Tensor], step: int, order: int) -> torch.Tensor:
    """FSampler's h2 (`order` 1) and h3 (2) (arXiv 2511.09180): 2 e1 - e2 and 3 e1 - 3 e2 + e3 of the last real ones, whatever
    lies between. Without its stabilizer, which scales by what earlier predictions missed."""
    weights = {1: (1.0,), 2: (2.0, -1.0), 3: (3.0, -3.0, 1.0)}[min(order + 1, len(values))]
    return combine(weights, values[: len(weights)])


def window_steps(budget: int, steps: int) -> tuple[int, ...]:
    """Spectrum's: all of the warm-up, then windows that grow by the same amount each; the least growth that makes no more
    than `budget` evaluations. Evenly spread where that is no more than the warm-up."""
    if budget <= WARM_UP:
        return uniform_steps(budget, steps)
    for growth in np.arange(0.0, steps, 0.01):
        found, window = list(range(WARM_UP)), WINDOW
        while found[-1] + int(window) < steps:
            found.append(found[-1] + int(window))
            window += growth
        if len(found) <= budget:
            return tuple(found)
    raise AssertionError("a window as long as the run leaves the warm-up alone")


def magnitude_ratios(trajectories: Sequence[Trajectory]) -> np.ndarray:
    """MagCache's (arXiv 2506.09045), float64 [N]: how the velocity's norm changes from step to step, a mean over cases."""
    norms = np.array([trajectory.d.flatten(1).double().norm(dim=1).numpy(force=True) for trajectory in trajectories])
    return np.insert((norms[:, 1:] / norms[:, :-1]).mean(0), 0, 1.0)


def skipped_by_magnitude(ratios: np.ndarray, threshold: float, most: int = MOST_SKIPS) -> tuple[int, ...]:
    """MagCache's compute steps: one is skipped while the errors |1 - product of ratios| since the last computed step add up to
    no more than `threshold`, at most `most` in a row, none of the first fifth."""
    chosen, error, product, skips = [], 0.0, 1.0, 0
    for step, ratio in enumerate(ratios):
        product *= ratio
        error += abs(1 - product)
        skips += 1
        if step < RETAINED * len(ratios) or error > threshold or skips > most:
            chosen.append(step)
            error, product, skips = 0.0, 1.0, 0
    return tuple(chosen)


def magnitude_steps(ratios: np.ndarray, budget: int) -> tuple[int, ...] | None:
    """Those of the least threshold that makes no more than `budget` evaluations; None where none does."""
    return next((s for t in np.geomspace(1e-5, 1e3, 400) if len(s := skipped_by_magnitude(ratios, t)) <= budget), None)


def ways(budget: int, trajectories: Sequence[Trajectory]) -> dict[str, Way]:
    """Each peer's, by its name, at no more than `budget` evaluations; those left out that cannot make so few."""
    steps = trajectories[0].steps
    even = uniform_steps(budget, steps)
    found = {
        "TaylorSeer, order 1": (even, partial(taylor, order=1)),
        "TaylorSeer, order 2": (even, partial(taylor, order=2)),
        "Spectrum": (window_steps(budget, steps), partial(chebyshev, total=steps)),
        "FSampler, h2": (even, partial(differences, order=1)),
        "FSampler, h3": (even, partial(differences, order=2)),
        "MagCache": (magnitude_steps(magnitude_ratios(trajectories), budget), held),
    }
    return {name: way for name, way in found.items() if way[0]}


class Following:
    """A run that evaluates at the way's steps and predicts the others, for `rollout.drive`."""

    def __init__(self, sigmas: np.ndarray, way: Way):
        self.sigmas = sigmas
        self._chosen, self._predict = way
        self._steps, self._values = [], []  # newest first

    def computes(self, step: int) -> bool:
        """Whether `step` runs the model."""
        return step in self._chosen

    def observe(self, step: int, d: torch.Tensor, _x=None) -> None:
        """Take in the velocity at `step`."""
        self._steps.insert(0, step)
        self._values.insert(0, d)

    def predict(self, step: int) -> torch.Tensor:
        """The velocity at `step`."""
        return self._predict(self._steps, self._values, step)


def follow(generator: Generator, cases: Sequence, sigmas: np.ndarray, way: Way) -> torch.Tensor:
    """Final latents [n, *latent] of Euler runs that go the way."""
    return drive(Following(sigmas, way), generator, cases)
