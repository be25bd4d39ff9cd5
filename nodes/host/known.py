"""What was learnt of a model, as a run of its own sampler, guidance and grid can use it."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from ...otcache_core.calibration.solving import LEARNT, covers, fitted, solve
from ...otcache_core.calibration.statistics import Origin, Statistics
from ...otcache_core.errors import OTCacheError
from ...otcache_core.sampling.layout import Layout
from ...otcache_core.schedules.following import CHANGED
from ...otcache_core.schedules.retiming import retime
from ...otcache_core.schedules.schedule import Schedule, check_sigmas
from . import learned
from .suitability import EULER, fits_bands, made_for_another, made_on, name_of

SAME = 1e-5  # relative: grids that are one
SOLVED = 32  # schedules that are kept for the grids and budgets in use
UNFITTED = ("preset", "uniform")  # stages of schedules that name steps and no weights

_solved: OrderedDict[tuple, Schedule] = OrderedDict()


def origin_of(guider, sampler) -> Origin:
    """What tells the statistics of a run of `guider` with `sampler` from others of the same model."""
    return origin_at(guider.model_patcher, name_of(sampler), float(getattr(guider, "cfg", 1.0)))


def origin_at(model, sampler: str, cfg: float) -> Origin:
    """The same for a ModelPatcher, a sampler's name and a guidance scale."""
    made = made_on(model)
    return Origin(model_class=made["model_class"][:200], noise=made["noise"], sampler=sampler[:100], cfg=cfg)


def fitting(
    known: Sequence[Statistics], origin: Origin, grid: np.ndarray, layout: Layout | None = None
) -> list[Statistics]:
    """Those of `known` that a run of `origin` on `grid` can use, the best first: they cover it, at the nearest guidance.

    layout: of its latents, whose bands they tell apart; None for any.

    Those of the same sampler alone: weights that suit one can be worse than holding with another.
    """
    try:
        check_sigmas(grid)
    except ValueError:
        return []
    known = [one for one in known if layout is None or one.bands == layout.bands]
    covering = [one for one in known if one.origin.sampler == origin.sampler and covers(one, grid)]
    if not covering:
        return []

    def apart(one: Statistics) -> float:
        return abs(np.log(max(one.origin.cfg, 0.1) / max(origin.cfg, 0.1)))

    taught = [one for one in covering if one.taught] or covering
    nearest = min(map(apart, taught))
    near = [one for one in taught if apart(one) == nearest]
    steps = len(grid) - 1
    return sorted(near, key=lambda one: (abs(np.log(one.steps / steps)), -one.runs))


def of_same_runs(known: Sequence[Statistics], origin: Origin, grid: np.ndarray, layout: Layout) -> Statistics | None:
    """Those of `known` to which a run of `origin` on `grid` with latents of `layout` adds, if there are any."""
    same = (one for one in known if one.origin == origin and one.bands == layout.bands)
    return next((one for one in same if np.array_equal(one.sigmas, grid)), None)


def solved(key: str, known: Sequence[Statistics], grid: np.ndarray, budget: int) -> Schedule:
    """The best that is known of the model `key` for `budget` evaluations on `grid`.

    What a calibration has prepared for this very grid; else its steps, or the graph's, with weights solved here. Remembered
    for the statistics, grids and budgets in use.
    """
    anchor = learned.recall_anchor(key, known[0].origin) if known[0].origin.sampler == EULER else None
    prepared = next((schedule for schedule in anchor.prepared if schedule.budget == budget), None) if anchor else None
    if prepared and prepared.predictor.bands not in (1, known[0].bands):  # calibrated on latents of another kind
        prepared = None
    if prepared and prepared.steps == len(grid) - 1 and np.allclose(prepared.sigmas, grid, rtol=SAME, atol=SAME):
        return prepared.replace(sigmas=tuple(grid.tolist()))
    # Sums are made anew at each reading; what they hold tells them apart.
    mark = tuple(
        (one.origin, one.runs, one.sigmas.tobytes(), float(one.grams.sum()), *one.rehearsals.items(), *one.holds.items())
        for one in known
    )
    place = mark, prepared and prepared.compute_steps, grid.tobytes(), budget
    if place not in _solved:
        steps = retime(prepared, grid).compute_steps if prepared and covers(prepared, grid) else ()
        _solved[place] = fitted(known, grid, steps) if len(steps) == budget else solve(known, grid, budget)
        while len(_solved) > SOLVED:
            _solved.popitem(last=False)
    _solved.move_to_end(place)
    return _solved[place]


def other_weights(schedule: Schedule, patcher) -> str:
    """What to tell when `schedule` was made on another model of the class of the ModelPatcher `patcher`, else ""."""
    name = type(patcher.model).__name__
    if not schedule.model_key or schedule.model_class != name or schedule.model_key == learned.model_key(patcher):
        return ""
    return f"the schedule was made on another {name} (checkpoint, merge or precision): one made on this would be better"


def with_learnt_weights(schedule: Schedule, guider, sampler, grid: np.ndarray, layout: Layout) -> Schedule:
    """`schedule`, already on `grid`, with weights learnt of its model with the run's sampler; as it is where that has its own.

    Those are schedules that nobody fitted, such as were fitted to another sampler or to other bands than latents of `layout`
    have, and learnt ones whose steps were changed since. What they say of the model that their steps were made on stays.
    """
    changed = schedule.provenance.startswith(CHANGED) and LEARNT in schedule.provenance
    unfitted = schedule.weights is None and schedule.stage in UNFITTED or changed
    its_own = not made_for_another(schedule, sampler) and fits_bands(schedule, layout)
    if schedule.budget == schedule.steps or not unfitted and its_own:
        return schedule
    try:
        known = fitting(learned.recall(learned.model_key(guider.model_patcher)), origin_of(guider, sampler), grid, layout)
        if not known or not known[0].taught or known[0].held:
            return schedule
        made = {name: getattr(schedule, name) for name in ("model", "model_class", "model_key")} if schedule.model_class else {}
        return fitted(known, grid, schedule.compute_steps).replace(**made)
    except OTCacheError:
        return schedule
