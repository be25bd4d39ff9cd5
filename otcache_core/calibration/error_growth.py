"""Error propagation without the model: how an early error grows, and paths that take it into account.

The error of a cached latent obeys d eps / d sigma = J eps. One scalar a step stands for the Jacobian: the growth that
one cached rollout shows along the errors that caching really makes. With it a whole cached run can be simulated on the
recorded velocities, so the state-aware path (OptimalSteps' idea, arXiv 2503.21774) needs no model evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ..sampling.predictors import RIDGE, solve_ridge
from ..schedules.extrapolation import PRIOR_DAMPING, extrapolated_displacements
from ..schedules.schedule import HISTORY, check_budget
from .inner_products import GramData

BEAM = 4


def growth_sums(x, d, recorded_x, recorded_d) -> np.ndarray:
    """What `growth_rates` follow from, float64 [2, B]: at each compute step the product of error and change, and the square.

    x, d: [cases, ...] latents of a cached rollout and evaluations at them, one compute step after the other; recorded_x,
    recorded_d: the same of the full run. Those of several groups of cases add up.
    """
    sums = []
    for ours, evaluated, latent, velocity in zip(x, d, recorded_x, recorded_d, strict=True):
        error = (ours - latent).flatten().double()
        sums.append((float(error @ (evaluated - velocity).flatten().double()), float(error @ error)))
    return np.array(sums, dtype=np.float64).reshape(-1, 2).T


def growth_rates(sigmas: np.ndarray, steps: Sequence[int], sums: np.ndarray, smooth: float = 2.0) -> np.ndarray:
    """kappa float64 [N]: d(sigma, x + eps) - d(sigma, x) is kappa eps along the errors of one cached rollout.

    steps: its compute steps [B]; sums: float64 [2, B], see `growth_sums`. Least squares a step, smoothed over neighbouring
    compute steps by `smooth`, interpolated. On the demo model state-aware paths hardly depend on it: 0 to 8 end within 1.7 dB
    of each other up to B = 12, in no order.
    """
    slopes, weights = sums
    top = max(weights) or 1.0
    # Where the rollout has not erred yet there is nothing to learn: such steps take their neighbours' value.
    weights, slopes = weights / top, slopes / top
    smooth_weights = gaussian_filter1d(weights, smooth, mode="nearest")
    known = smooth_weights > 1e-12
    if not known.any():
        return np.zeros(len(sigmas) - 1)
    kappa = gaussian_filter1d(slopes, smooth, mode="nearest")[known] / smooth_weights[known]
    return np.interp(np.arange(len(sigmas) - 1), np.array(steps)[known], kappa)


def output_gains(sigmas: np.ndarray, kappa: np.ndarray) -> np.ndarray:
    """Growth float64 [N + 1] of an error made at step j until the end, prod_{i >= j} (1 + h_i kappa_i), at least 0.05."""
    growth = np.maximum(1 + np.diff(sigmas) * kappa, 0.05)
    return np.append(np.cumprod(growth[::-1])[::-1], 1.0)


def state_aware_paths(
    recorded: GramData,
    kappa: np.ndarray,
    budgets,
    ridge: float = RIDGE,
    beam: int = BEAM,
    tick: Callable[[], None] = lambda: None,
) -> dict[int, tuple]:
    """For each budget, compute steps whose *simulated* cached run ends nearest to the recorded one.

    Each partial path carries its error as coefficients on the recorded velocities; the velocity seen at an erring latent
    is d + kappa eps. Each segment's weights are fitted as `fitted` does. The best `beam` partial paths for each (count, step)
    survive, judged by the geometric mean over cases of the root mean squared error. `tick` is called for each count up to the
    largest budget.
    """
    steps, budgets = recorded.steps, list(budgets)
    top = max(check_budget(b, steps) for b in budgets)
    moves = recorded.travelled
    partial = [Partial.begin(steps)]
    paths = {}
    for count in range(1, top + 1):
        weights, scores = segment_scores(recorded, partial, ridge)
        ranking = np.argsort(scores, axis=0, kind="stable")
        if count in budgets:
            paths[count] = partial[ranking[0, steps]].path
        following = []
        for j in range(count, steps):
            for row in ranking[:beam, j]:
                if np.isinf(scores[row, j]):
                    break
                following.append(partial[row].extended(j, weights[row, j], moves, kappa[j]))
        partial = following
        tick()
    return paths


class Partial(NamedTuple):
    """The beginning of a schedule, and what its cached run is like at its last step.

    error: of the latent there, float64 [N]; history: the last evaluations, newest first, float64 [m, N]; both are
    coefficients on the recorded velocities.
    """

    path: tuple[int, ...]
    error: np.ndarray
    history: np.ndarray

    @staticmethod
    def begin(steps: int) -> Partial:
        """The first of `steps` steps, evaluated."""
        return Partial((0,), np.zeros(steps), np.eye(steps)[:1])

    def error_at(self, j: int, weights: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """The error [N] at step j after predicting with `weights` [m], displacements in units of the evaluations."""
        return self.error + weights @ self.history - (moves[j] - moves[self.path[-1]])

    def extended(self, j: int, weights: np.ndarray, moves: np.ndarray, kappa: float) -> Partial:
        """Predict up to step j with `weights`, and evaluate there."""
        error = self.error_at(j, weights, moves)
        seen = np.eye(len(error))[j] + kappa * error
        return Partial((*self.path, j), error, np.vstack([seen, self.history])[:HISTORY])


def segment_scores(recorded: GramData, partial: Sequence[Partial], ridge: float):
    """How far each of `partial` is from the recorded runs when it predicts up to each step j, all of equal length.

    Returns (weights, scores): float64 [n, N + 1, m] of the evaluations, as displacements, and float64 [n, N + 1], the mean
    over cases of the log of the mean squared error, inf where j does not come after the path's last step.
    """
    starts = np.array([p.path[-1] for p in partial])
    basis = np.stack([p.history for p in partial])
    # x_j - x_0 minus these is what a segment has to move by.
    offsets = recorded.travelled[starts] + np.stack([p.error for p in partial])
    prior = np.zeros((len(partial), recorded.steps + 1, basis.shape[1]))
    for row, (path, _, history) in enumerate(partial):
        past = recorded.sigmas[list(path[::-1][: len(history)])]
        prior[row, path[-1] + 1 :] = extrapolated_displacements(past, recorded.sigmas[path[-1] :], 1, PRIOR_DAMPING)
    products = recorded.products
    both = np.concatenate([basis, offsets[:, None]], axis=1)
    inner = both @ products.velocities[:, None] @ both.swapaxes(1, 2)  # [cases, n, m + 1, m + 1]
    ends = both @ products.mixed[:, None]  # [cases, n, m + 1, N + 1]
    moments = ends[:, :, :-1] - inner[:, :, :-1, -1:]
    squares = np.einsum("cjj->cj", products.latents)[:, None] - 2 * ends[:, :, -1] + inner[:, :, -1, -1:]
    grams = inner[:, :, :-1, :-1]
    fitted = solve_ridge(grams.sum(0), moments.sum(0).swapaxes(1, 2), prior, ridge)
    longer = np.arange(recorded.steps + 1) > starts[:, None] + 1  # a segment of length one has nothing to fit
    weights = np.where(longer[..., None], fitted, prior)
    errors = squares - 2 * (weights * moments.swapaxes(2, 3)).sum(-1) + ((weights @ grams) * weights).sum(-1)
    scores = np.log(np.maximum(errors, 1e-30)).mean(0)
    return weights, np.where(np.arange(recorded.steps + 1) > starts[:, None], scores, np.inf)
