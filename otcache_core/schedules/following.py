"""A schedule as one run follows it: on the run's grid, in proportion to its steps, and with the rules for single steps."""

import numpy as np

from .extrapolation import PRIOR_DAMPING
from .interpolation import budget_for_speedup
from .retiming import SAME_GRID, retime, segments_at, with_segments
from .rules import Rules, ruled_steps
from .schedule import Predictor, Schedule, trajectory_time, uniform_steps
from .transport import Warp, steps_at_budget

FEWEST = 3  # evaluations that a share or a speed-up leaves: short runs have nothing to spare
CHANGED = "changed steps"  # how the provenance of such schedules begins
EXTRAPOLATE = Predictor(kind="linear", damping=PRIOR_DAMPING)
EDGE = 1e-3  # relative: how far below the schedule's first sigma a run begins that goes all the way


def followed(schedule: Schedule, sigmas, begins: bool = False) -> tuple[Schedule, str]:
    """(`schedule` as a run on `sigmas` [N + 1] follows it, what to tell of its number of evaluations or "").

    begins: whether the run begins with noise of its own; a later slice of another run does not. Raises `OTCacheError` when
    the grid is not valid.
    """
    schedule = nearest(schedule)
    base = retime(schedule, sigmas)
    grid = np.asarray(base.sigmas)
    low = begins and grid[0] < schedule.sigmas[0] * (1 - EDGE)
    speed, why = wanted_speedup(schedule, grid, low)
    told = []
    if speed:
        budget = max(budget_for_speedup(base.steps, speed), min(FEWEST, base.steps))
        if budget != base.budget:
            told.append(f"{budget} of {base.steps} steps run the model: {why}")
            if low and schedule.weights is None:
                # Published steps were chosen for a whole run. With even ones, held, a run is a little below so many plain
                # steps (measured), and so what was evaluated is extrapolated, as where weights are not known.
                if schedule.predictor.kind in ("hold", "mean_velocity"):
                    schedule = schedule.replace(predictor=EXTRAPOLATE, spans=None)
                steps = uniform_steps(budget, base.steps)
            else:
                steps = steps_at(schedule, grid, budget)
            base = with_steps(schedule, grid, steps)
    found = ruled(base)
    if found.compute_steps != base.compute_steps:
        told.append(changed(base.budget, found.budget, found.rules))
    return found, "; ".join(told)


def nearest(schedule: Schedule) -> Schedule:
    """Of a schedule with a speed-up and the budgets that it carries the one of nearest share, for it to begin with."""
    if not schedule.speedup:
        return schedule
    near = min((schedule, *schedule.prepared), key=lambda s: abs(np.log(s.ideal_speedup / schedule.speedup)))
    return near if near is schedule else near.replace(speedup=schedule.speedup, rules=schedule.rules)


def changed(before: int, after: int, rules: Rules) -> str:
    """What to tell where `rules` made other steps out of a budget."""
    return f"{after} instead of {before} evaluations by {rules.named}"


def wanted_speedup(schedule: Schedule, grid: np.ndarray, low: bool) -> tuple[float | None, str]:
    """(How many times fewer evaluations a run on `grid` [N + 1] should make, why); None where the sigmas alone decide.

    They do so on slices of the schedule's own grid, whose evaluations add up to its budget where that is what was asked for,
    and where a budget is a number and the run goes all the way. A run of its own that begins further down, `low` (denoise
    below 1), has as many steps as people gave it, but only some of the schedule's evaluations lie so low: there it is the
    share that counts.
    """
    asked = schedule.speedup
    if low:
        share = f"the schedule's share, {schedule.budget} of {schedule.steps}, for a run that begins at sigma {grid[0]:.3g}"
        return (asked, _target(asked)) if asked else (schedule.ideal_speedup, share)
    kept = schedule.budget == budget_for_speedup(schedule.steps, asked) if asked else False
    if asked and not (kept and _is_slice(grid, np.asarray(schedule.sigmas))):
        return asked, _target(asked)
    return None, ""


def _target(speedup: float) -> str:
    return f"the speed-up of {speedup:g} that was asked for, of this run's own steps"


def _is_slice(grid: np.ndarray, whole: np.ndarray) -> bool:
    first = int(np.argmin(np.abs(whole - grid[0])))
    part = whole[first : first + len(grid)]
    return len(part) == len(grid) and bool((np.abs(part - grid) <= SAME_GRID * whole[0]).all())


def steps_at(schedule: Schedule, grid: np.ndarray, budget: int) -> tuple[int, ...]:
    """`budget` steps on `grid` [N + 1], spread there as the compute sigmas of `schedule` are."""
    own = np.asarray(schedule.sigmas)[list(schedule.compute_steps)]
    knots = np.array([grid[0], *own[(own < grid[0] * (1 - SAME_GRID)) & (own > grid[-1])], grid[-1]])
    return steps_at_budget(Warp(np.linspace(0.0, 1.0, len(knots)), trajectory_time(knots)), budget, grid)


def ruled(schedule: Schedule) -> Schedule:
    """`schedule` with its own rules applied on its own grid; itself where they change nothing."""
    if schedule.rules is None:
        return schedule
    steps = ruled_steps(schedule.compute_steps, schedule.sigmas, schedule.rules)
    return schedule if steps == schedule.compute_steps else with_steps(schedule, np.asarray(schedule.sigmas), steps)


def with_steps(schedule: Schedule, grid: np.ndarray, steps: tuple[int, ...]) -> Schedule:
    """`schedule` with other `steps` on `grid`, each predicting like the segment of `schedule` that it lies in."""
    provenance = f"{CHANGED}; {schedule.provenance}".strip("; ")
    return with_segments(schedule, grid, steps, segments_at(schedule, grid[list(steps)]), provenance=provenance)
