"""Peers' methods, written by us from their papers' formulas for the proof; no code of theirs is here.

Those that are a rule for the even budget (TaylorSeer, Spectrum, FSampler, MagCache) are in `otcache_core/commands/rivals.py`,
MeanCache's graph and LeMiCa's minimax in `otcache_core/calibration/graph.py`; here is what needs the model or a recorded run.
Theirs cache features or residuals inside the network; here each works on velocities d = dx / dsigma, so that steps and
predictions are compared and not places in a network. `steps` are compute steps of N, rising, the first is 0.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.polynomial import Polynomial
from torch import Tensor

from otcache_core.calibration.graph import Costs, minimax_paths
from otcache_core.calibration.inner_products import recorded
from otcache_core.commands.annealing import relocate
from otcache_core.sampling.trajectory import Trajectory

# evaluate(x, sigma): velocities of the latents x [n, *latent], all of one prompt, at one noise level.
Evaluate = Callable[[Tensor, float], Tensor]

TEA_DEGREE = 4
FORCED = 3  # DPCache's first steps, all computed
SPANS = (2, 4, 8, 16, 24)  # LeMiCa's segments that are measured; others lie between these
HOT, COLD, ANNEALED = 0.05, 1e-5, 200  # BudCache's temperatures and moves
ROUNDS, NEAR, JUMPS = 20, 3, 2  # of its hill climbing


def relative_changes(values: Tensor) -> np.ndarray:
    """|v_t - v_(t-1)|_1 / |v_(t-1)|_1 of values [N, ...], float64 [N - 1]: TeaCache's L1 distance (its equation 4)."""
    flat = values.double().flatten(1)
    return ((flat[1:] - flat[:-1]).abs().sum(1) / flat[:-1].abs().sum(1)).numpy(force=True)


def tea_changes(runs: Sequence[Trajectory]) -> np.ndarray:
    """TeaCache's (arXiv 2411.19108) estimated change of the output at each step, float64 [N], 0 at the first.

    A polynomial of degree 4 is fitted from the change of the network's input to that of its output (its section 3.3), here of
    the recorded latents and velocities, and evaluated at the mean change of the input. The papers' input is modulated by
    the time embedding inside the network; online decisions see one picture more and differ little.
    """
    inputs = np.array([relative_changes(run.x[:-1]) for run in runs])
    outputs = np.array([relative_changes(run.d) for run in runs])
    fitted = Polynomial.fit(inputs.ravel(), outputs.ravel(), TEA_DEGREE)
    return np.insert(np.maximum(fitted(inputs.mean(0)), 0.0), 0, 0.0)


def tea_steps(changes: np.ndarray, threshold: float) -> tuple[int, ...]:
    """TeaCache's compute steps: one is skipped while the changes since the last computed step add up to less than `threshold`
    (its equation 7); the first and the last are computed."""
    chosen, total = [0], 0.0
    for step in range(1, len(changes)):
        total += changes[step]
        if total >= threshold or step == len(changes) - 1:
            chosen.append(step)
            total = 0.0
    return tuple(chosen)


def tea_schedule(changes: np.ndarray, budget: int) -> tuple[int, ...]:
    """`tea_steps` of the least threshold that makes no more than `budget` evaluations, at least 2."""
    thresholds = np.append(np.geomspace(1e-4, 1.0, 400) * changes.sum(), np.inf)
    return next(found for threshold in thresholds if len(found := tea_steps(changes, threshold)) <= max(budget, 2))


def outcome_costs(evaluate: Evaluate, run: Trajectory, spans: Sequence[int] = SPANS) -> Costs:
    """LeMiCa's (arXiv 2511.00090) global error of each segment i -> j: mean |x_N' - x_N| float64, for `minimax_paths`.

    x' holds the velocity of i up to j and runs in full from there, so what one segment does to the finished latent is
    measured. Segments of the lengths `spans` are; others are interpolated in the logarithm, longer ones cost infinitely much.
    """
    steps, sigmas = len(run.d), run.sigmas
    costs = np.full((steps, steps + 1), np.nan)
    costs[range(steps), range(1, steps + 1)] = 0.0
    starts, states = [], run.x.new_empty(0, *run.x.shape[1:])
    for step in range(1, steps + 1):
        if len(states):
            states = states + evaluate(states, float(sigmas[step - 1])) * float(sigmas[step] - sigmas[step - 1])
        fresh = [step - span for span in spans if span <= step]
        held = [run.x[i] + run.d[i] * float(sigmas[step] - sigmas[i]) for i in fresh]
        starts += [(i, step) for i in fresh]
        states = torch.cat([states, *(x[None] for x in held)])
    errors = (states - run.x[-1]).double().abs().flatten(1).mean(1).numpy(force=True)
    for (start, end), error in zip(starts, errors, strict=True):
        costs[start, end] = error
    return [between_measured(costs[start, start + 1 :])[None].repeat(max(start, 1), 0) for start in range(steps)]


def between_measured(costs: np.ndarray) -> np.ndarray:
    """One start's costs by segment length 1, 2, ..., gaps (nan) filled in the logarithm over the logarithm of the length."""
    lengths = np.arange(1, len(costs) + 1)
    known = ~np.isnan(costs) & (lengths > 1)
    filled = np.where(lengths > lengths[known][-1] if known.any() else lengths > 1, np.inf, 0.0)
    inside = (lengths > 1) & np.isfinite(filled)
    if known.any():
        logs = np.log(np.maximum(costs[known], 1e-12))
        filled[inside] = np.exp(np.interp(np.log(lengths[inside]), np.log(lengths[known]), logs))
    return filled


def lemica_steps(costs: Costs, budget: int) -> tuple[int, ...]:
    """The steps whose falling list of segment costs is lexicographically smallest."""
    return minimax_paths(costs, [budget])[budget]


def path_aware_costs(runs: Sequence[Trajectory]) -> np.ndarray:
    """DPCache's (arXiv 2602.22654) cost of predicting from j to k where i was computed before, float64 [N, N, N + 1].

    The sum over the steps between of the relative error of the first-order Taylor forecast from i and j, which is a quadratic
    form in the inner products of recorded velocities; a mean over runs. Infinite unless i < j < k (i = j = 0 at the start,
    which holds).
    """
    seen = recorded(runs)
    steps, grams = seen.steps, seen.grams
    norms = np.sqrt(np.diagonal(grams, axis1=1, axis2=2))  # [cases, N]
    costs = np.full((steps, steps, steps + 1), np.inf)
    for j in range(steps):
        ahead = np.arange(j + 1, steps)
        for i in range(max(j, 1)):
            slope = (ahead - j) / (j - i) if j else np.zeros(len(ahead))
            weights = np.zeros((len(ahead), steps))
            weights[:, j] += 1 + slope
            weights[:, i] -= slope
            weights[range(len(ahead)), ahead] -= 1
            squares = np.einsum("ts,csu,tu->ct", weights, grams, weights).clip(0)
            errors = (np.sqrt(squares) / norms[:, ahead]).mean(0)
            costs[i, j, j + 1 :] = np.append(0.0, np.cumsum(errors))
    return costs


def dpcache_steps(costs: np.ndarray, budget: int) -> tuple[int, ...]:
    """D[m, k] = min_j D[m - 1, j] + C[P[m - 1, j], j, k], where P is j's best predecessor; the first three steps computed."""
    steps = costs.shape[1]
    first = tuple(range(min(FORCED, budget)))
    routes = {first[-1]: (0.0, first)}  # by the last computed step: cost so far and all computed steps
    for _ in range(budget - len(first)):
        following = {}
        for k in range(first[-1] + 1, steps):
            options = [(spent + costs[path[-2], j, k], (*path, k)) for j, (spent, path) in routes.items() if j < k]
            if options:
                following[k] = min(options)
        routes = following
    return min((spent + costs[path[-2] if len(path) > 1 else 0, j, steps], path) for j, (spent, path) in routes.items())[1]


def held_final(evaluate: Evaluate, start: Tensor, sigmas: np.ndarray, steps: Sequence[int]) -> Tensor:
    """The final latents [n, *latent] of Euler's run from `start` whose velocity is held between compute steps."""
    x = start
    for now, then in pairwise((*steps, len(sigmas) - 1)):
        x = x + evaluate(x, float(sigmas[now])) * float(sigmas[then] - sigmas[now])
    return x


class CallsSpent(Exception):
    """An objective was called as often as it may."""


def budcache_steps(
    objective: Callable[[tuple[int, ...]], float], budget: int, steps: int, calls: int, seed: int = 0
) -> tuple[int, ...]:
    """BudCache's (arXiv 2606.13496) steps: simulated annealing over masks, then steepest hill climbing.

    objective: mean squared error of the final latent; asked `calls` times at the most, what is known costs nothing. It begins
    with B // 4 steps computed (at least one) and the others at random; a move relocates one step, one in ten two; the
    temperature falls geometrically. Climbing looks at every relocation by up to three steps and two random ones a step.
    """
    rng, known = np.random.default_rng(seed), {}

    def score(mask: tuple[int, ...]) -> float:
        if mask not in known:
            if len(known) >= calls:
                raise CallsSpent
            known[mask] = objective(mask)
        return known[mask]

    forced = max(1, budget // 4)
    later = forced + rng.choice(steps - forced, budget - forced, replace=False)
    try:
        current = tuple(sorted((*range(forced), *map(int, later))))
        value = score(current)
        for temperature in np.geomspace(HOT, COLD, min(ANNEALED, calls)):
            move = relocate(current, steps, rng)
            if rng.random() < 0.1:
                move = relocate(move, steps, rng)
            proposed = score(move)
            if proposed < value or rng.random() < np.exp((value - proposed) / temperature):
                current, value = move, proposed
        current = min(known, key=known.get)
        for _ in range(ROUNDS):
            best = min(neighbours(current, steps, rng), key=score, default=current)
            if score(best) >= score(current):
                break
            current = best
    except CallsSpent:
        pass
    return min(known, key=known.get)


def neighbours(mask: tuple[int, ...], steps: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Masks that differ from `mask` by one step but the first: moved by up to three, or to one of two random free places."""
    free, found = sorted(set(range(1, steps)) - set(mask)), []
    for leaving in mask[1:]:
        near = [place for place in free if abs(place - leaving) <= NEAR]
        jumps = rng.choice(free, min(JUMPS, len(free)), replace=False) if free else []
        found += [tuple(sorted({*mask, int(place)} - {leaving})) for place in (*near, *jumps)]
    return list(dict.fromkeys(found))
