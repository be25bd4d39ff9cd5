"""What calibration needs of a model, and counting what it is asked for."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from .layout import Layout


class Generator(Protocol):
    """What the stages need of a model. A case is whatever the generator takes for a prompt and a seed.

    One whose latents pack several parts has an attribute `layout` that tells them (`sampling.layout.Layout`). One whose
    decoder has no room beside its model has a true attribute `swaps`: pictures are then decoded many at a time.
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

    @property
    def swaps(self) -> bool:
        return swaps(self.generator)

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


def swaps(generator: Generator) -> bool:
    """Whether the model of `generator` leaves the device when it decodes."""
    return getattr(generator, "swaps", False)
