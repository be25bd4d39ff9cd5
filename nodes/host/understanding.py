"""What a call of the model is like, and what came back: a run is accelerated only while both are understood.

Looked at is what nodes and samplers change from call to call: prompts, the guider's strengths, functions and patches in the
model options, words there that tell a guider what to take, noise levels, sizes. A change of these is another situation, in
which older evaluations no longer apply; what belongs to no sampler of fixed steps sends the run on in full, with the reason.

What cannot be seen: a function that changes what it does by itself, or a prompt whose tensors are written to. Where it makes
the model take more latents or fewer, that shows at the next evaluation (`answers`).
"""

from collections import deque
from collections.abc import Iterator

import torch

from ...otcache_core.sampling.response import Response, same_level
from ...otcache_core.sampling.step_finder import StepFinder
from .suitability import READS_GUIDANCE, reads_guidance
from .time_ranges import time_range, time_ranges

ADAPTIVE = "the sampler chooses its noise levels by what the model gives, which a skipped step does not know"
OWN_LEVELS = "the sampler chooses its own noise levels; use one with fixed steps, such as euler"
APART = "the sampler gives the latents of a batch noise levels of their own"
STATE = "the sampler keeps a state in the model, which every evaluation has to fill"
IN_TURN = "the sampler asks with different prompts, guidance or latents in turn"

VISITED = 0.9  # of its steps: samplers of fixed steps evaluate each at some noise level, dpm_fast on a flow's 12 only 10
STAY = 2  # evaluations: who is back in an earlier situation so soon goes to and fro
RETURNS = 2  # so many times


def unfit(response: Response, finder: StepFinder, steps: int) -> str:
    """Why nothing can be skipped of a sampler with `response` on a grid of N = `steps`, or ""."""
    if response.adaptive:
        return ADAPTIVE
    if response.asked is None:
        return ""
    visited = {finder.locate(sigma)[0] for sigma in response.asked if sigma > 0}
    return "" if len(visited) >= VISITED * steps else OWN_LEVELS


class Calls:
    """The calls of one run of `guider`, in their order.

    expected: the noise levels that its sampler asked for when it was tried on made-up latents, None where that is not known.
    """

    def __init__(self, guider):
        self.expected: tuple[float, ...] | None = None
        self._guider = guider
        self._asked = 0
        self._conds: tuple = ()
        self._ranges: list[tuple[float, float]] = []
        self._hooked: list[tuple] = []
        self._situations: deque[tuple] = deque(maxlen=4)  # the last of them, newest first, with what their numbers stand for
        self._stay = self._returns = 0

    def problem(self, levels: list[float], model_options: dict) -> str:
        """Why the coming call, at the noise levels of its batch, belongs to a run that cannot be accelerated, or ""."""
        at, self._asked = self._asked, self._asked + 1
        if reads_guidance(model_options, self._guider.model_options):
            return READS_GUIDANCE
        if keeps_state(model_options, self._guider.model_options):
            return STATE
        if levels.count(levels[0]) < len(levels):
            return APART
        if self.expected is not None and not (at < len(self.expected) and same_level(levels[0], self.expected[at])):
            return ADAPTIVE
        return ""

    def changes(self, x, timestep, sigma: float, model_options: dict) -> bool:
        """Whether the coming call, of the latent `x` at `sigma`, is made in another situation than the one before it."""
        held = [*self._look_at_conds(timestep.dtype), *applied(model_options), getattr(self._guider, "inner_model", None)]
        strengths = [value for value in vars(self._guider).values() if type(value) in (float, str, bool)]
        in_use = [start >= sigma >= end for start, end in self._ranges]
        hooks = self._strengths(timestep, sigma, model_options)
        named = [value if isinstance(value, str | bool) else id(value) for value in held]
        # Time ranges apart: a sampler that looks ahead goes to and fro over where they end.
        applied_now = (x.shape, x.device, *hooks, *strengths, *named)
        situation = (applied_now, *in_use)
        self._stay += 1
        if self._situations and situation == self._situations[0][0]:
            return False
        before = [other[0] for other, _ in self._situations]
        self._returns += self._stay <= STAY and bool(before) and applied_now != before[0] and applied_now in before
        self._stay = 0
        self._situations.appendleft((situation, held))
        return True

    @property
    def in_turn(self) -> bool:
        """Whether calls go to and fro between situations."""
        return self._returns >= RETURNS

    @property
    def controlled(self) -> bool:
        """Whether a ControlNet is applied to any conditioning; once a call was looked at."""
        return any("control" in cond for cond in self._conds if isinstance(cond, dict))

    def close(self) -> None:
        """Let go of everything."""
        self._guider, self._conds, self._hooked = None, (), []
        self._situations.clear()

    def _look_at_conds(self, dtype: torch.dtype) -> tuple:
        """The names of the guider's conditionings, each followed by its parts.

        Not before the first call: percents become sigmas once the model is loaded.
        """
        now = tuple(part for name, group in self._guider.conds.items() for part in (name, *(group or ())))
        if len(now) != len(self._conds) or any(one is not other for one, other in zip(now, self._conds, strict=True)):
            self._conds = now
            conds = [cond for cond in now if isinstance(cond, dict)]
            self._ranges = time_ranges(conds, dtype)
            # ComfyUI looks at the hooks of default conditionings only where these fill a gap.
            hooked = [cond for cond in conds if cond.get("hooks") and "default" not in cond]
            self._hooked = [(cond["hooks"], *time_range(cond, dtype)) for cond in hooked]
        return now

    def _strengths(self, timestep, sigma: float, model_options: dict) -> list[float]:
        """The strengths of the hooks at this call.

        Moves their keyframes on as ComfyUI does in an evaluation, since keyframes may last a number of those.
        """
        for hooks, start, end in self._hooked:
            if start >= sigma >= end:
                patcher = self._guider.inner_model.current_patcher
                patcher.prepare_hook_patches_current_keyframe(timestep, hooks, model_options)
        return [hook.strength for hooks, *_ in self._hooked for hook in hooks.hooks]


def applied(options: dict) -> Iterator:
    """The functions, words and switches in model options, each after the name that it stands under.

    No numbers: they may count steps.
    """
    for name, value in options.items():
        if isinstance(value, dict):
            yield from applied(value)
        elif isinstance(value, list | tuple):
            yield name
            yield from (one for one in value if callable(one))
        elif callable(value) or isinstance(value, str | bool):
            yield name
            yield value


def keeps_state(given: dict, guiders: dict) -> bool:
    """Whether a sampler hands on tensors that calls write to, such as a KV cache: within a container in transformer_options
    that the `guiders` own model options do not hold.
    """
    own = guiders.get("transformer_options", {})
    return any(
        name not in own and isinstance(value, dict | list | tuple) and holds_tensors(value)
        for name, value in given.get("transformer_options", {}).items()
    )


def holds_tensors(value) -> bool:
    """Whether there is a tensor within nested containers."""
    if isinstance(value, dict | list | tuple):
        return any(map(holds_tensors, value.values() if isinstance(value, dict) else value))
    return torch.is_tensor(value)
