"""A sample of a latent's positions: enough for inner products, and little enough to keep for every step."""

from math import prod

import torch

from .layout import LOW_PASS, Layout

SIDE = 16  # of the square patches that are kept whole, so that frequency bands exist; `LOW_PASS` times a power of two
SEED = 0x07CACE
# Elements of a latent that calibration records: up to so many all, so that one of FLUX at 1024 x 1024 is kept whole; of more a
# sample, which is half as much.
WHOLE, SAMPLE = 2**18, 2**17


class Patches:
    """Which positions of latents [b, ...] of one shape are kept: up to `most` >= 1 elements of each latent.

    layout: of the latents, None for plain ones. Of packed latents every part has an equal share of `most`, and what small
    parts leave of it goes to the others. kept: the layout of what is kept, with as many bands.
    """

    def __init__(self, shape: torch.Size, most: int, layout: Layout | None = None):
        plain = Layout([shape])
        self.shape = shape
        self.layout = layout if layout and layout.fits(torch.empty(shape, device="meta")) else plain
        parts = self.layout.parts if self.layout.packed else plain.parts
        self._places, left = [None] * len(parts), most
        for taken, number in enumerate(sorted(range(len(parts)), key=lambda number: prod(parts[number]))):
            places = Places(parts[number], max(left // (len(parts) - taken), 1))
            self._places[number], left = places, left - prod(places.kept)
        self.kept = Layout([(1, *places.kept) for places in self._places])

    def of(self, latents: torch.Tensor) -> torch.Tensor:
        """What is kept of `latents`, a float32 copy on their device: [b, *kept], or [b, 1, n] of packed ones."""
        parts = self.layout.unpack(latents.detach())
        return self.kept.pack([places.of(part) for places, part in zip(self._places, parts, strict=True)])


def sample_of(shape: tuple[int, ...], layout: Layout | None = None) -> Patches | None:
    """Which positions of latents [*shape] are recorded: None where all are, `SAMPLE` elements of more than `WHOLE`."""
    return Patches(torch.Size((1, *shape)), SAMPLE, layout) if prod(shape) > WHOLE else None


class Places:
    """Which positions of a latent's part [b, *part] are kept, up to `most` >= 1 elements.

    Pictures and videos [b, channels, (frames,) H, W] keep squares of `SIDE`, all channels of each, spread over frames and
    area by a seed, so that two runs of one shape keep the same; smaller latents are kept whole. Where not even one square
    fits, squares are halved, down to one of `LOW_PASS`, which is kept in any case. Latents without H and W keep evenly
    spread elements. kept: the shape of what is kept, (n,) or (patches, channels, h, w) where not all is.
    """

    def __init__(self, part: tuple[int, ...], most: int):
        size = prod(part)
        self.kept, self._places = part, None
        if size <= most:
            return
        if len(part) < 3:
            self._places = torch.arange(0, size, -(-size // most))
            self.kept = (len(self._places),)
            return
        channels, height, width = part[0], part[-2], part[-1]
        side = SIDE
        while side > LOW_PASS and channels * min(side, height) * min(side, width) > most:
            side //= 2
        high, wide = self._sides = min(side, height), min(side, width)
        rows, columns = height // high, width // wide
        count = size // (channels * height * width) * rows * columns
        kept = min(max(most // (channels * high * wide), 1), count)
        chosen = torch.randperm(count, generator=torch.Generator().manual_seed(SEED))[:kept].sort().values
        frame, place = chosen // (rows * columns), chosen % (rows * columns)
        self._places = list(zip(frame.tolist(), (place // columns).tolist(), (place % columns).tolist(), strict=True))
        self.kept = (kept, channels, high, wide)

    def of(self, part: torch.Tensor) -> torch.Tensor:
        """What is kept of `part`, a float32 copy on its device: [b, *kept]."""
        if self._places is None:
            return part.to(torch.float32, copy=True)
        if isinstance(self._places, torch.Tensor):
            return part.flatten(1)[:, self._places.to(part.device)].float()
        high, wide = self._sides
        planes = part.flatten(2, -3) if part.ndim > 4 else part.unsqueeze(2)
        cut = [planes[:, :, t, r * high : (r + 1) * high, c * wide : (c + 1) * wide] for t, r, c in self._places]
        return torch.stack(cut, 1).float()
