"""Moving a schedule to another grid: other step count, scheduler, shift, denoise strength or slice.

What travels is the absolute sigma of each compute step, never its index, and each fitted segment's weights in Newton's
form: the multiples of v, h v' and h^2 v'' that they make, which do not depend on where the grid's points lie.
"""

from __future__ import annotations

import numpy as np

from ..errors import OTCacheError
from .extrapolation import divided_differences, prior_weights
from .schedule import HISTORY, Schedule, check_sigmas
from .transport import round_to_steps

JUMP, LOW = 8.0, 0.05  # times the step before; of the schedule's first sigma
SAME_GRID = 1e-6  # relative; samplers' sigmas are float32


def newton_basis(past: np.ndarray, span: float) -> np.ndarray:
    """Rows float64 [m, m]: v, span v' and span^2 v'' as combinations of the m evaluations at `past` (newest first).

    span: the segment's signed length in sigma.
    """
    return divided_differences(past) * float(span) ** np.arange(len(past))[:, None]


def later_segments(schedule: Schedule, sigmas: np.ndarray) -> tuple[int, list[int]]:
    """(first, others): the segments of `schedule` that a run on `sigmas` takes up at its start and at later steps.

    The first step of a run is always computed. It stands for the compute sigma that is nearest to it, so that the same
    evaluation is not made again a step later when a run starts just above that one. An evaluation at the last value of
    `sigmas` belongs to the slice that begins there. Of those that a last step jumps over one is kept, for that step.
    """
    top, bottom = sigmas[0] * (1 - SAME_GRID), sigmas[-1] * (1 + SAME_GRID)
    inside = [k for k, i in enumerate(schedule.compute_steps) if bottom < schedule.sigmas[i] < top]
    if jumps_at_the_end(schedule, sigmas):
        before = [k for k in inside if schedule.sigmas[schedule.compute_steps[k]] > sigmas[-2] * (1 + SAME_GRID)]
        inside = inside[: len(before) + 1]
    first, = segments_at(schedule, sigmas[:1])
    if inside:
        above, below = (schedule.sigmas[schedule.compute_steps[k]] for k in (first, inside[0]))
        if inside[0] == first or sigmas[0] - below < above - sigmas[0]:
            first, inside = inside[0], inside[1:]
    return first, inside


def jumps_at_the_end(schedule: Schedule, sigmas: np.ndarray) -> bool:
    """Whether the last step is no scheduler's: that of a slice which is forced to end at 0.

    It begins well above 0 and is much longer than the step before. Schedulers' last steps are one or the other (karras,
    exponential) or neither.
    """
    if len(sigmas) < 3 or sigmas[-2] < LOW * schedule.sigmas[0]:
        return False
    return bool(sigmas[-2] - sigmas[-1] > JUMP * (sigmas[-3] - sigmas[-2]))


def retime(schedule: Schedule, sigmas) -> Schedule:
    """`schedule` on another sigma grid [M + 1].

    The first step is always computed, in place of the compute sigma nearest to it; each later one inside the new grid goes to
    its nearest step, all distinct (exact least squares). A grid with fewer steps than compute sigmas is computed in full, and
    so is every grid under a schedule that computes every step. Spans (in grid steps) are scaled with the gaps. Raises
    `OTCacheError` when the grid is not valid.
    """
    try:
        grid = check_sigmas(sigmas)
    except ValueError as error:
        raise OTCacheError(f"{error}.") from None
    if np.array_equal(grid, schedule.sigmas):
        return schedule
    first, inside = later_segments(schedule, grid)
    steps = len(grid) - 1
    if 1 + len(inside) >= steps or schedule.budget == schedule.steps:
        compute_steps = tuple(range(steps))
    else:
        wanted = np.array([grid[0], *(schedule.sigmas[schedule.compute_steps[k]] for k in inside)])
        compute_steps = round_to_steps((grid[0] - wanted) / (grid[0] - grid[-1]), grid)
    sources = [first, *inside]
    if len(compute_steps) != len(sources):
        sources = segments_at(schedule, grid[list(compute_steps)])
    return with_segments(
        schedule, grid, compute_steps, sources,
        parents=(schedule.name,) if schedule.name else (),
        provenance=f"re-timed from {schedule.steps} steps; {schedule.provenance}".strip("; "),
    )  # fmt: skip


def segments_at(schedule: Schedule, sigmas) -> list[int]:
    """The segment of `schedule` that each of `sigmas` lies in; the first one for those above it."""
    starts = np.array([schedule.sigmas[i] for i in schedule.compute_steps])
    return [max(int(np.sum(starts >= sigma * (1 - SAME_GRID))) - 1, 0) for sigma in sigmas]


def with_segments(
    schedule: Schedule, grid: np.ndarray, compute_steps: tuple[int, ...], sources: list[int], **fields
) -> Schedule:  # fmt: skip
    """`schedule` with other compute steps on `grid`, each predicting like the segment that `sources` names."""
    steps = len(grid) - 1
    if schedule.weights is not None:
        fields["weights"] = retimed_weights(schedule, grid, compute_steps, sources)
    if schedule.spans is not None:
        scale = steps / schedule.steps * (schedule.sigmas[0] - schedule.sigmas[-1]) / (grid[0] - grid[-1])
        fields["spans"] = tuple(min(round(schedule.spans[k] * scale), steps) for k in sources)
    return schedule.replace(
        sigmas=tuple(grid.tolist()), compute_steps=compute_steps, prepared=(), score=None, psnr=None, **fields
    )  # fmt: skip


def retimed_weights(schedule: Schedule, grid: np.ndarray, compute_steps, sources) -> tuple[tuple[float, ...], ...]:
    """Weight rows for `compute_steps` on `grid`, each from the segment of `schedule` that `sources` names.

    The row of a segment of one step was never fitted, since there is nothing to predict: it says nothing about a longer one.
    There, and where a segment sees fewer evaluations than its source did (the start of a slice), the row is the prior.
    """
    old_sigmas = np.asarray(schedule.sigmas)
    ends = (*compute_steps[1:], len(grid) - 1)
    rows = []
    for k, (start, end, source) in enumerate(zip(compute_steps, ends, sources, strict=True)):
        past = grid[list(compute_steps[k::-1][:HISTORY])]
        bands = np.reshape(schedule.weights[source], (schedule.predictor.bands, -1))
        old_start, old_end = schedule.segments[source]
        if bands.shape[1] != len(past) or old_end - old_start == 1 < end - start:
            rows.append(tuple(prior_weights(past, grid[start : end + 1]).tolist()) * len(bands))
            continue
        old_past = old_sigmas[list(schedule.compute_steps[source::-1][:HISTORY])]
        newton = np.linalg.solve(newton_basis(old_past, old_sigmas[old_end] - old_sigmas[old_start]).T, bands.T)
        rows.append(tuple((newton.T @ newton_basis(past, grid[end] - grid[start])).ravel().tolist()))
    return tuple(rows)
