"""The schedule at any budget from a reference and an anchor: prepared where the anchor carries it, else the geodesic's.

Also the budget itself, where an error or a speed-up is asked for. web/js/otcache/schedule.mjs does the same arithmetic.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..errors import OTCacheError
from .retiming import retime, segments_at, with_segments
from .schedule import Schedule, check_budget
from .transport import interpolate


def known_schedules(reference: Schedule, anchor: Schedule) -> tuple[Schedule, list[Schedule]]:
    """The anchor and what it carries as prepared, on the reference's grid.

    Raises `OTCacheError` when that is not valid, or the two are swapped, or were made for different kinds of noise.
    """
    if anchor.budget > reference.budget:
        raise OTCacheError(
            f"The anchor has {anchor.budget} evaluations and the reference {reference.budget}, but the anchor must be below "
            "the reference; exchange the two."
        )
    anchor.check_noise(reference.noise)
    return retime(anchor, reference.sigmas), [retime(schedule, reference.sigmas) for schedule in anchor.prepared]


def schedule_at(reference: Schedule, anchor: Schedule, budget: int) -> Schedule:
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
        steps = interpolate(inner.compute_steps, reference.compute_steps, grid, budget)
    nearest = min(known.values(), key=lambda s: abs(np.log(s.budget / budget)))
    return with_segments(
        nearest, grid, steps, segments_at(nearest, grid[list(steps)]),
        name=f"{reference.model or 'model'}-interpolated-{budget}of{reference.steps}", stage="interpolated",
        parents=tuple(s.name for s in (anchor, reference) if s.name),
        provenance=f"geodesic, not judged; predicts like B = {nearest.budget}",
    )  # fmt: skip


def different_models(reference: Schedule, anchor: Schedule) -> str:
    """What to tell of two schedules that were made on different models, else ""."""
    by_class, by_key, by_name = (
        (getattr(reference, field), getattr(anchor, field)) for field in ("model_class", "model_key", "model")
    )
    published = reference.stage == anchor.stage == "preset"  # others are named after their class
    for a, b in (by_class, by_key, by_name if published else ("", "")):
        if a and b and a != b:
            names = " and ".join(dict.fromkeys(by_name)) if len(set(by_name)) > 1 else f"different weights of {by_name[0]}"
            return f"reference and anchor were made on {names}: what lies between suits neither"
    return ""


def judged_errors(schedules: Iterable[Schedule]) -> dict[int, float]:
    """{budget: error} of those that were measured, to three digits: errors are compared as people read them."""
    return {s.budget: _three_digits(s.score) for s in schedules if s.score and s.score > 0}


def error_curve(errors: Mapping[int, float]) -> list[tuple[int, float]]:
    """[(budget, error), ...] by rising budget: the falling curve nearest to measured errors (isotonic, in logarithms).

    Calibration measures few cases, so that of two neighbours the greater budget may come out worse. Errors that rise are
    replaced by their geometric mean. A dip that the next budgets do not confirm is then no reason to stop early, and one
    bad budget none to go far beyond it. The first of the budgets that share a value never measured above it.
    """
    from scipy.optimize import isotonic_regression

    if not errors:
        return []
    budgets = sorted(errors)
    logs = isotonic_regression(np.log([errors[budget] for budget in budgets]), increasing=False).x
    return [(budget, _three_digits(error)) for budget, error in zip(budgets, np.exp(logs), strict=True)]


def expected_error(curve: Sequence[tuple[int, float]], budget: int) -> float | None:
    """What `curve` says at `budget`; between its points on the line in logarithms of both, outside of them None."""
    known = dict(curve)
    if budget in known:
        return known[budget]
    if not curve or not curve[0][0] < budget < curve[-1][0]:
        return None
    budgets, errors = np.log(curve).T
    return float(np.exp(np.interp(np.log(budget), budgets, errors)))


def smallest_budget(curve: Sequence[tuple[int, float]], steps: int, target: float) -> int:
    """The smallest budget within `curve` whose expected error is at most `target`; all `steps` when none is known to be.

    Raises `OTCacheError` when `curve` is empty.
    """
    if not curve:
        raise OTCacheError(
            f"No error was measured on this grid of {steps} steps, so that no budget can be chosen by error; choose by hand or "
            "by speed-up, or take an anchor that was calibrated with these steps."
        )
    budgets = range(curve[0][0], curve[-1][0] + 1)
    return next((budget for budget in budgets if expected_error(curve, budget) <= target), steps)


def budget_for_speedup(steps: int, target: float) -> int:
    """The largest budget, hence the nearest to the full run, with steps / budget >= `target`; 1 when there is none.

    Raises `OTCacheError` when `target` is below 1.
    """
    if not target >= 1:
        raise OTCacheError(f"The target speed-up is {target}, but must be at least 1, which runs every step.")
    return max((budget for budget in range(1, steps + 1) if steps / budget >= target), default=1)


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")
