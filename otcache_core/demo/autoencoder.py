"""A linear stand-in for a VAE: principal components of 4x4 pixel blocks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

BLOCK = 4
CHANNELS = 16


@dataclass(frozen=True)
class LinearAutoencoder:
    """64x64 RGB <-> 16x16 latents of 16 channels with a mean power of one.

    ``mean`` [48], ``basis`` [16, 48] with orthonormal rows, ``scale`` [16]; all float32.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, images: Tensor) -> LinearAutoencoder:
        """Principal components of ``images`` [n, 3, H, W] in [0, 1], each times its std to the power -0.6.

        Full whitening would spend the flow on invisible detail, none would leave visible detail to chance.
        """
        blocks = F.pixel_unshuffle(images, BLOCK).transpose(0, 1).flatten(1)
        mean = blocks.mean(1)
        power, vectors = torch.linalg.eigh(torch.cov(blocks).double())
        basis, std = vectors.T.flip(0)[:CHANNELS], power.flip(0)[:CHANNELS].sqrt()
        scale = std**-0.6
        scale = scale / (std * scale).square().mean().sqrt()
        return cls(mean, basis.float().contiguous(), scale.float())

    @classmethod
    def load(cls, path: str | Path) -> LinearAutoencoder:
        """Read a file that ``save`` wrote. Raises FileNotFoundError, or TypeError for other tensors."""
        return cls(**load_file(path))

    def save(self, path: str | Path) -> None:
        """Write the three tensors as safetensors."""
        save_file(asdict(self), path)

    def encode(self, images: Tensor) -> Tensor:
        """[B, 3, 64, 64] in [0, 1] -> latents [B, 16, 16, 16]."""
        blocks = F.pixel_unshuffle(images, BLOCK) - self.mean[:, None, None]
        return torch.einsum("kc,bchw->bkhw", self.basis * self.scale[:, None], blocks)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, 16, 16, 16] -> [B, 3, 64, 64], clamped to [0, 1]."""
        blocks = torch.einsum("kc,bkhw->bchw", self.basis / self.scale[:, None], latents)
        return F.pixel_shuffle(blocks + self.mean[:, None, None], BLOCK).clamp(0.0, 1.0)
