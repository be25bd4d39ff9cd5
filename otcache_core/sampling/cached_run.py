"""The state machine of one sampling run: which steps run the model, and what the others use instead."""

from bisect import bisect_right

import numpy as np
import torch

from ..errors import OTCacheError
from ..schedules.extrapolation import ORDERS, divided_differences, prior_weights
from ..schedules.schedule import HISTORY, Schedule
from .layout import Layout
from .predictors import combine, mean_velocity, mean_velocity_step, ramp_slope, slope_weights
from .response import Response, are_eulers

AHEAD = 2  # steps that a sampler may look ahead before it comes back


class CachedRun:
    """Drives one run of a schedule; made at its start, dropped at its end.

    For each step i, in order: if `computes(i)`, evaluate the model and `observe(i, d)`, else take `predict(i)`; d is
    dx / dsigma at the step's start, one tensor shape throughout. The run keeps the last `HISTORY` evaluations by
    reference and never writes to them; where only the newest counts it keeps that one, and for mean velocities the last
    `span` velocities, predicted ones included.

    layout: of the run's latents, None for plain ones. A schedule with weights for other bands than they have goes by those of
    its first band alone.

    A sampler's driver goes by `suit`, `evaluated` and `denoised` instead: with samplers that add noise, what is kept and
    given again is the denoised latent, since no velocity knows of noise that was added after it. So it is where a multistep
    sampler's steps are to hold: that looks back on denoised latents, which a held velocity moves wherever its moves are not
    Euler's, and goes on from there (measured: up to 9 dB at 20 steps, at most 1 dB less at 50).
    """

    def __init__(self, schedule: Schedule, layout: Layout | None = None):
        self.schedule, self.layout = schedule, layout
        self.sigmas = np.asarray(schedule.sigmas)
        self.evaluations = 0
        self._segment = {start: k for k, (start, _) in enumerate(schedule.segments)}
        self._history: list[tuple[int, object]] = []  # (step, velocity), newest first
        self._longest_history = 1 if schedule.predictor.kind in ("hold", "mean_velocity") else HISTORY
        self._slope = None  # of the ramp to the next compute step
        self._numbers: dict[tuple[int, ...], tuple] = {}  # what does not change between two evaluations, by their steps
        self._longest_span = max(schedule.spans or (0,)) if schedule.predictor.kind == "mean_velocity" else 0
        self._log: dict[int, object] = {}
        self.response, self._holds_denoised = Response(), False

    def suit(self, response: Response) -> None:
        """Take in what the sampler makes of velocities, before its first step."""
        self.response, moves = response, response.moves
        multistep = moves is not None and not are_eulers(moves, self.sigmas)
        self._holds_denoised = response.astray or multistep and self.schedule.predictor.kind == "hold"

    def can_predict(self, step: int) -> bool:
        """Whether the evaluation is there that `step` goes out from: the schedule's newest one before it, or one made since.

        A sampler that went back up has none, but for those that look a step or two ahead and come back (heunpp2).
        """
        if not self._history:
            return False
        newest, chosen = self._history[0][0], self.schedule.compute_steps
        return chosen[bisect_right(chosen, step) - 1] <= newest <= step + AHEAD

    @property
    def watches(self) -> bool:
        """Whether evaluations are to be told to it; not where nothing will be skipped."""
        return self.schedule.budget < self.schedule.steps

    @property
    def combines(self) -> int:
        """The most evaluations that `coefficients` gives a weight."""
        predictor = self.schedule.predictor
        if predictor.kind == "fitted":
            return max(len(row) for row in self.schedule.weights) // predictor.bands
        return ORDERS.get(predictor.kind, 0) + 1

    def computes(self, step: int) -> bool:
        """Whether `step` runs the model."""
        return step in self._segment

    def evaluated(self, step: int, x, denoised, sigma: float) -> None:
        """`observe` what the model made of the latent x at `sigma`: the denoised latent."""
        self.observe(step, denoised.clone() if self._holds_denoised else torch.sub(x, denoised).div_(sigma), x)

    def denoised(self, step: int, x, sigma: float):
        """What the model might make of the latent x at `sigma`, of a step that is skipped; a new tensor."""
        if self._holds_denoised:
            return self._history[0][1].clone()
        return x.sub(self.predict(step, sigma), alpha=sigma)

    def observe(self, step: int, d, x=None) -> None:
        """Take in the evaluation made at `step`; x, the latent there, is for recordings only.

        A step outside the schedule is an extra evaluation, made because the older ones no longer apply (other conditioning,
        another latent): they are forgotten, and prediction continues from this one until the next compute step. A second
        evaluation of one step replaces the first; one that lies before the newest replaces what came after it.
        """
        if step not in self._segment:
            self.forget()
        self.evaluations += 1
        while self._history and self._history[0][0] >= step:
            del self._history[0]
        self._history.insert(0, (step, d))
        del self._history[self._longest_history :]
        self._slope = None
        self._numbers.clear()
        self._remember(step, d)

    def forget(self) -> None:
        """Drop all evaluations: the next step has to be evaluated, whether the schedule computes it or not."""
        self._history.clear()
        self._log.clear()
        self._slope = None
        self._numbers.clear()

    def predict(self, step: int, sigma: float | None = None):
        """The velocity at `step`, a new tensor; at `sigma` where a sampler evaluates between grid points.

        Raises `OTCacheError` before the first evaluation.
        """
        if not self._history:
            raise OTCacheError(f"Step {step} was predicted before any evaluation; compute the first step of every run.")
        sigma = float(self.sigmas[step] if sigma is None else sigma)
        predictor = self.schedule.predictor
        if predictor.kind in ORDERS:
            weights = self._extrapolation(sigma, self._steps())
            return combine(weights, [velocity for _, velocity in self._history[: len(weights)]])
        if predictor.kind == "mean_velocity":
            d = self._mean_velocity(step)
            self._remember(step, d)
            return d.clone()  # what is remembered stays the run's own
        start, velocity = self._history[0]
        if self._slope is None:
            self._slope = self._fitted_slope()
        return velocity + (sigma - float(self.sigmas[start])) * self._slope

    def coefficients(self, sigma: float, steps: tuple[int, ...]) -> list[list[float]]:
        """Weights at `sigma` of the evaluations made at `steps`, newest first, at least one: a row for each band.

        For whoever keeps something else of these evaluations than their velocities, or fewer of them: applied to velocities
        they give `predict`, each of several rows to its band (`combine_bands`). A row may be shorter than `steps`: what it
        leaves out has no weight. Mean velocities build on predicted ones, of which nothing else exists: the newest is held.
        """
        predictor = self.schedule.predictor
        if predictor.kind == "mean_velocity":
            return [[1.0]]
        if predictor.kind in ORDERS:
            return [self._extrapolation(sigma, steps)]
        if steps not in self._numbers:
            ramp = self._ramp(steps)
            self._numbers[steps] = [[0.0]] if ramp is None else slope_weights(*ramp, bands=predictor.bands).tolist()
        offset = sigma - float(self.sigmas[steps[0]])
        rows = [[offset * slope for slope in row] for row in self._numbers[steps]]
        for row in rows:
            row[0] += 1.0
        return rows

    def _steps(self) -> tuple[int, ...]:
        return tuple(step for step, _ in self._history)

    def _past(self) -> np.ndarray:
        return self.sigmas[list(self._steps())]

    def _extrapolation(self, sigma: float, steps: tuple[int, ...]) -> list[float]:
        # `extrapolation_weights` for one sigma, on plain numbers: NumPy would be most of what a skipped step costs.
        steps = steps[: ORDERS[self.schedule.predictor.kind] + 1]
        if steps not in self._numbers:
            past = self.sigmas[list(steps)]
            self._numbers[steps] = past.tolist(), divided_differences(past).tolist()
        past, rows = self._numbers[steps]
        weights, factor = rows[0], self.schedule.predictor.damping
        for start, row in zip(past, rows[1:], strict=False):
            factor *= sigma - start
            weights = [w + factor * r for w, r in zip(weights, row, strict=True)]
        return weights

    def _ramp(self, steps: tuple[int, ...]):
        """(weights of its mean velocity, its grid, moves) of the segment from steps[0], the evaluations at `steps` being there.

        The fitted weights hold for the evaluations that the schedule names. With others (after an extra evaluation) the
        unfitted prior takes their place. None where the segment has no skipped step to land anywhere.
        """
        chosen = self.schedule.compute_steps
        following = bisect_right(chosen, steps[0])
        end = chosen[following] if following < len(chosen) else self.schedule.steps
        if end == steps[0] + 1:
            return None
        grid, bands, moves = self.sigmas[steps[0] : end + 1], self.schedule.predictor.bands, self.response.moves
        row = self.schedule.weights[following - 1]
        m = len(row) // bands
        if steps[:m] != chosen[max(following - m, 0) : following][::-1]:
            row = tuple(prior_weights(self.sigmas[list(steps)], grid)) * bands
        return row, grid, None if moves is None else moves[steps[0] : end]

    def _fitted_slope(self):
        """Slope of the ramp from the newest evaluation to the next compute step."""
        velocities = [velocity for _, velocity in self._history]
        ramp = self._ramp(self._steps())
        if ramp is None:
            return torch.zeros_like(velocities[0])
        row, *segment = ramp
        mean = mean_velocity(row, velocities, self.schedule.predictor.bands, self.layout)
        return ramp_slope(mean, velocities[0], *segment)

    def _mean_velocity(self, step: int):
        k = bisect_right(self.schedule.compute_steps, self._history[0][0]) - 1
        steps = range(max(step - self.schedule.spans[k], 0), step)
        # One step back there is no displacement to compare with: MeanCache's K = 1 holds. So does a run that was
        # restarted less than K steps ago.
        if len(steps) < 2 or any(i not in self._log for i in steps):
            return self._log[step - 1] if step - 1 in self._log else self._history[0][1]
        return mean_velocity_step(self.sigmas[steps[0] : step + 2], [self._log[i] for i in steps])

    def _remember(self, step: int, d) -> None:
        if self._longest_span:
            self._log[step] = d
            self._log.pop(step - self._longest_span, None)
