"""How far pictures are from equal structure: 1 - SSIM and 1 - MS-SSIM, computed without ever subtracting from 1.

Libraries give SSIM itself, whose distance from 1 is lost to rounding where pictures are nearly equal: float32 then asks for
double precision. Written with the sum s and the difference d of the two pictures, both factors of SSIM have a complement that
is small because d is small:

    1 - contrast  = var d / ((var s + var d) / 2 + C2)
    1 - luminance = (mean d)^2 / (((mean s)^2 + (mean d)^2) / 2 + C1)

so float32 is enough, on any device. Means and variances are under an 11 x 11 Gaussian window, filtered row by column. Windows
and borders are those of torchmetrics, which the tests compare with in double precision.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.functional import pad

from ..errors import OTCacheError

# The scale weights of Wang et al. 2003; small pictures use the first few, renormalised.
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11
SIGMA = 1.5  # pixels
C1, C2 = 0.01**2, 0.03**2
# Values that are filtered at once. A CPU takes half the time for strips that stay in its cache; elsewhere few calls count more.
STRIP_CPU, STRIP = 2**16, 2**21
GROUP = 2**22  # values of the pictures that are compared at once


def _gaussian() -> list[float]:
    weights = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
    return (weights / weights.sum()).tolist()


GAUSSIAN = _gaussian()


def check_size(images: torch.Tensor) -> None:
    """Raise `OTCacheError` for pictures [..., H, W] that are smaller than the window."""
    if (side := min(images.shape[-2:])) < WINDOW:
        raise OTCacheError(f"Pictures of {side} pixels are too small for SSIM; decode at {WINDOW} pixels or more.")


@torch.inference_mode()
def one_minus_ssim(images: torch.Tensor, references: torch.Tensor) -> np.ndarray:
    """1 - SSIM (Wang et al. 2004), float64 [n], of pictures [n, 3, H, W] in [0, 1]; exactly 0 for equal ones.

    Computed where `images` are, in float32 or in the pictures' own precision where that is higher. Raises `OTCacheError` for a
    side under 11 pixels.
    """
    check_size(images)
    means = [_mean_dissimilarity(_with_borders(pair), luminance=True) for pair in _pairs(images, references)]
    return torch.cat(means).numpy(force=True).astype(np.float64)


@torch.inference_mode()
def one_minus_ms_ssim(images: torch.Tensor, references: torch.Tensor) -> np.ndarray:
    """1 - MS-SSIM (Wang et al. 2003), float64 [n], of pictures [n, 3, H, W] in [0, 1]; exactly 0 for equal ones.

    A scale where structure is opposed on the whole makes it 1. Pictures too small for all five scales use the first few.
    Computed where `images` are, in float32 or in the pictures' own precision where that is higher. Raises `OTCacheError` for a
    side under 11 pixels.
    """
    check_size(images)
    side = min(images.shape[-2:])
    # The window must fit after every halving; torchmetrics asks for more, the square of the scale's number.
    levels = sum(side // max(2**level, level**2) >= WINDOW for level in range(len(SCALES)))
    scales = torch.cat([_mean_dissimilarities(pair, levels) for pair in _pairs(images, references)], dim=1)
    betas = np.array(SCALES[:levels]) / sum(SCALES[:levels])
    with np.errstate(divide="ignore"):  # log 0 is what makes 1 of an opposed scale
        logarithms = np.log1p(-np.minimum(scales.numpy(force=True).astype(np.float64), 1))
    return np.abs(np.expm1(betas @ logarithms))


class _Pair:
    """Sums minus 1 (variances lose less so) and differences, [2, n, 3, H, W], made of those rows that are asked for.

    All of them, of the frames of a video one below the other, would take twice the memory of the pictures.
    """

    def __init__(self, images: torch.Tensor, references: torch.Tensor, dtype: torch.dtype):
        self._images, self._references = images, references
        self.shape, self.dtype, self.device = torch.Size((2, *images.shape)), dtype, images.device

    def __getitem__(self, rows) -> torch.Tensor:
        a, b = (x[rows].to(self.dtype) for x in (self._images, self._references))
        pair = a.new_empty(2, *a.shape)
        torch.add(a, b, out=pair[0]).sub_(1)
        torch.sub(a, b, out=pair[1])
        return pair


def _pairs(images: torch.Tensor, references: torch.Tensor) -> Iterator[_Pair]:
    """A few pictures at a time."""
    dtype = torch.promote_types(torch.promote_types(images.dtype, references.dtype), torch.float32)
    group = max(1, GROUP // images.shape[1:].numel())
    for a, b in zip(images.split(group), references.split(group), strict=True):
        yield _Pair(a, b.to(a.device), dtype)


def _at_once(pair: torch.Tensor | _Pair) -> int:
    """Rows that are worked on together."""
    return max(1, (STRIP_CPU if pair.device.type == "cpu" else STRIP) // pair.shape[1:-2].numel() // pair.shape[-1])


def _mean_dissimilarities(pair: torch.Tensor | _Pair, levels: int) -> torch.Tensor:
    """Means of 1 - contrast, and at the last scale of 1 - SSIM, [levels, n]."""
    means = []
    for _ in range(levels - 1):
        means.append(_mean_dissimilarity(pair, luminance=False))
        pair = _halved(pair)
    return torch.stack([*means, _mean_dissimilarity(_with_borders(pair), luminance=True)])


def _halved(pair: torch.Tensor | _Pair) -> torch.Tensor:
    """Means of 2 x 2 pixels without an odd last row or column; several times faster than avg_pool2d on a CPU."""
    height, width = (side // 2 * 2 for side in pair.shape[-2:])
    halved = torch.empty(*pair.shape[:-2], height // 2, width // 2, dtype=pair.dtype, device=pair.device)
    some = max(_at_once(pair) // 2 * 2, 2)
    for top in range(0, height, some):
        x = pair[..., top : min(top + some, height), :]
        rows = x[..., ::2, :width] + x[..., 1::2, :width]
        torch.add(rows[..., ::2], rows[..., 1::2], out=halved[..., top // 2 : (top + some) // 2, :]).mul_(0.25)
    return halved


def _with_borders(pair: torch.Tensor | _Pair) -> torch.Tensor:
    """Mirrored at the edges, so that there is a window around every pixel."""
    pair = pair[...]
    return pad(pair.flatten(0, 1), 4 * [WINDOW // 2], mode="reflect").unflatten(0, pair.shape[:2])


def _mean_dissimilarity(pair: torch.Tensor | _Pair, luminance: bool) -> torch.Tensor:
    """The mean of 1 - contrast, or of 1 - luminance * contrast, over the windows inside of `pair` [2, n, 3, H, W]; [n]."""
    height, width = (side - WINDOW + 1 for side in pair.shape[-2:])
    rows = _at_once(pair)
    total = 0
    for top in range(0, height, rows):
        strip = pair[..., top : top + rows + WINDOW - 1, :]
        means, variances = (_filtered(_filtered(x, -2), -1) for x in (strip, strip.square()))
        variances.addcmul_(means, means, value=-1).clamp_(min=0)
        unlike = variances[1] / variances.sum(0).div_(2).add_(C2)
        if luminance:
            s_squared, d_squared = (means[0] + 1).square(), means[1].square()
            darker = d_squared / s_squared.add_(d_squared).div_(2).add_(C1)
            unlike = unlike + darker - unlike * darker
        total = total + unlike.flatten(1).sum(1)
    return total / (pair.shape[2] * height * width)


def _filtered(x: torch.Tensor, axis: int) -> torch.Tensor:
    """`x` under the Gaussian window along `axis`, shorter by 10.

    By shifted additions: they are faster than convolutions with one channel, and neither TF32 nor autocast rounds them.
    """
    length = x.shape[axis] - WINDOW + 1
    result = x.narrow(axis, 0, length) * GAUSSIAN[0]
    for shift, weight in enumerate(GAUSSIAN[1:], 1):
        result.add_(x.narrow(axis, shift, length), alpha=weight)
    return result
