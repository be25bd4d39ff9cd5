"""A sample of a latent's positions: enough for inner products, and little enough to keep for every step."""

import torch

from .predictors import LOW_PASS

SIDE = 16  # of the square patches that are kept whole, so that frequency bands exist; `LOW_PASS` times a power of two
SEED = 0x07CACE


class Patches:
    """Which positions of latents [b, ...] of one shape are kept: up to `most` >= 1 elements of each latent.

    Pictures and videos [b, channels, (frames,) H, W] keep squares of `SIDE`, all channels of each, spread over frames and
    area by a seed, so that two runs of one shape keep the same; smaller latents are kept whole. Where not even one square
    fits, squares are halved, down to one of `LOW_PASS`, which is kept in any case. Latents without H and W keep evenly
    spread elements.
    """

    def __init__(self, shape: torch.Size, most: int):
        self.shape = shape
        size = shape[1:].numel()
        self._whole, self._places = size <= most, None
        if self._whole:
            return
        if len(shape) < 4:
            self._places = torch.arange(0, size, -(-size // most))
            return
        channels, height, width = shape[1], shape[-2], shape[-1]
        side = SIDE
        while side > LOW_PASS and channels * min(side, height) * min(side, width) > most:
            side //= 2
        self._sides = min(side, height), min(side, width)
        rows, columns = height // self._sides[0], width // self._sides[1]
        count = size // (channels * height * width) * rows * columns
        kept = min(max(most // (channels * self._sides[0] * self._sides[1]), 1), count)
        chosen = torch.randperm(count, generator=torch.Generator().manual_seed(SEED))[:kept].sort().values
        frame, place = chosen // (rows * columns), chosen % (rows * columns)
        self._places = list(zip(frame.tolist(), (place // columns).tolist(), (place % columns).tolist(), strict=True))

    def of(self, latents: torch.Tensor) -> torch.Tensor:
        """What is kept of `latents`, a float32 copy on their device: [b, ...], [b, n] or [b, patches, channels, h, w]."""
        if self._whole:
            return latents.detach().to(torch.float32, copy=True)
        if isinstance(self._places, torch.Tensor):
            return latents.detach().flatten(1)[:, self._places.to(latents.device)].float()
        high, wide = self._sides
        planes = latents.detach().flatten(2, -3) if latents.ndim > 4 else latents.detach().unsqueeze(2)
        cut = [planes[:, :, t, r * high : (r + 1) * high, c * wide : (c + 1) * wide] for t, r, c in self._places]
        return torch.stack(cut, 1).float()
