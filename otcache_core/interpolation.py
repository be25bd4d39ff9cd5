"""The schedule at any budget from a reference and an anchor: prepared where the anchor carries it, else the geodesic's."""

import numpy as np

from .retiming import moved, retime, segments_at
from .schedule import Schedule, check_budget
from .transport import interpolate


def known_schedules(reference: Schedule, anchor: Schedule) -> tuple[Schedule, list[Schedule]]:
    """The anchor and what it carries as prepared, on the reference's grid; raises `OTCacheError` when that is not valid."""
    return retime(anchor, reference.sigmas), [retime(schedule, reference.sigmas) for schedule in anchor.prepared]


def schedule_at(reference: Schedule, anchor: Schedule, budget: int, law: str = "log") -> Schedule:
    """The schedule of `budget` evaluations on the reference's grid.

    Schedules that the anchor carries as prepared have been judged and come first, then anchor and reference themselves.
    Others are the geodesic's, and predict like the known schedule of nearest budget, segment by segment as in re-timing.
    A budget of N computes every step. Raises `OTCacheError` when `budget` does not fit the grid or the anchor's budget is
    not below the reference's.
    """
    check_budget(budget, reference.steps)
    grid = np.asarray(reference.sigmas)
    inner, prepared = known_schedules(reference, anchor)
    known = {s.budget: s for s in (reference, inner, *prepared)}
    if budget in known:
        return known[budget]
    steps = tuple(range(reference.steps))
    if budget < reference.steps:
        steps = interpolate(inner.compute_steps, reference.compute_steps, grid, budget, law)
    nearest = min(known.values(), key=lambda s: abs(np.log(s.budget / budget)))
    return moved(
        nearest, grid, steps, segments_at(nearest, grid[list(steps)]),
        name=f"{reference.model or 'model'}-interpolated-{budget}of{reference.steps}", stage="interpolated",
        parents=tuple(s.name for s in (anchor, reference) if s.name),
        provenance=f"geodesic, not judged; predicts like B = {nearest.budget}",
    )  # fmt: skip
