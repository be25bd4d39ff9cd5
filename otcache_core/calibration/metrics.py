"""Distances between pictures, one calling convention, none of which downloads anything unless asked to.

A metric is `metric(images, references) -> float64 [n]`, one number a picture, for float tensors [n, 3, H, W] in [0, 1]. It is
computed on the device of `images`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from ..errors import OTCacheError
from .lpips_network import load_network
from .similarity import one_minus_ms_ssim, one_minus_ssim

Metric = Callable[[torch.Tensor, torch.Tensor], np.ndarray]


def rmse(images: torch.Tensor, references: torch.Tensor) -> np.ndarray:
    """Root mean squared error, in units of the picture's range."""
    squares, references = [], references.to(images.device)
    for a, b in zip(images.unbind(1), references.unbind(1), strict=True):  # all channels of a video's frames take much memory
        difference = in_full_precision(a) - in_full_precision(b)
        squares.append(difference.square_().flatten(1).mean(1))
    return torch.stack(squares).mean(0).sqrt().numpy(force=True).astype(np.float64)


def in_full_precision(images: torch.Tensor) -> torch.Tensor:
    """Half precision as float32; float64 as it is, which not every device has."""
    return images.to(torch.promote_types(images.dtype, torch.float32))


def psnr(images: torch.Tensor, references: torch.Tensor) -> np.ndarray:
    """Peak signal-to-noise ratio in dB, larger is better; 120 at most, where float32 pictures stop differing."""
    return -20 * np.log10(np.maximum(rmse(images, references), 1e-6))


def ssim(images: torch.Tensor, references: torch.Tensor) -> np.ndarray:
    """Structural similarity (Wang et al. 2004), larger is better, 1 is equal.

    Raises `OTCacheError` for a side under 11 pixels.
    """
    return 1 - one_minus_ssim(images, references)


def ms_ssim(images: torch.Tensor, references: torch.Tensor) -> np.ndarray:
    """Multi-scale structural similarity (Wang et al. 2003), larger is better, 1 is equal.

    Pictures too small for all five scales use the first few. Raises `OTCacheError` for a side under 11 pixels.
    """
    return 1 - one_minus_ms_ssim(images, references)


def structure_rmse(images: torch.Tensor, references: torch.Tensor) -> np.ndarray:
    """sqrt(sqrt(1 - MS-SSIM) RMSE), smaller is better: no weights to load, and no weight between the two to choose.

    MS-SSIM alone forgives a shifted tone and punishes faint noise on flat areas; RMSE does the opposite. 1 - MS-SSIM grows
    with the square of a small error, so its root (a metric for SSIM: Brunet et al., IEEE TIP 2012) makes both equal
    partners. Cases are aggregated by the geometric mean, under which a product treats both by their ratios.
    """
    return np.sqrt(np.sqrt(one_minus_ms_ssim(images, references)) * rmse(images, references))


def lpips(images: torch.Tensor, references: torch.Tensor) -> np.ndarray:
    """LPIPS (Zhang et al. 2018, AlexNet), smaller is better, 0 is equal; computed where the pictures are.

    Nothing is downloaded here: see `prepare_lpips`. Raises `OTCacheError` for a side under 31 pixels, when the package is not
    installed, or when its backbone is in no folder.
    """
    if (side := min(images.shape[-2:])) < LPIPS_SIDE:
        raise OTCacheError(f"Pictures of {side} pixels are too small for LPIPS; decode at {LPIPS_SIDE} pixels or more.")
    prepare_lpips()
    network = _network.to(images.device)
    with torch.inference_mode():
        values = network(images.float() * 2 - 1, references.to(images.device).float() * 2 - 1)
    return values.numpy(force=True).astype(np.float64).reshape(-1)


LPIPS_SIDE = 31  # what AlexNet's first convolution and two poolings need
_network = None


def prepare_lpips(folders: Sequence[str | Path] = (), download: bool = False) -> None:
    """Load what `lpips` needs, once a process: see `lpips_network.load_network`, whose errors it raises."""
    global _network
    if _network is None:
        _network = load_network(folders, download)


# Distances that a search can minimise: 0 is equal, smaller is better.
DISTANCES: dict[str, Metric] = {"ms-ssim*rmse": structure_rmse, "rmse": rmse, "lpips": lpips}
DEFAULT = "ms-ssim*rmse"
LATENT = "latent rmse"  # `rmse` of final latents, for judging without a decoder: see `judging.Latents`


def distance(name: str) -> Metric:
    """The distance called `name`; raises `OTCacheError` listing the names there are."""
    if name not in DISTANCES:
        raise OTCacheError(f'metric is "{name}", but must be one of {", ".join(DISTANCES)}.')
    return DISTANCES[name]


def check_metric(name: str) -> None:
    """Compute the distance called `name` once, so that what it lacks is found now and not after the first full runs.

    Raises `OTCacheError` that says what to install.
    """
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    distance(name)(picture, picture)


def geometric_mean(values) -> float:
    """exp(mean(log(v))): how cases are aggregated, since the arithmetic mean follows the one hardest case and overfits.

    Values are bounded below by 1e-9, so that one perfect case does not decide.
    """
    return float(np.exp(np.mean(np.log(np.maximum(values, 1e-9)))))
