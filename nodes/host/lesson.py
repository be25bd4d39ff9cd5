"""A lesson: one run in full, recorded while it is made, then short rehearsals of the same run."""

import logging
import traceback
from collections.abc import Callable
from dataclasses import replace

import comfy.model_management
import numpy as np

from ...otcache_core.calibration.ladder import rehearsed_budgets
from ...otcache_core.calibration.lessons import rehearsal_steps, rehearsed
from ...otcache_core.calibration.statistics import MOST_STEPS, Origin, Statistics, of_recording
from ...otcache_core.errors import OTCacheError
from ...otcache_core.sampling.cached_run import CachedRun
from ...otcache_core.sampling.layout import Layout
from ...otcache_core.sampling.rehearsal import Recorder, Recording
from .run import HostRun
from .run_report import Report
from .sampler_response import chance, chance_before


class Lesson:
    """The state of a run that teaches; drop-in for `HostRun`. The picture is the full run's, bit for bit.

    layout: of the latents. known: what was learnt before on this grid, whose rehearsals are made again so that both add up.
    keep(statistics): called once when the run taught something; returns what the report says of it. rehearses: False for a
    run that is made in full anyway, and records only. asked: the budget of the next runs, 0 for any.
    """

    def __init__(
        self, grid: np.ndarray, layout: Layout, guider, sampler, origin: Origin, known: Statistics | None,
        keep: Callable[[Statistics], str], rehearses: bool = True, say: Callable[[str], None] | None = None, asked: int = 0,
    ):  # fmt: skip
        self._grid, self._layout, self._sampler = grid, layout, sampler
        self._origin, self._known, self._keep, self._rehearses, self._asked = origin, known, keep, rehearses, asked
        self._say = say or (lambda text: None)
        self._run = HostRun(self._recorder, grid, guider, sampler)
        self._report: Report | None = None
        self._rehearsing = False

    def _recorder(self) -> Recorder:
        steps = len(self._grid) - 1
        if steps > MOST_STEPS:
            raise OTCacheError(f"a run of {steps} steps is too long to learn from; sample one of {MOST_STEPS} or fewer")
        if not rehearsed_budgets(steps):
            raise OTCacheError(f"{steps} steps leave nothing to skip")
        return Recorder(self._grid, self._layout)

    def predict_noise(self, *args, **kwargs):
        """The PREDICT_NOISE wrapper, of the run and of its rehearsals."""
        if self._rehearsing:
            comfy.model_management.throw_exception_if_processing_interrupted()
        return self._run.predict_noise(*args, **kwargs)

    def apply_model(self, *args, **kwargs):
        """The APPLY_MODEL wrapper, of the run and of its rehearsals."""
        return self._run.apply_model(*args, **kwargs)

    def sampler_sample(
        self, executor, guider, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
    ):
        """The SAMPLER_SAMPLE wrapper: sample in full, then rehearse with the same sampler from the same noise."""
        grid, start = sigmas.clone(), noise.to("cpu", copy=True)  # some samplers write into them
        before = chance_before(sigmas.device)
        response = self._run.suit(guider, sigmas, extra_args, noise)
        output = executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar)
        self._report = self._run.finish(output)
        if self._report.reason:
            return output

        def again(rehearsal: CachedRun):
            self._run.close()
            rehearsal.suit(response)
            self._run = HostRun(lambda: rehearsal, self._grid, guider, self._sampler)
            with chance(before):  # noise of older versions comes from generators that all share
                return executor(guider, grid.clone(), dict(extra_args), None, noise.copy_(start), latent_image, None, True)

        try:
            if denoise_mask is not None:
                raise OTCacheError("a part of the picture is masked, which teaches nothing")
            if not output.isfinite().all():
                raise OTCacheError("the run was not finite (NaN or infinity)")
            statistics, evaluations = self._learn(self._run.cached.recording(), again, output)
        except OTCacheError as error:
            self._tell(f"nothing was learnt: {str(error).rstrip('.')}")
            return output
        except comfy.model_management.InterruptProcessingException:  # an Exception in older versions
            raise
        except Exception as error:  # whatever fails here, the picture is made
            # As text: a traceback that a log handler keeps would keep the run's tensors.
            logging.warning("OTCache: learning from a run failed\n%s", traceback.format_exc())
            self._tell(f"nothing was learnt: {type(error).__name__}, see the log")
            return output
        rehearsed = f", with {evaluations} evaluations more to rehearse" if evaluations else ""
        try:
            self._tell(f"learnt from this run{rehearsed}; {self._keep(statistics)}")
        except OTCacheError as error:
            self._tell(f"what was learnt could not be kept: {str(error).rstrip('.')}")
        return output

    def _learn(self, recording: Recording, again: Callable, output) -> tuple[Statistics, int]:
        statistics = of_recording(recording, self._origin)
        if not self._rehearses:
            return statistics, 0
        chosen, made = rehearsal_steps(statistics, self._known, self._asked), []
        recording = recording.landings
        self._rehearsing = True

        def run(rehearsal: CachedRun):
            count = max(len(chosen), len(made) + 1)  # one more where the largest is to hold as well
            self._say(f"rehearsing {len(made) + 1} of {count}, {rehearsal.schedule.budget} evaluations")
            try:
                return again(rehearsal)
            finally:  # one that goes astray ends before its time
                made.append(self._run.finish(output).evaluations)

        return rehearsed(statistics, recording, chosen, run, output), sum(made)

    def _tell(self, reason: str) -> None:
        self._report = replace(self._report, reason=reason)
        if self._rehearsing:  # its last words on the node would stay there
            self._say("learnt" if reason.startswith("learnt") else reason)  # the strip says the rest

    def finish(self, output) -> Report:
        """The report of the run."""
        return self._report or self._run.finish(output)

    def close(self) -> None:
        """Free every tensor of the lesson."""
        self._run.close()
        self._run = None
