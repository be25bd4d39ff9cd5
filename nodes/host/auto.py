"""A MODEL that learns: the first run in full, the next ones cached by what it taught."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...otcache_core.calibration.solving import covers, expected_errors, solve
from ...otcache_core.calibration.statistics import Origin, Statistics
from ...otcache_core.errors import OTCacheError
from ...otcache_core.sampling.cached_run import CachedRun
from ...otcache_core.schedules.interpolation import budget_for_speedup, error_curve, smallest_budget
from ...otcache_core.schedules.schedule import Schedule, check_sigmas
from . import learned
from .attach import with_runs
from .lesson import Lesson
from .run import HostRun
from .suitability import made_on

BY_SPEEDUP, BY_BUDGET, BY_ERROR = "by speed-up", "by budget", "by error"
WHEN_NEEDED, THIS_RUN, ANEW = "when needed", "this run too", "anew"
SOLVED = 32  # schedules that are kept for the grids and budgets in use

_solved: OrderedDict[tuple, Schedule] = OrderedDict()


@dataclass(frozen=True)
class Target:
    """What a run should be like: `choose` names which of the others counts."""

    choose: str = BY_SPEEDUP
    speedup: float = 3.0
    budget: int = 10
    error: float = 0.05

    def evaluations(self, steps: int, statistics: Statistics | None) -> int:
        """The budget for a run of `steps`; by error all of them while nothing is known."""
        if self.choose == BY_BUDGET:
            return min(self.budget, steps)
        if self.choose == BY_SPEEDUP:
            return budget_for_speedup(steps, self.speedup)
        if statistics is None or not statistics.errors:
            return steps
        budgets = range(2, max(steps // 2, 2) + 1)
        return smallest_budget(error_curve(expected_errors(statistics, budgets)), steps, self.error)


def with_auto_cache(
    model, target: Target, level: str = "output", learn: str = WHEN_NEEDED, on_report=None,
    say: Callable[[str], None] | None = None,
):  # fmt: skip
    """A clone of the ModelPatcher `model` whose runs teach and are then cached; see `attach.with_cache`."""
    forgotten = set()  # once only, for the samplers of one workflow may teach different parts of a run

    def begin(guider, sampler, grid):
        key = learned.model_key(guider.model_patcher)
        if learn == ANEW and key not in forgotten:
            learned.forget(key)
            forgotten.add(key)
        origin = origin_of(guider, sampler)
        known = fitting(learned.recall(key), origin, grid)
        budget = target.evaluations(len(grid) - 1, known[0] if known else None)
        same = next((one for one in known if one.origin == origin and np.array_equal(one.sigmas, grid)), None)
        in_full = budget >= len(grid) - 1
        if known and known[0].visits and learn == WHEN_NEEDED and not in_full:
            return HostRun(lambda: CachedRun(solved(known, grid, budget)), grid, guider, sampler, level)

        rehearses = not in_full or target.choose == BY_ERROR
        if same and same.runs >= learned.ENOUGH and (same.visits or not rehearses):

            def follow():
                raise OTCacheError(f"{same.runs} runs like this one were learnt from, and more of them change nothing")

            return HostRun(follow, grid, guider, sampler)

        def keep(statistics: Statistics) -> str:
            learned.remember(key, statistics)
            return f"the next one makes {target.evaluations(len(grid) - 1, statistics)} of {len(grid) - 1}"

        return Lesson(grid, guider, sampler, origin, same, keep, rehearses, say)

    return with_runs(model, begin, on_report)


def origin_of(guider, sampler) -> Origin:
    """What tells the statistics of a run of `guider` with `sampler` from others of the same model."""
    made = made_on(guider.model_patcher)
    name = getattr(getattr(sampler, "sampler_function", None), "__name__", type(sampler).__name__)
    return Origin(
        model_class=made["model_class"][:200], noise=made["noise"], sampler=name.removeprefix("sample_")[:100],
        cfg=float(getattr(guider, "cfg", 1.0)),
    )  # fmt: skip


def fitting(known: Sequence[Statistics], origin: Origin, grid: np.ndarray) -> list[Statistics]:
    """Those of `known` that a run of `origin` on `grid` can use, the best first: they cover it, at the nearest guidance.

    Those of the same sampler alone where there are any, for rehearsals of another one say less.
    """
    try:
        check_sigmas(grid)
    except ValueError:
        return []
    covering = [one for one in known if covers(one, grid)]
    if not covering:
        return []

    def apart(one: Statistics) -> float:
        return abs(np.log(max(one.origin.cfg, 0.1) / max(origin.cfg, 0.1)))

    taught = [one for one in covering if one.visits] or covering
    nearest = min(map(apart, taught))
    near = [one for one in taught if apart(one) == nearest]
    near = [one for one in near if one.origin.sampler == origin.sampler] or near
    steps = len(grid) - 1
    return sorted(near, key=lambda one: (abs(np.log(one.steps / steps)), -one.runs))


def solved(known: Sequence[Statistics], grid: np.ndarray, budget: int) -> Schedule:
    """`solve`, remembered for the statistics, grids and budgets in use."""
    # Sums are made anew at each reading; what they hold tells them apart.
    mark = tuple((one.origin, one.runs, one.sigmas.tobytes(), float(one.grams.sum())) for one in known)
    key = mark, grid.tobytes(), budget
    if key not in _solved:
        _solved[key] = solve(known, grid, budget)
        while len(_solved) > SOLVED:
            _solved.popitem(last=False)
    _solved.move_to_end(key)
    return _solved[key]


def with_learnt_weights(schedule: Schedule, guider, sampler, grid: np.ndarray) -> Schedule:
    """`schedule`, already on `grid`, with fitted weights if it has none and its model was learnt; else as it is."""
    from ...otcache_core.calibration.solving import fitted

    if schedule.predictor.kind != "hold" or schedule.budget == schedule.steps:
        return schedule
    try:
        known = fitting(learned.recall(learned.model_key(guider.model_patcher)), origin_of(guider, sampler), grid)
        return fitted(known, grid, schedule.compute_steps) if known and known[0].visits else schedule
    except OTCacheError:
        return schedule
