"""What a latent is made of: the parts that it packs, and the bands that each of them splits into.

Weights and statistics are kept band by band. A part with a height and a width, [b, ..., H, W], has two, its low and its high
spatial frequencies, since layout settles earlier than texture; a part without, as sound in [b, channels, length], has one.
A plain latent has a single part, itself. Latents of picture and sound are packed by ComfyUI as one [b, 1, everything].
"""

from collections.abc import Sequence
from math import prod

import torch
from torch.nn import functional

from ..schedules.schedule import BANDS

LOW_PASS = 4  # side of the latent blocks whose means make up the low band


def low_pass(x):
    """Low spatial frequencies of pictures [..., H, W]: means over blocks of `LOW_PASS`, interpolated back, a linear map."""
    height, width = x.shape[-2:]
    flat = x.reshape(-1, 1, height, width)
    coarse = functional.interpolate(flat, (-(-height // LOW_PASS), -(-width // LOW_PASS)), mode="area")
    return functional.interpolate(coarse, (height, width), mode="bilinear").reshape(x.shape)


class Layout:
    """The parts of latents and their bands.

    shapes: of the parts [b, ...] as they are unpacked, one or more; the batch size does not count. Of parts that would have
    more than `BANDS` bands together each has one; more parts than that are taken as one without height and width. Raises
    `ValueError` for no part, and for packed ones without elements.
    """

    def __init__(self, shapes: Sequence[Sequence[int]]):
        parts = [tuple(int(size) for size in shape[1:]) for shape in shapes]
        if not parts or len(parts) > 1 and min(min(part, default=1) for part in parts) < 1:
            raise ValueError("a latent needs at least one part, and parts that are packed need elements")
        if len(parts) > BANDS:
            parts = [(1, sum(map(prod, parts)))]
        spatial = [len(part) >= 3 for part in parts]
        if len(parts) + sum(spatial) > BANDS:
            spatial = [False] * len(parts)
        self.parts, self._spatial = parts, spatial
        self._sizes = [prod(part) for part in parts]

    @property
    def bands(self) -> int:
        """How many bands there are, 1 to `BANDS`: those of the first part first, of each part the low one first."""
        return len(self.parts) + sum(self._spatial)

    @property
    def spatial(self) -> list[bool]:
        """Of each part, whether it has two bands."""
        return self._spatial

    @property
    def packed(self) -> bool:
        """Whether there are several parts."""
        return len(self.parts) > 1

    def fits(self, x) -> bool:
        """Whether latents `x` [b, ...] are such; a plain one may be of any size."""
        return prod(x.shape[1:]) == sum(self._sizes) if self.packed else x.ndim == len(self.parts[0]) + 1

    def unpack(self, x) -> list:
        """The parts [b, *part] of latents `x` [b, ...] that fit, views of it; a plain one is its only part."""
        if not self.packed:
            return [x]
        cut = x.flatten(1).split(self._sizes, 1)
        return [piece.reshape(len(x), *part) for piece, part in zip(cut, self.parts, strict=True)]

    def pack(self, parts):
        """What `unpack` took apart: [b, 1, everything], or the part itself where there is one."""
        return torch.cat([part.reshape(len(part), 1, -1) for part in parts], -1) if self.packed else parts[0]

    def split(self, x) -> list:
        """All bands [b, *part] of latents `x` [b, ...] that fit; those of a part add up to it."""
        bands = []
        for part, spatial in zip(self.unpack(x), self._spatial, strict=True):
            low = low_pass(part) if spatial else part
            bands += [low, part - low] if spatial else [low]
        return bands

    def combine(self, rows: Sequence[Sequence[float]], tensors: Sequence):
        """sum_j rows[k][j] * band k of tensors[j], a new tensor like these, which fit; one row for each band."""
        made, left = [], iter(rows)
        for spatial, *parts in zip(self._spatial, *map(self.unpack, tensors), strict=True):
            low = next(left)
            if spatial:
                high = next(left)
                lower = combine([a - b for a, b in zip(low, high, strict=True)], parts)
                made.append(combine(high, parts) + low_pass(lower))
            else:
                made.append(combine(low, parts))
        return self.pack(made)

    def sizes(self, bands: Sequence) -> list[int]:
        """What a sum over elements of each of the `bands` [b, *part], as `split` gives them, is divided by.

        A sum over all of them is then a mean over elements, and of several parts one in which each counts alike, however
        small it is.
        """
        return [prod(band.shape[1:]) * len(self.parts) for band in bands]

    def evened(self, x):
        """Latents `x` [b, ...] that fit, parts scaled so that all count alike in a mean of squares over elements."""
        mean = sum(self._sizes) / len(self.parts)
        parts = zip(self.unpack(x), self._sizes, strict=True)
        return self.pack([part * (mean / size) ** 0.5 for part, size in parts]) if self.packed else x

    def mean_square(self, x) -> float:
        """The squares of latents `x` [b, ...] that fit, a mean over elements in which parts count alike, and a sum over b."""
        parts = self.unpack(x)
        sizes = self.sizes(parts)
        return sum(float(torch.linalg.vector_norm(part)) ** 2 / size for part, size in zip(parts, sizes, strict=True))


def combine(weights, tensors):
    """sum_j weights[j] * tensors[j], as a new tensor."""
    total = tensors[0] * float(weights[0])
    for weight, tensor in zip(weights[1:], tensors[1:], strict=True):
        total = total + float(weight) * tensor
    return total
