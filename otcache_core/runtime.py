"""The state machine of one sampling run: which steps run the model, and what the others use instead."""

import numpy as np

from .errors import OTCacheError
from .predictors import combine, extrapolation_weights, mean_velocity, mean_velocity_step, ramp_slope
from .schedule import HISTORY, Schedule

ORDERS = {"hold": 0, "linear": 1, "quadratic": 2}


class CachedRun:
    """Drives one run of a schedule; made at its start, dropped at its end.

    For each step i, in order: if `computes(i)`, evaluate the model and `observe(i, d)`, else take `predict(i)`; d is
    dx / dsigma at the step's start, one tensor shape throughout. The run keeps the last `HISTORY` evaluations by
    reference and never writes to them; for mean velocities it keeps the last `span` velocities, predicted ones included.
    """

    def __init__(self, schedule: Schedule):
        self.schedule = schedule
        self.sigmas = np.asarray(schedule.sigmas)
        self.evaluations = 0
        self._segment = {start: k for k, (start, _) in enumerate(schedule.segments)}
        self._k = -1
        self._history: list[tuple[float, object]] = []
        self._slope = None
        self._longest_span = max(schedule.spans or (0,)) if schedule.predictor.kind == "mean_velocity" else 0
        self._log: dict[int, object] = {}

    def computes(self, step: int) -> bool:
        """Whether `step` runs the model."""
        return step in self._segment

    def observe(self, step: int, d) -> None:
        """Take in the evaluation made at `step`."""
        if step not in self._segment:
            raise OTCacheError(f"Step {step} was evaluated, but is no compute step of this schedule; predict it instead.")
        self.evaluations += 1
        self._k = self._segment[step]
        if self._history and self._history[0][0] == self.sigmas[step]:
            del self._history[0]  # a second evaluation of one step replaces the first
        self._history.insert(0, (float(self.sigmas[step]), d))
        del self._history[HISTORY:]
        self._slope = None
        self._remember(step, d)

    def predict(self, step: int, sigma: float | None = None):
        """The velocity at `step`, a new tensor; at `sigma` where a sampler evaluates between grid points.

        Raises `OTCacheError` before the first evaluation.
        """
        if self._k < 0:
            raise OTCacheError(f"Step {step} was predicted before any evaluation; compute the first step of every run.")
        sigma = float(self.sigmas[step] if sigma is None else sigma)
        predictor = self.schedule.predictor
        start, velocity = self._history[0]
        if predictor.kind in ORDERS:
            past = np.array([s for s, _ in self._history])
            weights = extrapolation_weights(past, sigma, ORDERS[predictor.kind], predictor.damping)
            return combine(weights, [v for _, v in self._history])
        if predictor.kind == "mean_velocity":
            d = self._mean_velocity(step)
            self._remember(step, d)
            return d.clone()  # what is remembered stays the run's own
        if self._slope is None:
            begin, end = self.schedule.segments[self._k]
            mean = mean_velocity(self.schedule.weights[self._k], [v for _, v in self._history], predictor.bands)
            self._slope = ramp_slope(mean, velocity, self.sigmas[begin : end + 1])
        return velocity + (sigma - start) * self._slope

    def _mean_velocity(self, step: int):
        span = min(self.schedule.spans[self._k], step)
        if span < 2:  # one step back there is no displacement to compare with: MeanCache's K = 1 holds
            return self._log[step - 1] if step - 1 in self._log else self._history[0][1]
        steps = range(step - span, step)
        return mean_velocity_step(self.sigmas[step - span : step + 2], [self._log[i] for i in steps])

    def _remember(self, step: int, d) -> None:
        if self._longest_span:
            self._log[step] = d
            self._log.pop(step - self._longest_span, None)
