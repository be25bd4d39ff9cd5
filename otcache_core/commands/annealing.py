"""Simulated annealing over compute steps at one budget, after BudCache (arXiv 2606.13496): a baseline for the search."""

from collections.abc import Sequence

import numpy as np

from ..calibration.scoring import Scorer
from ..schedules.schedule import uniform_steps


def anneal_steps(scorer: Scorer, budget: int, trials: int, seed: int = 0, hot: float = 0.3, cold: float = 0.01) -> tuple:
    """The best B compute steps of `trials` Metropolis moves from the uniform schedule, and their score.

    A move relocates one step, 7 times of 10 by at most three grid steps. The temperature falls geometrically from `hot` to
    `cold` in units of the score's logarithm; schedules seen before cost nothing.
    """
    rng = np.random.default_rng(seed)
    steps = len(scorer.sigmas) - 1
    current = best = uniform_steps(budget, steps)
    value = best_value = np.log(scorer.score(current))
    for temperature in np.geomspace(hot, cold, max(trials - 1, 1)):
        move = relocate(current, steps, rng)
        proposed = np.log(scorer.score(move))
        if proposed < value or rng.random() < np.exp((value - proposed) / temperature):
            current, value = move, proposed
        if value < best_value:
            best, best_value = current, value
    return best, float(np.exp(best_value))


def relocate(compute_steps: Sequence[int], steps: int, rng: np.random.Generator) -> tuple[int, ...]:
    """`compute_steps` with one of its steps but the first moved to a free place."""
    free = sorted(set(range(1, steps)) - set(compute_steps))
    if len(compute_steps) < 2 or not free:
        return tuple(compute_steps)
    leaving = compute_steps[int(rng.integers(1, len(compute_steps)))]
    near = [step for step in free if abs(step - leaving) <= 3]
    arriving = rng.choice(near if near and rng.random() < 0.7 else free)
    return tuple(sorted(set(compute_steps) - {leaving} | {int(arriving)}))
