"""What people ask of single steps beyond a budget: a range, a cap on skips, steps forced on or off by hand.

web/js/otcache/rules.mjs does the same arithmetic.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import numpy as np
from pydantic import Field

from ..errors import OTCacheError
from .json_limits import FIRST_ERROR
from .records import Number, Record

SAME_LEVEL = 1e-6  # relative; samplers' sigmas are float32
MOST_FORCED = 1000
Sigmas = Annotated[tuple[Number, ...], Field(max_length=MOST_FORCED, **FIRST_ERROR)]


class Rules(Record):
    """Rules for the steps of a run, in noise levels, so that they hold on any grid.

    start, end: steps above the one or below the other are computed; None for no bound. max_skips: the most predicted steps in
    a row, 0 for any number. on, off: sigmas of the steps that are computed or predicted whatever else is said; the run's
    nearest step is meant.
    """

    start: Number | None = None
    end: Number | None = None
    max_skips: Annotated[int, Field(ge=0, le=10_000)] = 0
    on: Sigmas = ()
    off: Sigmas = ()

    @property
    def named(self) -> str:
        """Which of the rules for single steps are in use, as words; "" for none."""
        bounded = self.start is not None or self.end is not None
        found = {"the range": bounded, "max_skips": self.max_skips, "forced steps": self.on or self.off}
        return ", ".join(name for name, used in found.items() if used)


def forced_steps(text: str) -> dict[int, bool]:
    """{step: whether it is computed} from text such as "+3 -7"; people count steps from 1, the result from 0.

    Raises `OTCacheError` for anything else, for a step that is named twice, and for the first step forced off.
    """
    found: dict[int, bool] = {}
    for word in re.split(r"[\s,]+", text.strip()) if text.strip() else ():
        if not re.fullmatch(r"[+-][1-9][0-9]{0,4}", word, re.ASCII):
            raise OTCacheError(
                f"forced holds {ascii(word[:40])}, but must be step numbers with a sign, such as +3 -7: + runs the model at "
                "that step, - predicts it."
            )
        step, runs = int(word[1:]) - 1, word[0] == "+"
        if step in found:
            raise OTCacheError(f"forced names step {step + 1} twice; drop one.")
        if step == 0 and not runs:
            raise OTCacheError("forced holds -1, but the first step is always computed; drop it.")
        found[step] = runs
    if len(found) > MOST_FORCED:
        raise OTCacheError(f"forced names {len(found)} steps, but at most {MOST_FORCED} can be forced; use start and end.")
    return found


@dataclass(frozen=True)
class StepRules:
    """What is asked of single steps before a grid is known: shares of sampling 0..1, steps by number from 0."""

    start_percent: float = 0.0
    end_percent: float = 1.0
    max_skips: int = 0
    forced: Mapping[int, bool] = field(default_factory=dict)

    def on_grid(self, sigmas: Sequence[float], sigma_of: Callable[[float], float] | None = None) -> Rules:
        """The rules on `sigmas` [N + 1]; forced steps beyond its N are left out.

        sigma_of: the noise level of a share of sampling; by default that of a share of the grid's steps.
        """
        steps, sigma_of = len(sigmas) - 1, sigma_of or partial(sigma_at, sigmas)
        start = float(sigma_of(self.start_percent)) if self.start_percent > 0 else None
        end = float(sigma_of(self.end_percent)) if self.end_percent < 1 else None
        chosen = sorted(step for step in self.forced if step < steps)
        on, off = (tuple(float(sigmas[i]) for i in chosen if self.forced[i] is wanted) for wanted in (True, False))
        return Rules(start=start, end=end, max_skips=self.max_skips, on=on, off=off)

    def left_out(self, steps: int) -> str:
        """What to tell of forced steps that a run of `steps` does not have, else ""."""
        found = [str(step + 1) for step in sorted(self.forced) if step >= steps]
        return f"forced names step {', '.join(found)}, but there are {steps} steps: left out" if found else ""


def sigma_at(sigmas: Sequence[float], share: float) -> float:
    """The noise level of a share 0..1 of the steps of `sigmas` [N + 1]."""
    return float(np.interp(share * (len(sigmas) - 1), np.arange(len(sigmas)), sigmas))


def ruled_steps(compute_steps: Sequence[int], sigmas: Sequence[float], rules: Rules) -> tuple[int, ...]:
    """`compute_steps` on the grid `sigmas` [N + 1] as `rules` change them.

    First the range, then the cap: a gap of more predicted steps gets computed ones, evenly spread. What was forced by hand
    comes last and moves no other step, so that a gap may exceed the cap there. The first step stays computed.
    """
    grid = np.asarray(sigmas, dtype=np.float64)
    steps = len(grid) - 1
    outside = np.zeros(steps, dtype=bool)
    if rules.start is not None:
        outside |= grid[:-1] > rules.start * (1 + SAME_LEVEL)
    if rules.end is not None:
        outside |= grid[:-1] < rules.end * (1 - SAME_LEVEL)
    chosen = sorted({*map(int, compute_steps), *map(int, np.flatnonzero(outside))})
    if rules.max_skips:
        gaps = zip(chosen, [*chosen[1:], steps], strict=True)
        chosen = [step for start, end in gaps for step in _within_cap(start, end, rules.max_skips)]
    on, off = (_nearest(grid, levels) for levels in (rules.on, rules.off))
    return tuple(sorted({0, *chosen} - off | on | {0}))


def _within_cap(start: int, end: int, most: int) -> list[int]:
    """`start`, and the fewest steps after it that leave at most `most` predicted ones in a row before `end`."""
    parts = (end - start - 1) // (most + 1) + 1
    return [start + (end - start) * part // parts for part in range(parts)]


def _nearest(grid: np.ndarray, levels: Sequence[float]) -> set[int]:
    """The steps of `grid` [N + 1] that are nearest to `levels`, of those within it."""
    inside = [level for level in levels if grid[-1] * (1 + SAME_LEVEL) < level <= grid[0] * (1 + SAME_LEVEL)]
    return {int(np.argmin(np.abs(grid[:-1] - level))) for level in inside}
