"""Cached Euler runs of a group of cases, sharing every common prefix of compute steps.

Between two compute steps every predictor moves the latent by h times a mean velocity that is a combination of past
evaluations. So the state at the k-th compute step depends on the first k steps only, and two schedules that begin alike
share that part of the run. `CachedRun` walks the same path step by step; a test holds them together.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from ..errors import NotFiniteError, OTCacheError
from ..schedules.extrapolation import ORDERS, extrapolated_mean_weights, prior_weights
from ..schedules.schedule import HISTORY, Predictor, Schedule, check_steps
from .cached_run import CachedRun
from .filed import Filed, Files, give_back
from .generator import Counted, Generator, layout_of  # noqa: F401  the first is found here too
from .predictors import RIDGE, fit_weights, mean_velocity
from .trajectory import Trajectory, recorded_run

FILED = 8  # times the limit of memory that states may take of a disk
FITTED = Predictor(kind="fitted", bands=2)  # what calibration fits to pictures


def fitted_to(bands: int) -> Predictor:
    """What is fitted to latents of so many `bands` (`Layout.bands`): weights for each."""
    return FITTED.model_copy(update={"bands": bands})


def record(generator: Generator, case, sigmas: np.ndarray) -> Trajectory:
    """Run `case` in full with N Euler steps and keep it; raises `OTCacheError` when something is not finite."""

    def steps():
        x = generator.noise(case)
        for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
            d = generator.velocity(x[None], float(sigma), [case])[0]
            yield x, d
            x = x + d * float(following - sigma)
        yield x, None

    return recorded_run(sigmas, steps(), layout_of(generator))


def sample(generator: Generator, cases: Sequence, schedule: Schedule) -> torch.Tensor:
    """Final latents [n, *latent] of cached Euler runs driven step by step by `CachedRun`, as a sampler node does it."""
    return drive(CachedRun(schedule, layout_of(generator)), generator, cases)


def drive(run: CachedRun, generator: Generator, cases: Sequence) -> torch.Tensor:
    """Final latents [n, *latent] of `cases` in Euler steps under `run`, which is told the latents too."""
    x = torch.stack([generator.noise(case) for case in cases])
    for step, (sigma, following) in enumerate(pairwise(run.sigmas.tolist())):
        if run.computes(step):
            d = generator.velocity(x, sigma, cases)
            run.observe(step, d, x)
        else:
            d = run.predict(step)
        x = x + d * (following - sigma)
    return x


@dataclass(frozen=True)
class RolloutState:
    """The state of a cached run at its k-th compute step.

    x: latents [cases, ...] there; d: the last evaluations, newest first; rows: mean-velocity weights of the k segments
    that led here. Of large latents x and d are what recordings keep of them; the whole ones lie in files, case by case:
    whole[case] is (latent, evaluations), each of one case [1, ...].
    """

    x: torch.Tensor
    d: tuple[torch.Tensor, ...]
    rows: tuple[tuple[float, ...], ...]
    whole: tuple[tuple[Filed, tuple[Filed, ...]], ...] = ()

    @property
    def nbytes(self) -> int:
        return self.x.nbytes + self.d[0].nbytes  # older evaluations belong to the states before


def stack(trajectories: Sequence[Trajectory], name: str, step: int) -> torch.Tensor:
    """The recorded "x" or "d" of all cases at one step, [cases, ...]."""
    return torch.stack([getattr(trajectory, name)[step] for trajectory in trajectories])


class Rollouts:
    """Cached runs of one group of cases.

    For predictor "fitted" each segment's weights are fitted as the run goes, by ridge least squares over the group, so
    that the cached latent lands on the recorded one; pass `rows` to use given weights instead. One of several bands is fitted
    to those that the latents have. States beyond `max_bytes` are forgotten, least recently used first, and simply computed
    again. Where recordings are samples, weights are fitted on these, cases are run one after the other, and states lie in
    temporary files, up to `FILED` times `max_bytes` of them.
    """

    def __init__(
        self,
        generator: Generator,
        cases: Sequence,
        trajectories: Sequence[Trajectory],
        predictor: Predictor = FITTED,
        ridge: float = RIDGE,
        max_bytes: int = 2**29,
    ):
        if predictor.kind not in (*ORDERS, "fitted"):
            raise OTCacheError(f'Rollouts cannot use predictor "{predictor.kind}"; use "fitted" or an extrapolation.')
        if not len(cases) or len(cases) != len(trajectories):
            raise OTCacheError(f"{len(cases)} cases with {len(trajectories)} recordings; give one recording for each case.")
        self.layout = trajectories[0].layout
        if predictor.kind == "fitted" and predictor.bands > 1:
            predictor = fitted_to(self.layout.bands)
        self.generator, self.cases, self.predictor, self.ridge = generator, list(cases), predictor, ridge
        self.sigmas = trajectories[0].sigmas
        self.trajectories = trajectories
        self._states: OrderedDict[tuple, RolloutState] = OrderedDict()
        self._bytes, self._max_bytes = 0, max_bytes
        self._files, self._batches = None, [self.cases]
        if trajectories[0].patches:
            self._files, self._batches, self._max_bytes = Files(), [[case] for case in cases], max_bytes * FILED

    def run(self, steps: Sequence[int], rows: Sequence | None = None) -> tuple[torch.Tensor, tuple]:
        """Final latents [cases, ...] and the weights used, one row a segment."""
        state, row, span = self._last_segment(steps, rows)
        latents = joined([self._moved(state, number, row, span) for number in range(len(self._batches))])
        self._check(latents, len(self.sigmas) - 1)
        return latents, (*state.rows, row)

    def weights(self, steps: Sequence[int]) -> tuple:
        """The weights that `run` uses."""
        state, row, _ = self._last_segment(steps, None)
        return (*state.rows, row)

    def _last_segment(self, steps: Sequence[int], rows) -> tuple[RolloutState, tuple, float]:
        """The state that the last segment begins at, and its weights and span."""
        try:
            steps = check_steps(steps, len(self.sigmas) - 1)
        except ValueError as error:
            raise OTCacheError(f"{error}.") from None
        for k in range(1, len(steps), 256):  # so that the recursion stays shallow
            self.state_at(steps[:k], rows)
        state = self.state_at(steps, rows)
        return state, *self._segment(state, steps, len(self.sigmas) - 1, rows)

    def _check(self, tensor: torch.Tensor, step: int) -> None:
        if not torch.isfinite(tensor).all():
            raise NotFiniteError(f"A cached run is not finite (NaN or infinity) at step {step}; run in higher precision.")

    def begun(self, steps: tuple[int, ...], rows: Sequence | None = None) -> int:
        """How many evaluations of `steps` are known from other schedules that begin alike."""
        lengths = range(len(steps), 0, -1)
        return next((k for k in lengths if self._key(steps[:k], rows) in self._states), 0)

    @staticmethod
    def _key(prefix: tuple[int, ...], rows: Sequence | None) -> tuple:
        return prefix, None if rows is None else tuple(map(tuple, rows[: len(prefix) - 1]))

    def state_at(self, prefix: tuple[int, ...], rows: Sequence | None = None) -> RolloutState:
        """The state at the last step of `prefix`, evaluated there."""
        key = self._key(prefix, rows)
        if key in self._states:
            self._states.move_to_end(key)
            return self._states[key]
        step = prefix[-1]
        if step == len(prefix) - 1 and self._files is None:  # every step so far was computed: this is the recorded run itself
            d = tuple(stack(self.trajectories, "d", i) for i in range(step, max(step - HISTORY, -1), -1))
            state = RolloutState(stack(self.trajectories, "x", step), d, tuple(self._own(k) for k in range(step)))
        elif step:
            before = self.state_at(prefix[:-1], rows)
            row, span = self._segment(before, prefix[:-1], step, rows)
            moved = (self._moved(before, number, row, span) for number in range(len(self._batches)))
            state = self._evaluated(moved, step, (*before.rows, row), before)
        else:
            state = self._evaluated((self.generator.noise(case)[None] for case in self.cases), 0, ())
        self._states[key] = state
        self._bytes += self._cost(state)
        while self._bytes > self._max_bytes and len(self._states) > 1:
            self._bytes -= self._cost(self._states.popitem(last=False)[1])
        return state

    def _cost(self, state: RolloutState) -> int:
        """Bytes in memory, or in files."""
        return state.nbytes if self._files is None else 2 * sum(run.final.nbytes for run in self.trajectories)

    def _evaluated(
        self, latents: Iterable[torch.Tensor], step: int, rows: tuple, before: RolloutState | None = None
    ) -> RolloutState:  # fmt: skip
        """The state after an evaluation at `latents`, a batch each."""
        kept, seen, whole = self.trajectories[0].kept, [], []
        latents = iter(latents)
        for number, cases in enumerate(self._batches):
            x = next(latents)  # zip would hold the last one while this one is made
            d = self.generator.velocity(x, float(self.sigmas[step]), cases)
            self._check(d, step)
            seen.append((kept(x), kept(d)))
            if self._files:
                older = before.whole[number][1] if before else ()
                whole.append((self._files.put(x), (self._files.put(d), *older)[:HISTORY]))
                del x, d  # before the next case's are made
                give_back()
        x, d = map(joined, zip(*seen, strict=True))
        return RolloutState(x, (d, *(before.d if before else ()))[:HISTORY], rows, tuple(whole))

    def _own(self, k: int) -> tuple[float, ...]:
        return ((1.0,) + (0.0,) * min(k, HISTORY - 1)) * self.predictor.bands

    def _segment(self, state: RolloutState, steps: tuple[int, ...], end: int, rows) -> tuple[tuple[float, ...], float]:
        """Weights and span of the segment from `state`, at the last of `steps`, to `end`."""
        start, k = steps[-1], len(steps) - 1
        grid = self.sigmas[start : end + 1]
        past = self.sigmas[list(steps[::-1][:HISTORY])]
        span = float(grid[-1] - grid[0])
        if end == start + 1:
            row = self._own(k)
        elif self.predictor.kind in ORDERS:
            row = extrapolated_mean_weights(past, grid, ORDERS[self.predictor.kind], self.predictor.damping)
        elif rows is not None:
            row = rows[k]
        else:
            target = (stack(self.trajectories, "x", end) - state.x) / span
            row = fit_weights(state.d, target, prior_weights(past, grid), self.ridge, self.predictor.bands, self.layout)
        return tuple(float(w) for w in row), span

    def _moved(self, state: RolloutState, number: int, row: tuple[float, ...], span: float) -> torch.Tensor:
        """The latents [n, ...] of a batch after a segment from `state`."""
        layout, bands = self.trajectories[0].whole_layout, self.predictor.bands
        if not state.whole:
            return state.x + mean_velocity(row, state.d, bands, layout) * span
        filed, older = state.whole[number]
        x, d = filed.read(), tuple(one.read() for one in older)
        # Channel by channel, which gives the same: whole ones would take several times the memory.
        apart = 1 if x.ndim > 3 and not layout.packed else x.shape[1]
        pieces = zip(x.split(apart, 1), *(one.split(apart, 1) for one in d), strict=True)
        return torch.cat([piece + mean_velocity(row, past, bands, layout) * span for piece, *past in pieces], 1)


def joined(batches: Sequence[torch.Tensor]) -> torch.Tensor:
    """Batches [n, ...] as one."""
    return batches[0] if len(batches) == 1 else torch.cat(batches)
