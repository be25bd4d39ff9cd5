"""The trained demo model behind the few calls that calibration and benchmarks need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import conditioning
from .model import FluxTransformer
from .scenes import Scene, sample_scene
from .stored import WEIGHTS, read_weights

LATENT_SHAPE = (16, 16, 16)


@dataclass(frozen=True)
class DemoCase:
    """One picture to make: the seed of its noise and what it shows."""

    seed: int
    scene: Scene


def cases(n: int, seed: int) -> list[DemoCase]:
    """The first ``n`` cases of a numbered set; a longer list begins with the shorter one.

    Calibration uses seed 1000 and evaluation seed 2000: noise seeds of two sets never meet (n <= 100000).
    """
    rng = np.random.default_rng(seed)
    return [DemoCase(seed * 100_000 + i, sample_scene(rng)) for i in range(n)]


class DemoGenerator:
    """Velocities, noise and pictures of the demo model, in float32.

    ``cfg`` is the guidance scale (1 skips the unconditional branch), ``shift`` and ``steps`` its grid.
    """

    def __init__(
        self,
        weights: str | Path = WEIGHTS,
        *,
        cfg: float = 7.5,
        shift: float = 1.0,
        steps: int = 50,
        device: str | torch.device = "cpu",
    ):
        """Load ``transformer.safetensors`` and ``vae.safetensors`` from a folder.

        Raises `OTCacheError` when they are missing, damaged or another model's.
        """
        self.cfg, self.shift, self.steps, self.device = cfg, shift, steps, torch.device(device)
        tensors, self.autoencoder = read_weights(weights)
        self.model = FluxTransformer()
        self.model.load_state_dict(tensors)  # copies bf16 into float32
        self.model.eval().requires_grad_(False).to(self.device)
        self._null = conditioning.encode_null(1)
        self._condition = lru_cache(maxsize=4096)(lambda scene: conditioning.encode([scene]))

    def sigmas(self, steps: int | None = None, shift: float | None = None) -> np.ndarray:
        """``steps + 1`` float64 noise levels from 1 down to 0: linear, then ``s * t / (1 + (s - 1) * t)``.

        Raises ValueError for fewer than one step or a shift that is not positive.
        """
        steps = self.steps if steps is None else steps
        shift = self.shift if shift is None else shift
        if steps < 1 or shift <= 0:
            raise ValueError(f"need steps >= 1 and shift > 0, got {steps} and {shift}")
        t = np.linspace(1.0, 0.0, steps + 1)
        return shift * t / (1 + (shift - 1) * t)

    def noise(self, case: DemoCase) -> Tensor:
        """The case's start, [16, 16, 16] float32 on the CPU, from its seed alone."""
        return torch.randn(LATENT_SHAPE, generator=torch.Generator("cpu").manual_seed(case.seed))

    def velocity(self, x: Tensor, sigma: float, cases: Sequence[DemoCase]) -> Tensor:
        """Guided ``noise - x0`` at ``x`` [n, 16, 16, 16] and level ``sigma``, in the form of ``x``.

        Both guidance branches run as one batch. Raises ValueError when ``x`` has not one row a case.
        """
        n = len(cases)
        if x.shape != (n, *LATENT_SHAPE):
            raise ValueError(f"x is {tuple(x.shape)}, {n} cases need {(n, *LATENT_SHAPE)}")
        branches = [self._condition(case.scene) for case in cases]
        if self.cfg != 1:
            branches += [self._null] * n
        context, pooled = (torch.cat(part).to(self.device) for part in zip(*branches, strict=True))
        latents = x.to(self.device, torch.float32)
        if self.cfg != 1:
            latents = torch.cat((latents, latents))
        levels = torch.full((len(latents),), float(sigma), device=self.device)
        with torch.inference_mode():
            v = self.model(latents, levels, context, pooled)
            if self.cfg != 1:
                cond, uncond = v.chunk(2)
                v = uncond + self.cfg * (cond - uncond)
        return v.to(x.device, x.dtype, copy=True)  # out of inference mode: the caller may write to it

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [n, 16, 16, 16] -> pictures [n, 3, 64, 64] in [0, 1], float32 on the CPU."""
        return self.autoencoder.decode(latents.to("cpu", torch.float32))

    def sample(self, cases: Sequence[DemoCase], sigmas: np.ndarray | None = None) -> Tensor:
        """Plain Euler along ``sigmas`` (None: the default grid) from the cases' noise; [n, 16, 16, 16]."""
        sigmas = self.sigmas() if sigmas is None else sigmas
        x = torch.stack([self.noise(case) for case in cases])
        for now, then in pairwise(sigmas):
            x = x + float(then - now) * self.velocity(x, float(now), cases)
        return x
