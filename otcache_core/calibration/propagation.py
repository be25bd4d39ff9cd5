"""Error propagation without the model: how an early error grows, and paths that take it into account.

The error of a cached latent obeys d eps / d sigma = J eps. One scalar a step stands for the Jacobian: the growth that
one cached rollout shows along the errors that caching really makes. With it a whole cached run can be simulated on the
recorded velocities, so the state-aware path (OptimalSteps' idea, arXiv 2503.21774) needs no model evaluations.
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ..sampling.predictors import RIDGE
from ..schedules.extrapolation import PRIOR_DAMPING, extrapolated_displacements
from ..schedules.schedule import HISTORY, check_budget
from .graph import Recorded, fitted_segments

BEAM = 4


def growth_rates(sigmas: np.ndarray, steps: Sequence[int], x, d, recorded_x, recorded_d, smooth: float = 2.0) -> np.ndarray:
    """kappa float64 [N]: d(sigma, x + eps) - d(sigma, x) is kappa eps along the errors of one cached rollout.

    steps: its compute steps [B]; x, d: lists of [cases, ...] latents and evaluations at them; recorded_x, recorded_d: the
    same of the full run. Least squares a step, smoothed over neighbouring compute steps by `smooth`, interpolated.
    """
    slopes, weights = [], []
    for ours, evaluated, latent, velocity in zip(x, d, recorded_x, recorded_d, strict=True):
        error = (ours - latent).flatten().double()
        slopes.append(float(error @ (evaluated - velocity).flatten().double()))
        weights.append(float(error @ error))
    top = max(weights) or 1.0
    # Where the rollout has not erred yet there is nothing to learn: such steps take their neighbours' value.
    weights = np.array(weights) / top
    slopes = np.array(slopes) / top
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
    recorded: Recorded, kappa: np.ndarray, budgets, order: int | None = None, ridge: float = RIDGE, beam: int = BEAM
) -> dict[int, tuple]:
    """For each budget, compute steps whose *simulated* cached run ends nearest to the recorded one.

    Each partial path carries its error as coefficients on the recorded velocities; the velocity seen at an erring latent
    is d + kappa eps. order None fits each segment's weights as `fitted` does, 0..2 extrapolates. The best `beam` partial
    paths for each (count, step) survive, judged by the geometric mean over cases of the root mean squared error.
    """
    steps, budgets = recorded.steps, list(budgets)
    top = max(check_budget(b, steps) for b in budgets)
    # A partial path: (score, compute steps, error coefficients [N], velocity coefficients of the last evaluations).
    state = {0: [(0.0, (0,), np.zeros(steps), [np.eye(steps)[0]])]}
    paths = {}
    for count in range(1, top + 1):
        found: dict[int, list] = {}
        for start, partial in state.items():
            for _, path, error, history in partial:
                errors = propagate(recorded, path, error, history, order, ridge)
                scores = np.log(np.maximum(recorded.mean_squares(errors), 1e-30)).mean(1)
                for j in range(start + 1, steps + 1):
                    found.setdefault(j, []).append((scores[j - start - 1], (*path, j), errors[j - start - 1], history))
        best = {j: sorted(entries, key=lambda entry: entry[0])[:beam] for j, entries in found.items()}
        if count in budgets:
            paths[count] = best[steps][0][1][:-1]
        state = {}
        for j, entries in best.items():
            if j < steps:
                seen = np.eye(steps)[j]
                state[j] = [(s, p, e, [seen + kappa[j] * e, *h][:HISTORY]) for s, p, e, h in entries]
    return paths


def propagate(recorded: Recorded, path, error, history, order: int | None, ridge: float) -> np.ndarray:
    """Error coefficients float64 [N - start, N] at every j after the path's last step, from its error [N] there."""
    start = path[-1]
    basis = np.stack(history)
    past = recorded.sigmas[list(path[::-1][: len(history)])]
    degree, damping = (1, PRIOR_DAMPING) if order is None else (order, 1.0)
    segments = extrapolated_displacements(past, recorded.sigmas[start:], degree, damping)
    target = recorded.displacements(start)
    if order is None:
        fitted = fitted_segments(recorded.grams, basis, target - error, segments, ridge)
        fitted[0] = segments[0]  # a segment of length one has nothing to fit
        segments = fitted
    return error + segments @ basis - target
