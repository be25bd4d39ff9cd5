"""Schedules as measures on the line: quantile functions, Wasserstein geodesic, rounding to distinct steps.

A schedule with B compute steps is read as the quantile function Q with Q(k / B) = t_k, where t_k is the normalised
trajectory time of its k-th compute step and Q(1) = 1 is the end of the run. In one dimension the Wasserstein geodesic
between two measures is the straight line between their quantile functions (Peyre and Cuturi, Computational Optimal
Transport, Remark 2.30), so piecewise linear quantile functions stay piecewise linear along it and nothing is approximated.
"""

from dataclasses import dataclass
from math import log

import numpy as np

from ..errors import OTCacheError
from .schedule import check_budget, trajectory_time


@dataclass(frozen=True)
class Warp:
    """Piecewise linear quantile function through the knots (u, t), float64 [m] each, both from 0 to 1, monotone."""

    u: np.ndarray
    t: np.ndarray

    def __call__(self, u) -> np.ndarray:
        return np.interp(u, self.u, self.t)


def quantile_function(compute_steps, sigmas) -> Warp:
    """The warp of a schedule: knots (k / B, time of compute step k) and (1, 1)."""
    steps = list(compute_steps)
    t = trajectory_time(sigmas)
    return Warp(np.arange(len(steps) + 1) / len(steps), np.append(t[steps], 1.0))


def geodesic(start: Warp, end: Warp, lam: float) -> Warp:
    """The point at fraction `lam` on the Wasserstein geodesic: (1 - lam) Q_start + lam Q_end (McCann interpolation).

    `lam` outside [0, 1] extrapolates; knots are then made monotone by a running maximum.
    """
    u = np.union1d(start.u, end.u)
    t = (1 - lam) * start(u) + lam * end(u)
    return Warp(u, np.clip(np.maximum.accumulate(t), 0.0, 1.0))


def wasserstein(a: Warp, b: Warp, p: float = 2.0) -> float:
    """W_p = (integral over u of |Q_a - Q_b|^p)^(1/p), exact for piecewise linear warps; p >= 1."""
    u = np.union1d(a.u, b.u)
    gap = a(u) - b(u)
    left, right, width = gap[:-1], gap[1:], np.diff(u)

    def antiderivative(x):
        return np.sign(x) * np.abs(x) ** (p + 1) / (p + 1)

    slope = right - left
    flat = np.abs(slope) < 1e-12
    mean = np.where(
        flat,
        np.abs((left + right) / 2) ** p,
        (antiderivative(right) - antiderivative(left)) / np.where(flat, 1.0, slope),
    )
    return float(np.sum(mean * width) ** (1 / p))


def round_to_steps(times, sigmas) -> tuple[int, ...]:
    """The distinct steps nearest to `times`: exact minimiser of sum_k (t[i_k] - times[k])^2 with 0 = i_0 < i_1 < ...

    times: rising trajectory times [B] in [0, 1]. By dynamic programming in O(B N), exact on any sigma grid (isotonic
    regression is exact on even ones only). Raises `OTCacheError` if B exceeds the grid's N steps.
    """
    times = np.asarray(times, dtype=np.float64)
    grid = trajectory_time(sigmas)[:-1]
    check_budget(len(times), len(grid))
    cost = np.full(len(grid), np.inf)
    cost[0] = 0.0
    choices = []
    for time in times[1:]:
        best = np.minimum.accumulate(cost)
        # The latest step that attains the running minimum before i.
        argbest = np.maximum.accumulate(np.where(cost == best, np.arange(len(cost)), 0))
        cost = np.append(np.inf, best[:-1]) + (grid - time) ** 2
        choices.append(np.append(0, argbest[:-1]))
    steps = [int(np.argmin(cost))]
    for choice in reversed(choices):
        steps.append(int(choice[steps[-1]]))
    return tuple(reversed(steps))


def steps_at_budget(warp: Warp, budget: int, sigmas) -> tuple[int, ...]:
    """Read B compute steps off a warp: Q(k / B) for k = 0..B - 1, rounded to distinct steps of the grid."""
    return round_to_steps(warp(np.arange(budget) / budget), sigmas)


def budget_to_lambda(budget: float, anchor: int, reference: int) -> float:
    """Position of `budget` on the geodesic from anchor (0) to reference (1): gaps between steps change by equal ratios.

    Raises `OTCacheError` when anchor >= reference.
    """
    if anchor >= reference:
        raise OTCacheError(f"The anchor's budget {anchor} must be below the reference's budget {reference}; raise the latter.")
    return (log(budget) - log(anchor)) / (log(reference) - log(anchor))


def steps_on_geodesic(anchor, reference, sigmas, budget: int, lam: float) -> tuple[int, ...]:
    """The B = `budget` compute steps at point `lam` of the geodesic between two schedules' compute steps."""
    warp = geodesic(quantile_function(anchor, sigmas), quantile_function(reference, sigmas), lam)
    return steps_at_budget(warp, budget, sigmas)


def interpolate(anchor, reference, sigmas, budget: int) -> tuple[int, ...]:
    """The compute steps that the geodesic from anchor to reference has at `budget`.

    Beyond the reference's budget its warp is only resampled; below the anchor's the geodesic is extended.
    """
    lam = min(budget_to_lambda(budget, len(anchor), len(reference)), 1.0)
    return steps_on_geodesic(anchor, reference, sigmas, budget, lam)
