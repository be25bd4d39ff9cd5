"""One sampling run under a schedule: decides at every model evaluation whether to make it."""

import logging
import re
from collections.abc import Callable
from functools import partial
from math import inf
from time import perf_counter

import comfy.model_management
import numpy as np
import torch

from ...otcache_core.errors import OTCacheError
from ...otcache_core.sampling.cached_run import CachedRun
from ...otcache_core.sampling.response import Response
from ...otcache_core.sampling.step_finder import StepFinder
from .answers import Answers, is_compiled
from .blocks import BlockReuse
from .known import other_weights
from .run_report import KeptResiduals, Report
from .sampler_response import sampler_response
from .suitability import EULER, check_sampler, learnt, other_bands, other_model, suits
from .understanding import IN_TURN, Calls, unfit

HELD = "the sampler adds noise, or what it does cannot be told, so that skipped steps hold the denoised latent"
NEARER = "the sampler adds noise, and the denoised latent that is held then comes nearer to the full run"
FOREIGN = (
    "the weights were fitted to {} and do not suit this sampler, so that skipped steps hold: one run with OT Auto Cache learns "
    "those of this sampler"
)
NEVER_TAUGHT = "no evaluation gave a velocity of the model's"


class HostRun:
    """The state of one run; `close` frees its tensors.

    begin: makes what decides and predicts, or raises `OTCacheError` with the reason why the run is computed in full. sigmas:
    float64 [N + 1], the run's own grid. `blocks` is None unless blocks are to be reused.
    """

    def __init__(self, begin: Callable[[], CachedRun], sigmas: np.ndarray, guider, sampler, level: str = "output"):
        self.steps = len(sigmas) - 1
        self.guider, self._sampler = guider, sampler
        self.reason, self.level_reason, self.warning, self.note, self.hint = "", "", "", "", ""
        self.cached = None
        try:
            check_sampler(sampler)
            self.cached = begin()
            self.note = learnt(self.cached.schedule)
            schedule, patcher = self.cached.schedule, guider.model_patcher
            told = [other_model(schedule, type(patcher.model).__name__), other_weights(schedule, patcher)]
            self.warning = "; ".join(filter(None, [*told, other_bands(self.cached)]))
            self._starts = churned(sigmas, getattr(sampler, "extra_options", {}))
            self._finder = StepFinder(sigmas, self._starts)
        except OTCacheError as error:
            self.reason = re.sub(r"^The ", "the ", str(error)).rstrip(".")  # it stands within a sentence
        self._watches = self.cached is not None and self.cached.watches
        self.blocks = None
        if level == "blocks" and self._watches:
            self.level_reason = _no_blocks(guider)
            self.blocks = None if self.level_reason else BlockReuse(self.cached.combines, self.cached.layout)
        self._residuals = KeptResiduals()
        self._level = "blocks" if level == "blocks" and not self.level_reason else "output"
        self._calls, self._answers = Calls(guider), Answers()
        self._observed = -1
        self._times: list[float] = []
        self._computed: list[bool] = []
        self._extra = 0

    def sampler_sample(self, executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
        """The SAMPLER_SAMPLE wrapper: before the sampler begins, find out what it does."""
        self.suit(guider, sigmas, extra_args, noise)
        return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)

    def suit(self, guider, sigmas: torch.Tensor, extra_args: dict, noise: torch.Tensor) -> Response:
        """Predict as it suits the sampler, whose response to velocities is returned."""
        if not self._watches:
            return Response()
        response = sampler_response(self._sampler, guider, sigmas, extra_args, noise)
        schedule = self.cached.schedule
        if why := unfit(response, StepFinder(schedule.sigmas, self._starts), schedule.steps):
            self._go_on_in_full(why)
            return response
        self._calls.expected = response.asked
        if not suits(schedule, self._sampler, response):
            self.cached = CachedRun(schedule.replace(predictor={"kind": "hold"}, weights=None), self.cached.layout)
            self.warning = FOREIGN.format(schedule.sampler or EULER)
            self.blocks = self.blocks and BlockReuse(self.cached.combines, self.cached.layout)
        self.cached.suit(response)
        if response.astray:
            self.note = "; ".join(filter(None, (self.note, HELD)))
            if self.blocks:
                self._leave_blocks(NEARER)
        return response

    def apply_model(self, executor, *args, **kwargs):
        """One pass of the model: the APPLY_MODEL wrapper of a run."""
        counted = partial(self._answers.apply_model, executor)
        return self.blocks.apply_model(counted, *args, **kwargs) if self.blocks else counted(*args, **kwargs)

    def predict_noise(self, executor, x, timestep, model_options=None, *args, **kwargs):
        """The guided denoised latent at `x`: the model's own, or predicted. The PREDICT_NOISE wrapper of a run."""
        model_options = {} if model_options is None else model_options  # as in ComfyUI's own
        levels, empty = self._answers.levels(timestep)  # the one wait for the device
        sigma = levels[0]
        self._times.append(perf_counter())
        self._computed.append(True)
        if self.blocks:
            self.blocks.batch = len(x)
        evaluate = partial(executor, x, timestep, model_options, *args, **kwargs)
        if self._watches and (why := self._calls.problem(levels, model_options)):
            self._go_on_in_full(why)
        if not self._watches or not sigma > 0:
            return evaluate()
        # With another latent, other conditionings in use or other guidance, older evaluations no longer apply.
        if self._calls.changes(x, timestep, sigma, model_options) or empty:
            self._forget()
            if self.blocks and self._calls.controlled:
                self._leave_blocks("a ControlNet is applied, which would have to run on every skipped step")
            if self._calls.in_turn:
                self._go_on_in_full(IN_TURN)
                return evaluate()
        step, begins = self._finder.locate(sigma)
        keeps = begins or step != self._observed
        skips = self.cached.can_predict(step) and not self.cached.computes(step)
        if skips and not self.blocks:
            self._computed[-1] = False
            return self.cached.denoised(step, x, sigma)
        if skips:
            self.blocks.replay(step, partial(self._block_weights, sigma))
        elif self.blocks:
            self.blocks.capture(step) if keeps else self.blocks.compute()
        given, problem, teaches, anew = self._answers.to(evaluate, x, self.guider, replayed=skips)
        self._computed[-1] = not skips or self.blocks.missed
        if problem:
            self._go_on_in_full(problem)
        if problem or not self._computed[-1]:
            return given
        self._extra += not self.cached.computes(step)
        if teaches:
            self._check_blocks(x)
            if anew:
                self.cached.forget()
            if keeps or self.cached.takes_stages:
                self._observed = step
                self.cached.evaluated(step, x, given, sigma)
        return given

    def finish(self, output) -> Report:
        """The report of the run that gave `output`."""
        output.flatten()[:1].cpu()  # a GPU's last evaluation may still be under way
        times = [*self._times, perf_counter()]
        if self._watches and all(self._computed) and self._answers.useless:
            self.reason = NEVER_TAUGHT
        return Report(
            steps=self.steps,
            evaluations=sum(self._computed),
            asked=len(self._computed),
            extra=self._extra,
            level=self._level,
            reason=self.reason,
            level_reason=self.level_reason,
            warning=self.warning,
            note="; ".join(filter(None, (self.note, *self._answers.notes))),
            hint=self.hint,
            residuals=self._residuals,
            seconds=tuple(float(second) for second in np.diff(times)),
            computed=tuple(self._computed),
        )

    def close(self) -> None:
        """Free every tensor of the run."""
        if self.cached:
            self.cached.forget()
        if self.blocks:
            self.blocks.clear()
        self._answers.close()
        self._calls.close()
        self.guider = None

    def _forget(self) -> None:
        self._observed = -1
        self.cached.forget()
        self._answers.forget()
        if self.blocks:
            self.blocks.clear()

    def _go_on_in_full(self, why: str) -> None:
        self.reason, self.level_reason, self.warning, self.note = why, "", "", ""
        self._watches, self._extra = False, 0
        self._forget()
        self._answers.close()
        self.blocks, self._residuals = None, KeptResiduals()

    def _block_weights(self, sigma: float, steps: tuple[int, ...]) -> list[list[float]]:
        """How a skipped step at `sigma` combines the evaluations made at `steps`; [[1.0]] would hold the newest of them."""
        return self.cached.coefficients(sigma, steps)

    def _check_blocks(self, x) -> None:
        if self.blocks and self.blocks.problem:
            self._leave_blocks(self.blocks.problem)
        elif self.blocks and not self.blocks.size:
            self.blocks.limit(spare_memory(self.guider.model_patcher.model, x))
            self._residuals = KeptResiduals(self.blocks.most, self.blocks.wanted, self.blocks.size)
            logging.info("OTCache: %s.", self._residuals.text)

    def _leave_blocks(self, why: str) -> None:
        self.level_reason, self._level, self._residuals = why, "output", KeptResiduals()
        self.blocks.clear()
        self.blocks = None


def spare_memory(model, x) -> int:
    """Bytes free on the device of the latent `x` beyond what ComfyUI reckons a pass of `model` with both prompts takes."""
    needed = model.memory_required([2 * len(x), *x.shape[1:]])
    return int(comfy.model_management.get_free_memory(x.device) - needed)


def churned(sigmas: np.ndarray, options: dict) -> list[float] | None:
    """Where each step begins under a sampler's s_churn, s_tmin and s_tmax (Karras et al. 2022, algorithm 2), if it has any."""
    if not options.get("s_churn"):
        return None
    steps = len(sigmas) - 1
    gamma = min(options["s_churn"] / steps, 2**0.5 - 1)
    low, high = (np.float32(options.get(name, bound)) for name, bound in (("s_tmin", 0.0), ("s_tmax", inf)))
    inside = (low <= sigmas.astype(np.float32)) & (sigmas.astype(np.float32) <= high)  # as torch compares them
    return (sigmas * (1 + gamma * inside))[:-1].tolist()


def _no_blocks(guider) -> str:
    if guider.model_patcher.get_additional_models_with_key("multigpu"):
        # Their threads would write into one BlockReuse, and a conditioning's residuals lie on the GPU that it ran on last.
        return "the model runs on several GPUs"
    if is_compiled(guider.model_options):
        return "the model is compiled as a whole"
    return ""
