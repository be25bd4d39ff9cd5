"""The guard: interpolation proposes, rollouts on the calibration cases decide.

A geodesic is a prediction and can lose to the graph's own path. For each budget a few candidates are rolled out and the
best is kept, with its cheapest neighbours by the graph's cost, and with what the best schedules of the budgets beside it
become when one step is inserted or removed: good schedules change little from one budget to the next.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..schedules.transport import interpolate, steps_on_geodesic
from .graph import Costs, cheapest_neighbours, path_cost
from .parts import agreed
from .scoring import FINAL, Scorer

Steps = tuple[int, ...]
LAMBDAS = (0.5, 1.0)  # beside lambda(B): half way, and the reference resampled
GUARDED = ("graph, fitted", "graph, fitted, gamma 1")  # graphs whose paths are rolled out
STATE_AWARE = "graph, state-aware"  # so is this one up to the reference budget; above it errors hardly interact
NEIGHBOURS = 2  # tried at each budget
MOST = 1 + len(LAMBDAS) + len(GUARDED) + 1 + 1 + NEIGHBOURS + 1  # candidates at one budget, each of these kinds
# Of the allowance, for the rising sweep. Where that is short (14 full runs' worth, demo model, 6 cases), 0.3 ends 1.1 dB
# below 0.92, a mean over B = 5 to 20 on 8 other scenes: the falling sweep alone does not spend the rest.
RISING = 0.92
AHEAD = 3  # budgets whose candidates a worker begins with while others do the last of this one's


@dataclass
class Candidate:
    """A schedule that the guard tried at one budget: where it comes from, its steps, and whether it was kept."""

    source: str
    steps: Steps
    kept: bool = False


@dataclass
class Guarded:
    """What the guard found at one budget: the candidates it tried, the first is the geodesic's; the best one's score."""

    candidates: list[Candidate] = field(default_factory=list)
    score: float = np.inf
    key: tuple = ()  # of this budget's decisions, where several workers take them
    _considered: int = 0

    @property
    def best(self) -> Candidate:
        return next(candidate for candidate in self.candidates if candidate.kept)

    def consider(self, scorer: Scorer, proposals: dict[Steps, str], remaining: float = np.inf) -> None:
        """Roll out `proposals` (steps to source) against the best so far.

        Only as many are tried as fit into `remaining` evaluations a case; the geodesic's is tried in any case.
        """
        before = {candidate.steps for candidate in self.candidates}
        new = [Candidate(source, steps) for steps, source in proposals.items() if steps not in before]
        if new:
            new = new[: max(int(min(remaining, 1e9) // len(new[0].steps)), not before)]
        self._considered += 1
        if scorer.log.shared:
            decided = agreed(scorer.log, [*self.key, self._considered], lambda: [[each.source, each.steps] for each in new])
            new = [Candidate(source, tuple(steps)) for source, steps in decided]
        if not new:
            return
        self.candidates += new
        kept = [candidate.steps for candidate in self.candidates if candidate.kept]
        steps, self.score = scorer.choose([*kept, *(candidate.steps for candidate in new)])
        for candidate in self.candidates:
            candidate.kept = candidate.steps == steps


def guard(
    scorer: Scorer,
    anchor: Steps,
    reference: Steps,
    paths: dict[str, dict[int, Steps]],
    costs: Costs,
    budgets: Sequence[int],
    progress: Callable[[int, int, int, Guarded], None] | None = None,
    remaining: Callable[[float], float] = lambda share: np.inf,
    key: tuple = (),
) -> dict[int, Guarded]:
    """The guarded choice at every budget, budgets rising and then falling once.

    paths: the graphs' own paths by name and budget; costs: the fitted predictor's edge costs. `progress(done, total,
    budget, found)` is called after every budget of both sweeps. `remaining(share)` tells how many evaluations a case are left
    of that share of the guard's allowance: each budget of the rising sweep has its part, so that the large ones are not left
    without. key: names this guard's decisions in a log that several workers share.
    """
    budgets = sorted(budgets)
    found = {budget: Guarded(key=(*key, budget)) for budget in budgets}

    def first(budget: int) -> dict[Steps, str]:
        proposals = geodesic_points(anchor, reference, scorer.sigmas, budget)
        for name in (*GUARDED, STATE_AWARE) if budget <= len(reference) else GUARDED:
            proposals.setdefault(paths[name][budget], name)
        return proposals

    def removed(budget: int) -> list[Steps]:
        return cheapest(costs, with_one_less(found[budget + 1].best.steps)) if budget + 1 in found and budget > 1 else []

    def ahead(rising: Sequence[int], falling: Sequence[int], ended: Sequence[int]) -> list:
        """What will be asked for, the next first: in the two sweeps at these budgets, and weights where both have ended."""
        tried = [steps for budget in rising[:AHEAD] for steps in first(budget)]
        tried += [steps for budget in falling[::-1][:AHEAD] for steps in removed(budget)]  # a larger one mostly keeps its own
        chosen = [anchor, *(found[budget].best.steps for budget in ended[::-1])]
        return [[steps, 0] for steps in tried] + [[steps, FINAL] for steps in dict.fromkeys(chosen)]

    for number, budget in enumerate(budgets, 1):
        here, share = found[budget], RISING * number / len(budgets)
        if scorer.log.shared:
            scorer.ahead = ahead(budgets[number:], budgets[: number - 1][:-1], ())
        here.consider(scorer, first(budget), remaining(share))
        if budget - 1 in found:
            inserted = cheapest(costs, with_one_more(found[budget - 1].best.steps, len(costs)))
            here.consider(scorer, dict.fromkeys(inserted, f"B = {budget - 1}, one step more"), remaining(share))
        # Once only: refining small budgets for longer fitted the calibration cases and lost on others.
        neighbours = cheapest_neighbours(costs, here.best.steps, NEIGHBOURS)
        here.consider(scorer, dict.fromkeys(neighbours, "neighbour"), remaining(share))
        if progress:
            progress(number, 2 * len(budgets), budget, here)
    for number, budget in enumerate(reversed(budgets), 1):
        here = found[budget]
        if scorer.log.shared:
            scorer.ahead = ahead((), budgets[:-number], budgets[len(budgets) - number + 1 :])
        if dropped := removed(budget):
            here.consider(scorer, dict.fromkeys(dropped, f"B = {budget + 1}, one step less"), remaining(1.0))
        if progress:
            progress(len(budgets) + number, 2 * len(budgets), budget, here)
    return found


def geodesic_points(anchor: Steps, reference: Steps, sigmas, budget: int) -> dict[Steps, str]:
    """Compute steps at `budget` on a few points of the geodesic, lambda(B) first, with their names."""
    found = {interpolate(anchor, reference, sigmas, budget): "geodesic"}
    if budget <= len(reference):
        for lam in LAMBDAS:
            found.setdefault(steps_on_geodesic(anchor, reference, sigmas, budget, lam), f"geodesic at {lam}")
    return found


def cheapest(costs: Costs, schedules: Sequence[Steps], count: int = 1) -> list[Steps]:
    """The `count` schedules of least path cost."""
    return sorted(schedules, key=lambda steps: path_cost(costs, steps))[:count]


def with_one_more(steps: Steps, total: int) -> list[Steps]:
    """All schedules of `total` grid steps that add one step to `steps`."""
    return [tuple(sorted((*steps, new))) for new in range(total) if new not in steps]


def with_one_less(steps: Steps) -> list[Steps]:
    """All schedules that drop one of `steps` but the first."""
    return [(*steps[:k], *steps[k + 1 :]) for k in range(1, len(steps))]
