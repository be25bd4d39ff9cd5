"""Cached Euler runs of a group of cases, sharing every common prefix of compute steps.

Between two compute steps every predictor moves the latent by h times a mean velocity that is a combination of past
evaluations. So the state at the k-th compute step depends on the first k steps only, and two schedules that begin alike
share that part of the run. `CachedRun` walks the same path step by step; a test holds them together.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch

from ..errors import OTCacheError
from ..schedules.extrapolation import ORDERS, extrapolated_mean_weights, prior_weights
from ..schedules.schedule import HISTORY, Predictor, Schedule, check_steps
from .cached_run import CachedRun
from .layout import Layout
from .predictors import RIDGE, fit_weights, mean_velocity
from .trajectory import Trajectory

FITTED = Predictor(kind="fitted", bands=2)  # what calibration fits to pictures


def fitted_to(bands: int) -> Predictor:
    """What is fitted to latents of so many `bands` (`Layout.bands`): weights for each."""
    return FITTED.model_copy(update={"bands": bands})


class Generator(Protocol):
    """What the stages need of a model. A case is whatever the generator takes for a prompt and a seed.

    One whose latents pack several parts has an attribute `layout` that tells them (`sampling.layout.Layout`).
    """

    def noise(self, case: Any) -> torch.Tensor:
        """The latent [*latent] that the run of `case` starts from, at the first sigma."""

    def velocity(self, x: torch.Tensor, sigma: float, cases: Sequence[Any]) -> torch.Tensor:
        """dx / dsigma [n, *latent] at latents x [n, *latent] of n cases; guidance included."""

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures [n, 3, H, W] in [0, 1] from final latents [n, *latent]."""


class Counted:
    """A generator that counts model evaluations, one for each case and sigma, and calls `tick` so that work can stop.

    Raising in `tick` interrupts between two evaluations; whatever was stored until then stays. seconds: spent in evaluations;
    decoded: pictures.
    """

    def __init__(self, generator: Generator, tick: Callable[[int], None] | None = None):
        self.generator, self.layout = generator, layout_of(generator)
        self.evaluations, self.decoded, self.seconds, self._made = 0, 0, 0.0, 0
        self._first: tuple[int, float] | None = None  # cases and seconds of the first call, which may load or compile
        self.tick = tick

    @property
    def pace(self) -> float | None:
        """Seconds an evaluation takes, None before the first is made; that one counts only while it is the only one."""
        if self._first is None:
            return None
        cases, seconds = self._first
        further = self._made - cases
        return (self.seconds - seconds) / further if further else seconds / cases

    def noise(self, case):
        return self.generator.noise(case)

    def decode(self, x):
        self.decoded += len(x)
        return self.generator.decode(x)

    def velocity(self, x, sigma, cases):
        self.evaluations += len(cases)
        if self.tick:
            self.tick(self.evaluations)
        begin = time.perf_counter()
        found = self.generator.velocity(x, sigma, cases)
        took = time.perf_counter() - begin
        self.seconds, self._made = self.seconds + took, self._made + len(cases)
        self._first = self._first or (len(cases), took)
        return found


def layout_of(generator: Generator) -> Layout | None:
    """How the latents of `generator` are laid out; None for plain ones."""
    return getattr(generator, "layout", None)


def record(generator: Generator, case, sigmas: np.ndarray) -> Trajectory:
    """Run `case` in full with N Euler steps and keep everything; raises `OTCacheError` when something is not finite."""
    x = generator.noise(case)
    latents, velocities = [x], []
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        d = generator.velocity(x[None], float(sigma), [case])[0]
        x = x + d * float(following - sigma)
        latents.append(x)
        velocities.append(d)
    return Trajectory(sigmas, torch.stack(latents), torch.stack(velocities), layout_of(generator))


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
    that led here.
    """

    x: torch.Tensor
    d: tuple[torch.Tensor, ...]
    rows: tuple[tuple[float, ...], ...]

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
    again.
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

    def run(self, steps: Sequence[int], rows: Sequence | None = None) -> tuple[torch.Tensor, tuple]:
        """Final latents [cases, ...] and the weights used, one row a segment."""
        try:
            steps = check_steps(steps, len(self.sigmas) - 1)
        except ValueError as error:
            raise OTCacheError(f"{error}.") from None
        for k in range(1, len(steps), 256):  # so that the recursion stays shallow
            self.state_at(steps[:k], rows)
        latents, used = self._advance(self.state_at(steps, rows), steps, len(self.sigmas) - 1, rows)
        self._check(latents, len(self.sigmas) - 1)
        return latents, used

    def _check(self, tensor: torch.Tensor, step: int) -> None:
        if not torch.isfinite(tensor).all():
            raise OTCacheError(f"A cached run is not finite (NaN or infinity) at step {step}; run in higher precision.")

    def state_at(self, prefix: tuple[int, ...], rows: Sequence | None = None) -> RolloutState:
        """The state at the last step of `prefix`, evaluated there."""
        key = (prefix, None if rows is None else tuple(map(tuple, rows[: len(prefix) - 1])))
        if key in self._states:
            self._states.move_to_end(key)
            return self._states[key]
        step = prefix[-1]
        if step == len(prefix) - 1:  # every step so far was computed: this is the recorded run itself
            d = tuple(stack(self.trajectories, "d", i) for i in range(step, max(step - HISTORY, -1), -1))
            state = RolloutState(stack(self.trajectories, "x", step), d, tuple(self._own(k) for k in range(step)))
        else:
            before = self.state_at(prefix[:-1], rows)
            x, used = self._advance(before, prefix[:-1], step, rows)
            d = self.generator.velocity(x, float(self.sigmas[step]), self.cases)
            self._check(d, step)
            state = RolloutState(x, (d, *before.d)[:HISTORY], used)
        self._states[key] = state
        self._bytes += state.nbytes
        while self._bytes > self._max_bytes and len(self._states) > 1:
            self._bytes -= self._states.popitem(last=False)[1].nbytes
        return state

    def _own(self, k: int) -> tuple[float, ...]:
        return ((1.0,) + (0.0,) * min(k, HISTORY - 1)) * self.predictor.bands

    def _advance(self, state: RolloutState, steps: tuple[int, ...], end: int, rows) -> tuple[torch.Tensor, tuple]:
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
        row = tuple(float(w) for w in row)
        return state.x + mean_velocity(row, state.d, self.predictor.bands, self.layout) * span, (*state.rows, row)
