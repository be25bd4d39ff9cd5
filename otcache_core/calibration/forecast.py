"""How far a calibration is and how long it will still take: what its stages are expected to cost, at the pace so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .ladder import rehearsed_budgets
from .metrics import LATENT
from .recording import GROWTH_CASES

if TYPE_CHECKING:
    from ..sampling.generator import Counted
    from .settings import Settings

# What people read of each stage, and what its units are called; None where their number says nothing to people.
WORDS = {
    "record": ("recording full runs", ""),
    "error growth": ("measuring how errors grow", None),
    "graphs": ("finding good steps by graph", None),
    "lesson": ("learning from short runs", None),
    "reference": ("choosing the reference", None),
    "pictures": ("making the full runs' pictures", None),
    "search": ("searching the smallest budget", "trial "),
    "guard": ("preparing every budget", None),
    "final weights": ("fitting the final weights", None),
}
# Measured on the demo model with 1, 2 and 6 cases. A start only: the pace of a stage's own units soon says more.
TRIED = 0.65  # of a trial's evaluations are made; runs share their beginnings
RISING_RUNS, FALLING_RUNS = 4.2, 0.3  # a budget of the guard's two sweeps, so much of which is shared too
EARLY = 0.6  # of all that, where there are cases enough to drop a poor schedule before all have been run
GRAPH_SECONDS = 0.6  # of the graphs of 50 steps; they grow with the cube
PARTLY = 0.95  # of a unit that takes longer than it was to, at most


@dataclass(frozen=True)
class Stage:
    """What a stage is expected to cost, unit by unit: evaluations, judged pictures, and seconds that need no model."""

    evaluations: Sequence[float]
    pictures: Sequence[float] = ()
    seconds: float = 0.0

    def costs(self, evaluation: float, picture: float) -> list[float]:
        """Seconds of each unit, where an evaluation takes so many and a picture so many."""
        pictures = self.pictures or [0.0] * len(self.evaluations)
        return [e * evaluation + p * picture + self.seconds for e, p in zip(self.evaluations, pictures, strict=True)]


def observing(cases: int, steps: int, most: int, budget: int, taught: int = 0) -> dict[str, Stage]:
    """The stages of `analyse` (graphs up to budget `most`), of a lesson from `taught` cases, and of `reference_schedule`."""
    few, graphs = min(GROWTH_CASES, cases), 2 * steps + min(most, steps)
    lessons = {"lesson": Stage([sum(rehearsed_budgets(steps)) * taught])} if taught else {}
    return {
        "record": Stage([steps] * cases),
        "error growth": Stage([few * (steps + 1) // 2]),
        "graphs": Stage([0] * graphs, seconds=GRAPH_SECONDS * (steps / 50) ** 3 / graphs),
        **lessons,
        "reference": Stage([2.5 * budget * cases]),
    }


def preparing(cases: int, steps: int, settings: Settings) -> dict[str, Stage]:
    """The stages of `prepare`; where latents are judged no picture is made."""
    budgets, anchor, trials = sorted(settings.budgets), settings.anchor_budget, settings.trials
    fits_some = cases > 2  # as `Scorer` does
    run = cases * (EARLY if fits_some else 1.0)
    runs = [RISING_RUNS * run] * len(budgets) + [FALLING_RUNS * run] * len(budgets)
    sweeps = [count * budget for count, budget in zip(runs, [*budgets, *reversed(budgets)], strict=True)]
    left = (settings.allowance - 3) * steps * cases - trials * TRIED * anchor * run  # 3: what has been spent before
    share = min(1.0, max(left, steps) / sum(sweeps))
    weights = TRIED * cases if fits_some else 0.0
    shown = 0 if settings.metric == LATENT else 1
    return {
        **({"pictures": Stage([0], [cases])} if shown else {}),
        "search": Stage([TRIED * anchor * run] * trials, [shown * run] * trials),
        "guard": Stage([share * cost for cost in sweeps], [shown * 2 * share * count for count in runs]),
        "final weights": Stage([weights * budget for budget in [*budgets, anchor]]),
    }


class Forecast:
    """Kept up to date by calling it as a `Progress`; `follow` tells it the generator that is counted and timed.

    Work that an earlier session did counts as done, though it takes no time. clock: seconds, from anywhere.
    """

    def __init__(self, stages: dict[str, Stage], clock: Callable[[], float] = time.monotonic):
        self.stages, self._clock = stages, clock
        self._done, self._stage = dict.fromkeys(stages, 0), next(iter(stages))
        self._took, self._meant = dict.fromkeys(stages, 0.0), dict.fromkeys(stages, 0.0)  # seconds, of what was done here
        self._counted: Counted | None = None
        self._known: float | None = None
        self._judging, self._judged = 0.0, 0  # seconds, pictures
        self._reached = 0.0
        self._mark()

    def follow(self, counted: Counted, pace: float | None = None) -> None:
        """Time `counted` from here on; `pace`: seconds that an evaluation is known to take, until one has been timed."""
        self._counted, self._known = counted, pace
        self._mark()

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units of `stage` are finished."""
        before, costs = self._done[stage], self._costs(stage)
        seconds, evaluating, evaluations, judged = (now - then for now, then in zip(self._now(), self._marked, strict=True))
        self._mark()
        if stage != self._stage:  # all that came before is over, whatever was told of it
            for name in list(self.stages)[: list(self.stages).index(stage)]:
                self._done[name] = len(self.stages[name].evaluations)
        self._stage, self._done[stage] = stage, done
        if self.stages[stage].pictures:
            self._judging += seconds - evaluating
            self._judged += judged
        # A unit that is found among what an earlier session did says nothing of the pace, until one is made here.
        if done > before and (evaluations or self._took[stage] or not any(self.stages[stage].evaluations)):
            self._took[stage] += seconds
            self._meant[stage] += costs[done - 1]

    def _now(self) -> tuple[float, float, int, int]:
        counted = self._counted
        return self._clock(), *((counted.seconds, counted.evaluations, counted.decoded) if counted else (0.0, 0, 0))

    def _mark(self) -> None:
        self._marked = self._now()

    def _costs(self, stage: str) -> list[float]:
        """Expected seconds of each unit, at today's pace of evaluations and of judging."""
        evaluation = (self._counted and self._counted.pace) or self._known or 1.0
        return self.stages[stage].costs(evaluation, self._judging / max(self._judged, 1))

    def _left(self) -> tuple[float, float]:
        """Seconds that the rest will take, and that all is worth, what was done by an earlier session included."""
        left = worth = 0.0
        for name, stage in self.stages.items():
            costs, done = self._costs(name), self._done[name]
            # Of stages that judge, a guess that the first units correct; the others' evaluations are known.
            guessed = bool(stage.pictures) or not any(stage.evaluations)
            first = costs[0] if costs else 0.0
            factor = (self._took[name] + first) / (self._meant[name] + first) if guessed and first else 1.0
            costs = [factor * cost for cost in costs]
            rest = sum(costs[done:])
            if name == self._stage and done < len(costs):
                rest -= min(self._clock() - self._marked[0], PARTLY * costs[done])
            left, worth = left + rest, worth + sum(costs)
        return left, worth

    @property
    def seconds(self) -> float | None:
        """That the rest will take; None while nothing is known of the model's pace."""
        known = self._known or (self._counted and self._counted.pace)
        return self._left()[0] if known else None

    @property
    def fraction(self) -> float:
        """Of the work that is done, from 0 to 1; never less than it was before."""
        left, worth = self._left()
        self._reached = max(self._reached, 1 - left / worth if worth else 0.0)
        return self._reached


def in_words(stage: str, done: int, total: int, note: str = "") -> str:
    """A stage's report for people: "searching the smallest budget, trial 26 of 60, best 0.0041"."""
    words, unit = WORDS.get(stage, (stage, ""))
    count = [f"{unit}{done} of {total}"] if unit is not None and total > 1 else []
    return ", ".join([words, *count, *([note] if note else [])])
