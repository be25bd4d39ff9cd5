"""Lessons without a sampler: rehearsals of recorded cases on a generator, integrated with Euler."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import inf, isfinite

import numpy as np
import torch

from ..errors import NotFiniteError
from ..sampling.cached_run import CachedRun
from ..sampling.patches import Patches
from ..sampling.rehearsal import Recording, Rehearsal, summed
from ..sampling.response import Response, are_eulers
from ..sampling.rollout import Generator, drive
from ..sampling.trajectory import Trajectory
from ..schedules.schedule import make_schedule
from .fit_or_hold import doubtful
from .ladder import REACH, rehearsed_budgets
from .learnt_paths import paths
from .statistics import Origin, Statistics, of_recording

ELEMENTS = 2**16  # of a latent that are kept, of one that was recorded whole


def rehearsal_steps(statistics: Statistics, known: Statistics | None = None, asked: int = 0) -> list[tuple[int, ...]]:
    """The compute steps to rehearse: those of `known` lessons on the same grid, so that both add up, else the graph's own.

    asked: the budget that is wanted, as in `rehearsed_budgets`.
    """
    budgets = rehearsed_budgets(statistics.steps, asked, statistics.looks_back and not statistics.held)
    before = list(known.rehearsals) if known is not None else []
    if before:
        budgets = [budget for budget in budgets if budget > REACH * max(map(len, before))]
    graph = paths(statistics, max(budgets, default=1))
    return [*before, *(graph[budget] for budget in budgets)]


def rehearsed(
    statistics: Statistics, recording: Recording, chosen: Sequence[tuple[int, ...]],
    run: Callable[[CachedRun], torch.Tensor], full: torch.Tensor,
) -> Statistics:  # fmt: skip
    """`statistics` of the recorded run with what rehearsals of the `chosen` compute steps meet.

    run(rehearsal): samples the recorded cases with it and returns their final latents; full: those of the recorded run, both
    [b, ...]. One that is not finite has gone all the way astray: its error is the latent itself, its visits teach nothing.
    The largest is rehearsed in both ways where that is to be doubted (`fit_or_hold`).
    """
    visits, square = [], recording.patches.layout.mean_square(full)

    def error(rehearsal: CachedRun) -> tuple[float, float]:
        try:
            found = recording.patches.layout.mean_square(run(rehearsal) - full)
        except NotFiniteError:
            found = inf
        if isfinite(found) and isinstance(rehearsal, Rehearsal):
            visits.extend(rehearsal.visits.items())
        return (found if isfinite(found) else square), square

    errors = {tuple(steps): error(Rehearsal(recording, steps)) for steps in chosen}
    holds = {}
    moves = recording.response.moves
    eulers = moves is not None and are_eulers(moves, recording.sigmas)
    if not eulers and not statistics.held and doubtful(errors):
        most = tuple(max(chosen, key=len))
        holding = make_schedule(sigmas=tuple(recording.sigmas), compute_steps=most, predictor={"kind": "hold"})
        holds[most] = error(CachedRun(holding, recording.patches.layout))
    return replace(statistics, visits=summed(visits), rehearsals=errors, holds=holds)


def lesson(
    generator: Generator, cases: Sequence, trajectories: Sequence[Trajectory], origin: Origin = Origin(),  # noqa: B008
    known: Statistics | None = None,
) -> Statistics:  # fmt: skip
    """What recorded full runs of `cases` teach, each rehearsed on `generator`; see `statistics` and `sampling.rehearsal`.

    Makes `sum(rehearsed_budgets(N))` evaluations a case.
    """
    total = None
    for case, full in zip(cases, trajectories, strict=True):
        eulers = Response(np.diff(full.sigmas))
        if full.patches:
            recording = Recording(full.sigmas, full.x[:, None], full.d[:, None], full.patches, eulers)
        else:
            patches = Patches(full.x[:1].shape, ELEMENTS, full.layout)
            kept = (torch.stack([patches.of(row[None]) for row in part]) for part in (full.x, full.d))
            recording = Recording(full.sigmas, *kept, patches, eulers)
        one = of_recording(recording, origin)
        chosen = rehearsal_steps(one, total or known)
        one = rehearsed(one, recording, chosen, partial(drive, generator=generator, cases=[case]), full.final[None])
        total = one if total is None else total + one
    return total
