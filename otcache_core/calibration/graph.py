"""Budgeted shortest paths over compute steps, from recorded trajectories alone: no model evaluation.

Nodes are grid steps, an edge i -> j means "compute i, predict everything up to j". All costs are quadratic forms in the
Gram matrices of the recorded velocities (`trajectory.gram_matrices`): a predictor's error on an edge is a combination of
recorded velocities. So nothing here depends on the latent's size, and an edge takes a few numbers of each matrix.

Sources: peak-suppressed shortest path, MeanCache (arXiv 2601.19961); lexicographic minimax, LeMiCa (2511.00090);
conditioning on the previous compute step, DPCache (2602.22654); propagating the cached state, OptimalSteps (2503.21774).
"""

import math
from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np

from ..errors import OTCacheError
from ..sampling.predictors import RIDGE, mean_velocity_step, solve_ridge
from ..schedules.extrapolation import ORDERS, PRIOR_DAMPING, extrapolated_displacements
from ..schedules.schedule import HISTORY, Predictor, check_budget
from .inner_products import GramData

SPANS = range(7)

Costs = Sequence[np.ndarray]
"""Costs of all edges: for each start, float64 [max(start, 1), N - start] over the previous compute step (0 at start 0) and j =
start + 1..N. These are all edges that exist, a sixth of [N, N, N + 1], which at N = 1000 would take 8 GB."""


def history_of(start: int, previous: int | None) -> list[int]:
    """Compute steps that a predictor at `start` sees, newest first.

    Beyond `previous` the same gap is assumed again, since an edge knows no earlier step.
    """
    if start == 0 or previous is None:
        return [start]
    gap = start - previous
    return [step for step in (start, previous, previous - gap)[:HISTORY] if step >= 0]


def edge_errors(
    recorded: GramData, start: int, previous: int | None, predictor: Predictor, span: int = 0, ridge: float = RIDGE
) -> np.ndarray:
    """Mean squared displacement error float64 [N - start, cases] of the edges start -> j, on the recorded trajectory.

    `span` is the lookback of "mean_velocity"; "fitted" is fitted to each edge by itself.
    """
    if predictor.kind == "mean_velocity":
        return recorded.mean_squares(recorded.displacements(start) - mean_velocity_segments(recorded, start, span))
    return history_errors(recorded, start, np.array([history_of(start, previous)]), predictor, ridge)[0]


def history_errors(recorded: GramData, start: int, histories: np.ndarray, predictor: Predictor, ridge: float) -> np.ndarray:
    """`edge_errors` float64 [histories, N - start, cases] for each row of `histories` [histories, m], newest step first.

    All of them at once: a graph of 50 steps has 1226, and one by one they take several times as long.
    """
    fitted = predictor.kind == "fitted"
    order, damping = (1, PRIOR_DAMPING) if fitted else (ORDERS[predictor.kind], predictor.damping)
    weights = extrapolated_displacements(recorded.sigmas[histories], recorded.sigmas[start:], order, damping)
    total = 0.0
    for products in recorded.band_products if fitted and predictor.bands > 1 else [recorded.products]:
        basis, moments, squares = products.of_segments(start, histories)
        moments = moments.swapaxes(-1, -2)
        used = solve_ridge(basis.sum(0), moments.sum(0), weights, ridge) if fitted else weights  # over all cases at once
        errors = ((used @ basis - 2 * moments) * used).sum(-1) + squares[:, None]
        errors[..., 0] *= not fitted  # an edge of length one computes its only step
        total = total + np.maximum(errors, 0.0)
    return np.moveaxis(total, 0, -1)


def mean_velocity_segments(recorded: GramData, start: int, span: int) -> np.ndarray:
    """Displacements float64 [N - start, N] that MeanCache's mean velocity with lookback `span` makes (0 and 1 hold)."""
    rows = list(np.eye(recorded.steps)[: start + 1])
    for step in range(start + 1, recorded.steps):
        back = min(span, step)
        held = back < 2
        rows.append(rows[-1] if held else mean_velocity_step(recorded.sigmas[step - back : step + 2], rows[step - back :]))
    return np.cumsum(np.diff(recorded.sigmas)[start:, None] * rows[start:], axis=0)


def edge_costs(
    recorded: GramData,
    predictor: Predictor,
    conditioned: bool = True,
    ridge: float = RIDGE,
    tick: Callable[[], None] = lambda: None,
):
    """Costs of all edges, root mean square over cases and elements, in units of the latent.

    Returns (costs, spans): `Costs`, and int [N, N + 1], the best lookback of each edge for "mean_velocity", else zeros.
    Unconditioned costs assume the coming gap as the previous one. `tick` is called before each of the N starts.
    """
    steps = recorded.steps
    costs = []
    spans = np.zeros((steps, steps + 1), dtype=int)
    for start in range(steps):
        tick()
        shape = max(start, 1), steps - start
        if predictor.kind == "mean_velocity":
            errors = [edge_errors(recorded, start, None, predictor, span).mean(1) for span in SPANS if span <= start]
            spans[start, start + 1 :] = np.argmin(errors, axis=0)
            costs.append(np.broadcast_to(np.sqrt(np.min(errors, axis=0)), shape))
            continue
        by_previous = np.sqrt(np.concatenate([
            history_errors(recorded, start, np.array(list(histories)), predictor, ridge).mean(-1)
            for _, histories in groupby((history_of(start, p) for p in range(shape[0])), key=len)
        ]))  # fmt: skip
        if not conditioned:
            ends = np.arange(start + 1, steps + 1)
            assumed = np.maximum(2 * start - ends, 0)
            by_previous = np.broadcast_to(by_previous[assumed, ends - start - 1], shape)
        costs.append(by_previous)
    return costs, spans


def peak_suppressed_paths(costs: Costs, budgets, gamma: float = 4.0, gains: np.ndarray | None = None) -> dict[int, tuple]:
    """For each budget B, the B compute steps that minimise sum over edges of (gains[j] * cost)^gamma.

    gains: float64 [N + 1], the growth of an error from step j to the end (None for ones). Exact by dynamic programming over
    (previous, start), O(B N^3). Raises `OTCacheError` for a budget out of range.
    """
    steps, budgets = len(costs), list(budgets)
    top = max(check_budget(b, steps) for b in budgets)
    if gamma < 1:
        raise OTCacheError(f"gamma is {gamma}, but must be at least 1; 4 is a good choice.")
    gains = np.ones(steps + 1) if gains is None else gains
    weighted = [edges * gains[start + 1 :] for start, edges in enumerate(costs)]
    scale = max(edges.max() for edges in weighted) or 1.0  # so that high powers neither vanish nor overflow
    powers = [(edges / scale) ** gamma for edges in weighted]
    value = np.full((steps, steps), np.inf)
    value[0, 0] = 0.0
    paths, parents = {}, []
    for count in range(1, top + 1):
        if count in budgets:
            ended = np.full((steps, steps), np.inf)
            for start, edges in enumerate(powers):
                ended[: len(edges), start] = value[: len(edges), start] + edges[:, -1]
            previous, start = np.unravel_index(np.argmin(ended), ended.shape)
            path = [int(start)]
            for parent in reversed(parents):
                path.append(int(previous))
                previous, start = parent[previous, start], previous
            paths[count] = tuple(reversed(path))
        # Next state is (start, j): the best `previous` is forgotten after it has been noted.
        following, parent = np.full((steps, steps), np.inf), np.zeros((steps, steps), dtype=np.int16)
        for start in range(count - 1, steps - 1):
            total = value[: len(powers[start]), start, None] + powers[start][:, :-1]
            parent[start, start + 1 :] = np.argmin(total, axis=0)
            following[start, start + 1 :] = np.min(total, axis=0)
        parents.append(parent)
        value = following
    return paths


def minimax_paths(costs: Costs, budgets) -> dict[int, tuple]:
    """For each budget, the path whose falling list of edge costs is lexicographically smallest (LeMiCa), exact.

    costs: first-order, with the same value for every `previous`. Adding one edge keeps the order of two sorted lists, so
    dynamic programming over (count, step) is exact.
    """
    steps, budgets = len(costs), list(budgets)
    top = max(check_budget(b, steps) for b in budgets)
    edges = np.full((steps, steps + 1), np.inf)
    for start, by_previous in enumerate(costs):
        edges[start, start + 1 :] = by_previous[0]
    peaks = {0: np.empty(0)}  # the falling list of the best path to each step, and that path
    routes = {0: (0,)}
    paths = {}
    for count in range(1, top + 1):
        starts, ends = list(routes), range(count, steps + 1)
        best = lexicographic_best(np.stack([peaks[start] for start in starts]), edges[starts, count:])
        chosen = dict(zip(ends, (starts[row] for row in best), strict=True))
        if count in budgets:
            paths[count] = routes[chosen[steps]]
        peaks = {j: np.sort(np.append(peaks[i], edges[i, j]))[::-1] for j, i in chosen.items() if j < steps}
        routes = {j: (*routes[i], j) for j, i in chosen.items() if j < steps}
    return paths


def lexicographic_best(peaks: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """For each end j, the row whose falling list `peaks` [rows, k] with edges[row, j] put in is the smallest, int [ends].

    Place p of the list with e put in is the middle one of peaks[p - 1], e and peaks[p], so no list has to be made.
    """
    rows, length = peaks.shape
    bounds = np.hstack([np.full((rows, 1), np.inf), peaks, np.full((rows, 1), -np.inf)])
    alive = np.ones(edges.shape, dtype=bool)
    for place in range(length + 1):
        entries = np.clip(edges, bounds[:, place + 1, None], bounds[:, place, None])
        entries = np.where(alive, entries, np.inf)
        alive &= entries == entries.min(axis=0)
        if (alive.sum(axis=0) == 1).all():
            break
    return alive.argmax(axis=0)


def path_cost(costs: Costs, compute_steps) -> float:
    """Root of the summed squared edge costs of a path."""
    edges = zip((0, *compute_steps[:-1]), compute_steps, (*compute_steps[1:], len(costs)), strict=True)
    return math.sqrt(sum(costs[start][previous, j - start - 1] ** 2 for previous, start, j in edges))


def cheapest_neighbours(costs: Costs, compute_steps, count: int, reach: int = 2) -> list[tuple[int, ...]]:
    """The `count` schedules of least path cost among those that shift one step of `compute_steps` by up to `reach`."""
    steps, path = len(costs), tuple(compute_steps)
    found = set()
    for k in range(1, len(path)):
        for shift in range(-reach, reach + 1):
            moved = path[k] + shift
            if path[k - 1] < moved < (*path, steps)[k + 1]:
                found.add((*path[:k], moved, *path[k + 1 :]))
    return sorted(found - {path}, key=lambda candidate: path_cost(costs, candidate))[:count]
