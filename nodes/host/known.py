"""What was learnt of a model, as a run of its own sampler, guidance and grid can use it."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from ...otcache_core.calibration.solving import covers, fitted, solve
from ...otcache_core.calibration.statistics import Origin, Statistics
from ...otcache_core.errors import OTCacheError
from ...otcache_core.schedules.schedule import Schedule, check_sigmas
from . import learned
from .suitability import made_on

SOLVED = 32  # schedules that are kept for the grids and budgets in use
UNFITTED = ("preset", "uniform")  # stages of schedules that name steps and no weights

_solved: OrderedDict[tuple, Schedule] = OrderedDict()


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
    """`schedule`, already on `grid`, with fitted weights if nobody fitted any and its model was learnt; else as it is."""
    if schedule.weights is not None or schedule.stage not in UNFITTED or schedule.budget == schedule.steps:
        return schedule
    try:
        known = fitting(learned.recall(learned.model_key(guider.model_patcher)), origin_of(guider, sampler), grid)
        return fitted(known, grid, schedule.compute_steps) if known and known[0].visits else schedule
    except OTCacheError:
        return schedule
