"""How a skipped step's velocity is formed from the evaluations already made.

Every predictor here is linear in past evaluations.

* *Extrapolation* (hold, linear, quadratic): weights of the last evaluations at the skipped step's own sigma; see
  `schedules.extrapolation`. MeanCache's mean velocity is a recursion of the same sort.
* *Fitted multistep*: weights for the mean velocity u of the whole segment, from its compute step to the next, optionally
  for each band of a latent apart (`layout`: low and high spatial frequencies, sound). The compute step itself keeps the
  model's output v_k; the skipped steps follow the ramp v_k + (sigma - sigma_k) g whose slope g makes the Euler sum
  over the segment land where u does.

The ramp is why a schedule that computes every step changes nothing, bit for bit, whatever its weights.
"""

from itertools import pairwise

import numpy as np
import torch

from ..errors import NotFiniteError
from .layout import Layout, combine

RIDGE = 1e-4
LEAST_MOMENT = 0.25  # of Euler's: how far a sampler must move a latent along a ramp


def ramp_gain(sigmas: np.ndarray, moves: np.ndarray | None = None) -> float:
    """What turns (mean - velocity) into the slope of a ramp over one segment's grid `sigmas` [m + 1], m >= 2.

    moves: float64 [m], how far a unit velocity at each step moves the latent (`response.Response`); None for Euler's steps.
    """
    moves = landing_moves(sigmas, moves)
    return float(moves.sum() / (moves @ (sigmas[:-1] - sigmas[0])))


def landing_moves(sigmas: np.ndarray, moves: np.ndarray | None = None) -> np.ndarray:
    """`moves` float64 [m] of a segment's grid `sigmas` [m + 1], m >= 1, where a ramp can land a latent by them, else Euler's.

    Some samplers hardly move one in their last steps, or the other way.
    """
    offsets, euler = sigmas[:-1] - sigmas[0], np.diff(sigmas)
    if moves is None or -moves.sum() < LEAST_MOMENT * -euler.sum() or moves @ offsets < LEAST_MOMENT * (euler @ offsets):
        return euler
    return moves


def ramp_slope(mean, velocity, sigmas: np.ndarray, moves: np.ndarray | None = None):
    """Slope g such that velocity + (sigma - sigma_k) g sums over the segment `sigmas` [m + 1], m >= 2, to mean * h.

    `mean` and `velocity` are latent-shaped tensors (or arrays); so is the result. moves: as in `ramp_gain`.
    """
    return (mean - velocity) * ramp_gain(sigmas, moves)


def slope_weights(row, sigmas: np.ndarray, moves: np.ndarray | None = None, bands: int = 1) -> np.ndarray:
    """`ramp_slope` as weights float64 [bands, m] of the evaluations, newest first; `row` as in `mean_velocity`."""
    rows = np.array(row, dtype=np.float64).reshape(bands, -1)
    rows[:, 0] -= 1.0  # the velocity that the ramp starts from
    return rows * ramp_gain(sigmas, moves)


def mean_velocity_step(sigmas: np.ndarray, velocities):
    """MeanCache's velocity at one skipped step (arXiv 2601.19961), as its published code forms it.

    sigmas: float64 [K + 2], the K steps looked back on, the present one and the next; velocities: the K velocities before
    the present step, oldest first, predicted ones included, K >= 1. With the displacement form of the mean velocity,
    u = (x_i - x_{i-K}) / (sigma_i - sigma_{i-K}), it is v_{i-1} + (u - v_{i-K}) / (sigma_i - sigma_{i-K}) * h_i.
    For a velocity linear in sigma that derivative is half the difference quotient (v_{i-1} - v_{i-K}) / (...), which is
    why the two forms must not be confused.
    """
    sigmas = [float(sigma) for sigma in sigmas]
    span = sigmas[-2] - sigmas[0]
    reach = (sigmas[-1] - sigmas[-2]) / span
    weights = [(after - before) / span * reach for before, after in pairwise(sigmas[:-1])]
    weights[0] -= reach
    weights[-1] += 1
    return combine(weights, velocities)


def mean_velocity(row, velocities, bands: int = 1, layout: Layout | None = None):
    """Mean velocity of one segment from a row of fitted weights and the last evaluations [b, ...], newest first.

    row: m weights for each of `bands` bands; they are combined as in `combine_bands`.
    """
    m = len(row) // bands
    return combine_bands([row[band * m : (band + 1) * m] for band in range(bands)], velocities[:m], layout)


def combine_bands(rows, tensors, layout: Layout | None = None):
    """`combine` tensors [b, ...] with a row of weights for each band of `layout` (None: of a plain latent), or one for all.

    Rows for other bands than these latents have cannot be told apart: the first of them, those of the lowest, hold for all.
    """
    layout = layout or Layout([tensors[0].shape])
    if len(rows) == 1 or len(rows) != layout.bands or not layout.fits(tensors[0]):
        return combine(rows[0], tensors)
    return layout.combine(rows, tensors)


def fit_weights(
    basis, target, prior: np.ndarray, ridge: float = RIDGE, bands: int = 1, layout: Layout | None = None
) -> np.ndarray:
    """Ridge least squares for one segment: argmin_w |target - sum_j w_j basis_j|^2 + ridge tr/m |w - prior|^2, a band each.

    basis: m latent-shaped tensors [cases, ...] (evaluations, newest first); target: the mean velocity that lands on the
    recorded latent; prior: [m]; bands: 1 for one row, more for a row for each band of `layout` (None: of a plain latent).
    tr / m is the mean squared norm of the basis, which makes `ridge` dimensionless. Returns float64 [bands * m]. Raises
    `NotFiniteError` if anything is not finite.
    """
    vectors = torch.stack([*basis, target]).double()
    parts = [vectors]
    if bands > 1:
        parts = (layout or Layout([target.shape])).split(vectors.flatten(0, 1))  # every case's like one latent of a batch
    rows = []
    for part in parts:
        flat = part.reshape(len(vectors), -1)
        products = (flat @ flat[:-1].T).numpy(force=True)
        rows.append(solve_ridge(products[:-1], products[-1:], prior, ridge)[0])
    return np.concatenate(rows)


def solve_ridge(gram: np.ndarray, moments: np.ndarray, priors: np.ndarray, ridge: float) -> np.ndarray:
    """Weights float64 [..., J, m] that solve (gram + r I) w = moment + r prior with r = ridge * trace(gram) / m.

    gram: [..., m, m]; moments, priors: [..., J, m], J right-hand sides. Raises `NotFiniteError` if anything is not finite.
    """
    if not (np.isfinite(gram).all() and np.isfinite(moments).all()):
        raise NotFiniteError("A velocity is not finite (NaN or infinity), so that no weights fit; run in higher precision.")
    size = gram.shape[-1]
    strength = max(ridge, 1e-12) * np.trace(gram, axis1=-2, axis2=-1)[..., None, None] / size + np.finfo(float).tiny
    return np.linalg.solve(gram + strength * np.eye(size), (moments + strength * priors).swapaxes(-1, -2)).swapaxes(-1, -2)
