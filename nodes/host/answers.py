"""What came back of a run's evaluations: whether it is the model's, and whether it teaches anything."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from .network_probe import NetworkProbe
from .run_report import counted

COMPILE_KEY = "torch.compile"  # of ComfyUI's set_torch_compile_wrapper
NO_LATENT = "the guider gives something else than one denoised latent, which cannot be predicted"
STARVED = "the network did not run where an evaluation was asked for: another cache or wrapper answered in its place"
USELESS = "{} taught nothing: the network did not run, or guidance zeroed what it gave"
THINNED = "on {} the network ran only in part: another cache or a patch leaves out some of its blocks"


class Answer(NamedTuple):
    """given: what came back. problem: why the run cannot be accelerated any longer, or "". teaches: whether it is an evaluation
    of the model. anew: whether it is one of another kind than those before it, which no longer apply.
    """

    given: object
    problem: str = ""
    teaches: bool = False
    anew: bool = False


class Answers:
    """Those of one run. useless: evaluations that taught nothing; thinned: that ran a part of the network."""

    def __init__(self):
        self.useless = self.thinned = 0
        self._probe = NetworkProbe()
        self._watched = False
        self._alike = True
        self._rows, self._most = 0, 0
        self._zero: torch.Tensor | None = None

    def to(self, evaluate: Callable, x: torch.Tensor, guider, replayed: bool = False) -> Answer:
        """That of evaluate(), the guider's denoised latent at `x`. replayed: the network's blocks are not to run."""
        if not self._watched:
            self._watch(guider)
        self._probe.begin()
        given = evaluate()
        if not is_latent(x, given):
            return Answer(given, NO_LATENT)
        if replayed:
            return Answer(given, "" if self._probe.rows else STARVED, teaches=True)
        if not self._probe.ran:
            self.useless += 1
            return Answer(given, STARVED if self._rows else "")
        self._zero = (given == x).all()
        return Answer(given, teaches=True, anew=self._differs())

    def levels(self, timestep: torch.Tensor) -> tuple[list[float], bool]:
        """The noise levels of a call, and whether the evaluation before it gave no velocity at all: one wait for the device."""
        zero, self._zero = self._zero, None
        if zero is None:
            return timestep.flatten().tolist(), False
        *levels, empty = torch.cat([timestep.flatten(), zero.to(timestep).view(1)]).tolist()
        self.useless += bool(empty)
        return levels, bool(empty)

    def forget(self) -> None:
        """Another situation begins: the next evaluation may be unlike those before it."""
        self._rows = self._most = 0

    def apply_model(self, executor, *args, **kwargs):
        """The APPLY_MODEL wrapper that counts the model's passes."""
        return self._probe.apply_model(executor, *args, **kwargs)

    @property
    def notes(self) -> list[str]:
        """What to tell of them."""
        seen = ((USELESS, self.useless), (THINNED, self.thinned))
        return [text.format(counted(count, "evaluation")) for text, count in seen if count]

    def close(self) -> None:
        """Take the hooks off the network."""
        self._probe.close()
        self._zero = None

    def _watch(self, guider) -> None:
        # Not before the first evaluation: nodes replace parts of the network when the model is loaded.
        self._watched = True
        options, network = guider.model_options, getattr(guider.model_patcher.model, "diffusion_model", None)
        several = bool(guider.model_patcher.get_additional_models_with_key("multigpu"))
        if network is not None and not several and not is_compiled(options):
            self._probe.watch(network)
        self._alike = not several and "context_handler" not in options  # the windows of one step may be more than the next's

    def _differs(self) -> bool:
        if not self._alike:
            self._rows = self._probe.rows
            return False
        before, work = (self._rows, self._most), self._probe.work or 0
        self._rows = self._probe.rows
        self._most = work if self._rows != before[0] else max(before[1], work)
        self.thinned += work < self._most
        return before[0] != 0 and (self._rows != before[0] or work != before[1])


def is_latent(x: torch.Tensor, given) -> bool:
    """Whether `given` is one denoised latent of `x`."""
    return torch.is_tensor(given) and given.shape == x.shape and given.device == x.device and given.is_floating_point()


def is_compiled(model_options: dict) -> bool:
    """Whether ComfyUI compiles the model whose options these are, as a whole or in parts."""
    return COMPILE_KEY in model_options.get("transformer_options", {}).get("wrappers", {}).get("apply_model", {})
