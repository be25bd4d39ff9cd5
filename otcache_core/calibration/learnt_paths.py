"""The compute steps of a run on its own grid, from inner products recorded on another: a graph, solved and moved by sigma."""

from functools import partial
from math import ceil

import numpy as np

from ..sampling.rollout import FITTED
from ..schedules.transport import quantile_function, round_to_steps, steps_at_budget
from .fit_or_hold import expected_errors
from .graph import edge_costs, peak_suppressed_paths
from .inner_products import GramData
from .ladder import FEW_STEPS
from .statistics import Statistics

GAMMA, GAMMA_PLAIN = 8.0, 4.0  # how strongly the graph avoids single large errors, with and without the gains below
TAKEN_BACK = 0.5  # the share of an error made at the first sigma that later evaluations take back
SHORT_GAPS = 2.5  # steps an evaluation: up to here nothing is taken back (measured)
REST = 0.75  # of a distance: what even steps leave after the last
ASTRAY, CLOSE = (0.56, 0.75), (0.28, 1.8)  # expected relative errors, and the power of `spread_steps` there (measured)
EDGE = 1e-3  # relative: how far a run may lie beyond what was recorded


def steps_on(statistics: Statistics, grid: np.ndarray, budget: int) -> tuple[int, ...]:
    """The graph's `budget` compute steps for a run on `grid` [M + 1] inside the recorded range.

    Solved on the recorded grid, whose points lie closest, and moved to the run's by sigma. For more evaluations than it has
    room for: on the run's own grid, or where that is finer, the path with the most room there is read at more quantiles.
    (Between recorded points velocities are known on straight lines only, where extrapolation looks perfect.)
    """
    steps = len(grid) - 1
    if budget == steps:
        return tuple(range(steps))
    if statistics.held and steps <= FEW_STEPS:
        return spread_steps(budget, steps, spread(statistics, budget))
    inner = within(statistics.recorded, grid)
    solved = partial(graph_paths, statistics.held, whole=inner.sigmas[0] == statistics.sigmas[0])
    room = inner.steps // 2
    if budget > room and steps > inner.steps:
        known = quantile_function(solved(inner, room)[room], inner.sigmas) if room else quantile_function((0,), grid)
        return steps_at_budget(known, budget, grid)
    if budget > room:
        inner = at_sigmas(statistics.recorded, grid)
    path = solved(inner, budget)[budget]
    if np.array_equal(inner.sigmas, grid):
        return path
    wanted = np.append(grid[0], np.minimum(inner.sigmas[list(path[1:])], grid[0]))
    return round_to_steps((grid[0] - np.maximum(wanted, grid[-1])) / (grid[0] - grid[-1]), grid)


def paths(statistics: Statistics, most: int) -> dict[int, tuple[int, ...]]:
    """The path on the recorded grid at every budget up to `most`: the graph's, or spread steps where noise is added to few."""
    steps, budgets = statistics.steps, range(1, most + 1)
    if statistics.held and steps <= FEW_STEPS:
        return {budget: spread_steps(budget, steps, spread(statistics, budget)) for budget in budgets}
    return graph_paths(statistics.held, statistics.recorded, most, whole=True)


def graph_paths(held: bool, recorded: GramData, most: int, whole: bool) -> dict[int, tuple[int, ...]]:
    """`held_paths` where denoised latents are held, else `fitted_paths`."""
    return held_paths(recorded, most) if held else fitted_paths(recorded, most, whole)


def spread_steps(budget: int, steps: int, power: float = 1.0) -> tuple[int, ...]:
    """`budget` of N = `steps`, the last three quarters of an even distance before the end.

    power: above 1 they lie closer at the beginning, below at the end. Where noise is added and steps are few they are better
    than the graph's, which knows one run's noise too well.
    """
    last = steps - REST * steps / budget
    chosen = [round(last * (number / max(budget - 1, 1)) ** power) for number in range(budget)]
    for number in range(1, budget):
        chosen[number] = max(chosen[number], chosen[number - 1] + 1)
    return tuple(min(step, steps - budget + number) for number, step in enumerate(chosen))


def spread(statistics: Statistics, budget: int) -> float:
    """The power of `spread_steps` that suits what rehearsals of even steps came to, 1 where there were none.

    A run that stays near the full one keeps what its first evaluations decide, and these are where denoised latents change
    most. One that goes astray is another picture soon, whatever its beginning: its last evaluations, with the full run's own
    noise, bring it back. (Telling it from which of two rehearsals came nearer was tried: it chose wrongly about as often as
    rightly.)
    """
    found = expected_errors(statistics.errors, [budget])
    if not found:
        return 1.0
    (far, late), (near, early) = ASTRAY, CLOSE
    share = np.log(max(found[budget], near) / far) / np.log(near / far)
    return float(late + max(share, 0.0) * (early - late))


def held_paths(denoised: GramData, most: int) -> dict[int, tuple[int, ...]]:
    """Paths for held denoised latents, from the inner products of recorded ones.

    A held one differs from the model's by D_i - D_k at step i, which moves the latent by h_i / sigma_i times that; norms are
    added. Sums, not high powers: where noise is added, later evaluations mend what was wrong (measured).
    """
    grams, steps, sigmas = denoised.grams.sum(0), denoised.steps, denoised.sigmas
    squares = np.diagonal(grams)
    apart = np.sqrt(np.maximum(squares[:, None] + squares - 2 * grams, 0.0)) * (-np.diff(sigmas) / sigmas[:-1])
    held = [np.insert(np.cumsum(apart[start, start + 1 :]), 0, 0.0) for start in range(steps)]
    costs = [np.broadcast_to(edges, (max(start, 1), len(edges))) for start, edges in enumerate(held)]
    return peak_suppressed_paths(costs, range(1, most + 1), gamma=1.0)


def fitted_paths(recorded: GramData, most: int, whole: bool) -> dict[int, tuple[int, ...]]:
    """Paths for fitted weights at every budget up to `most`; whole: whether the run begins where the recorded ones did.

    Then an error that is made in noise counts less: later evaluations take a part of it back, the more the noisier, unless
    gaps are short. Runs that begin in the middle, with a single evaluation to predict from, and those of few steps lose by
    that (measured).
    """
    costs, budgets = edge_costs(recorded, FITTED)[0], range(1, most + 1)
    if not whole or recorded.steps <= FEW_STEPS:
        return peak_suppressed_paths(costs, budgets, GAMMA_PLAIN)
    short = range(min(ceil(recorded.steps / SHORT_GAPS), most + 1), most + 1)
    found = peak_suppressed_paths(costs, short, GAMMA) if short else {}
    gains = 1 - TAKEN_BACK * recorded.sigmas / recorded.sigmas[0]
    return peak_suppressed_paths(costs, range(1, most + 1 - len(short)), GAMMA, gains) | found


def within(recorded: GramData, grid: np.ndarray) -> GramData:
    """The part of `recorded` that a run on `grid` goes through, all recorded points of it."""
    span = EDGE * (grid[0] - grid[-1])
    first = int(np.searchsorted(-recorded.sigmas, -grid[0] - span))
    last = int(np.searchsorted(-recorded.sigmas, -grid[-1] + span, side="right")) - 1
    if first == 0 and last == recorded.steps:
        return recorded
    last = max(last, first + 1)
    part = slice(first, last)
    grams, bands = recorded.grams[:, part, part], recorded.bands[..., part, part]
    return GramData(recorded.sigmas[first : last + 1], grams, bands, recorded.weights[part])


def at_sigmas(recorded: GramData, grid: np.ndarray) -> GramData:
    """What would have been recorded on `grid` [M + 1], velocities interpolated linearly in sigma."""
    known, count = recorded.sigmas[:-1], recorded.steps
    places = np.interp(-grid[:-1], -known, np.arange(count))
    lower = np.minimum(places.astype(int), max(count - 2, 0))
    rows = np.zeros((len(places), count))
    rows[np.arange(len(places)), lower] = 1 - (places - lower)
    rows[np.arange(len(places)), np.minimum(lower + 1, count - 1)] += places - lower
    moves = rows @ (recorded.weights / np.diff(recorded.sigmas)) * np.diff(grid)
    return GramData(grid, rows @ recorded.grams @ rows.T, rows @ recorded.bands @ rows.T, moves)
