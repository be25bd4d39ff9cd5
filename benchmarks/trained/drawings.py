"""What the trained models learn to draw: the embedded model's scenes, still or moving, as latents of its autoencoder."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from otcache_core.demo.autoencoder import LinearAutoencoder
from otcache_core.demo.conditioning import TOKEN_DIM, encode
from otcache_core.demo.painting import paint
from otcache_core.demo.scenes import SLOTS, Scene, draw, sample_scene
from otcache_core.demo.stored import VAE_FILE, WEIGHTS

AT_ONCE = 128
# Of the jitters that `painting.paint` draws for a picture, in their order: how far a scene may move in half a clip.
MOVES = {1: 0.8, 2: 1.2, 4: 1.2, 6: 1.2, 22: 2.2}  # the light's height, three clouds, the floating shape
LEAST = 0.6  # of these: every scene moves
_DRIFT = torch.tensor([1.0, -1.0]).repeat(TOKEN_DIM // 2)


def autoencoder() -> LinearAutoencoder:
    """The embedded model's."""
    return LinearAutoencoder.load(WEIGHTS / VAE_FILE)


def sample_scenes(count: int, rng: np.random.Generator) -> tuple[list[Scene], np.ndarray]:
    """`count` scenes, and to which side each drifts: -1 (left) or 1."""
    return [sample_scene(rng) for _ in range(count)], rng.choice((-1.0, 1.0), count)


def tokens(scenes: Sequence[Scene], drifts: np.ndarray | None = None) -> Tensor:
    """The prompt [n, 11, 64] of stills; of clips [n, 12, 64], the last token saying the drift."""
    context, _ = encode(scenes)
    if drifts is None:
        return context
    return torch.cat((context, torch.as_tensor(drifts, dtype=torch.float32)[:, None, None] * _DRIFT), dim=1)


def stills(scenes: Sequence[Scene], side: int, rng: np.random.Generator) -> Tensor:
    """Latents [n, 16, side / 4, side / 4] of drawn scenes."""
    vae = autoencoder()
    parts = [scenes[i : i + AT_ONCE] for i in range(0, len(scenes), AT_ONCE)]
    return torch.cat([vae.encode(draw(part, side, rng)) for part in parts])


def clips(scenes: Sequence[Scene], drifts: np.ndarray, frames: int, side: int, rng: np.random.Generator) -> Tensor:
    """Latents [n, 16, frames, side / 4, side / 4] of scenes whose shape and clouds drift while the light rises or sets."""
    vae, found = autoencoder(), []
    for i in range(0, len(scenes), AT_ONCE):
        part, drift = scenes[i : i + AT_ONCE], drifts[i : i + AT_ONCE]
        slots = dict(zip(SLOTS, zip(*(scene.values() for scene in part), strict=True), strict=True))
        start = _Known(rng.uniform(-1.0, 1.0, (len(part), 26)))
        speed = rng.uniform(LEAST, 1.0, (len(part), len(MOVES))) * np.array([*MOVES.values()]) * drift[:, None]
        pictures = []
        for place in np.linspace(-1.0, 1.0, frames):
            jitter = start.jitter.copy()
            jitter[:, [*MOVES]] = 0.4 * jitter[:, [*MOVES]] + place * speed
            pictures.append(vae.encode(paint(slots, side, _Known(jitter))))
        found.append(torch.stack(pictures, dim=2))
    return torch.cat(found)


class _Known:
    """Stands where `painting.paint` asks for a random generator, and gives it these jitters [n, 26]."""

    def __init__(self, jitter: np.ndarray):
        self.jitter = jitter

    def uniform(self, _low: float, _high: float, shape: tuple[int, int]) -> np.ndarray:
        return self.jitter[:, : shape[1]]
