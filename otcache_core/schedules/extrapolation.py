"""Extrapolation from evaluations on an uneven grid, as weights: Newton's divided-difference polynomial.

Plain numbers of the grid alone; `sampling.predictors` applies them to latents.
"""

import numpy as np

from .schedule import HISTORY

ORDERS = {"hold": 0, "linear": 1, "quadratic": 2}  # of the predictors that extrapolate
PRIOR_DAMPING = 0.5  # what fitted weights are pulled to: linear extrapolation, half of it


def divided_differences(past: np.ndarray) -> np.ndarray:
    """Newton's divided differences of order 0..m - 1 at `past` [..., m] (newest first), float64 rows [..., m, m]."""
    count = past.shape[-1]
    rows = np.zeros((*past.shape, count))
    rows[..., range(count), range(count)] = 1.0
    for order in range(1, count):
        for i in range(count - 1, order - 1, -1):
            rows[..., i, :] = (rows[..., i, :] - rows[..., i - 1, :]) / (past[..., i] - past[..., i - order])[..., None]
    return rows


def extrapolation_weights(past: np.ndarray, sigmas, order: int, damping: float = 1.0) -> np.ndarray:
    """Weights float64 [..., m] of the evaluations at `past` that predict the velocity at `sigmas` [...].

    past: [m] or [..., m], newest first, other axes broadcast against those of `sigmas`. order 0 holds, 1 is linear, 2
    quadratic in sigma; fewer evaluations lower the order. `damping` scales all but hold.
    """
    rows = divided_differences(past)
    offsets = np.asarray(sigmas, dtype=np.float64)[..., None] - past
    weights = np.broadcast_to(rows[..., 0, :], offsets.shape).copy()
    for k in range(1, min(order, past.shape[-1] - 1) + 1):
        weights += damping * np.prod(offsets[..., :k], axis=-1)[..., None] * rows[..., k, :]
    return weights


def extrapolated_displacements(past: np.ndarray, sigmas: np.ndarray, order: int, damping: float = 1.0) -> np.ndarray:
    """Displacement float64 [..., M, m] up to each grid point of `sigmas` [M + 1] after the first, in units of each evaluation.

    past: [..., m], newest first. The first of `sigmas` is the compute step past[..., 0], where extrapolation of any order
    gives its own evaluation.
    """
    weights = extrapolation_weights(past[..., None, :], sigmas[:-1], order, damping)
    return np.cumsum(np.diff(sigmas)[:, None] * weights, axis=-2)


def extrapolated_mean_weights(past: np.ndarray, sigmas: np.ndarray, order: int, damping: float = 1.0) -> np.ndarray:
    """The same as weights float64 [m] of the mean velocity over the segment's whole grid `sigmas` [M + 1]."""
    return extrapolated_displacements(past, sigmas, order, damping)[-1] / (sigmas[-1] - sigmas[0])


def prior_weights(past: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """What a fitted segment falls back to: damped linear extrapolation as a segment mean, float64 [<= HISTORY]."""
    return extrapolated_mean_weights(past[:HISTORY], sigmas, order=1, damping=PRIOR_DAMPING)
