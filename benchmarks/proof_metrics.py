"""How far cached pictures or clips are from those of the full run: one number a case for each metric."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

METRICS = ("psnr", "ssim", "rmse", "perceptual", "lpips", "flicker")
LARGER_IS_BETTER = ("psnr", "ssim")


_lpips = False


def with_lpips(metrics, folders: Sequence[Path]) -> bool:
    """Whether LPIPS is measured from now on: where its package is installed and its backbone on disk; nothing is fetched."""
    global _lpips
    try:
        metrics.prepare_lpips(folders)
    except metrics.OTCacheError:
        return False
    _lpips = True
    return True


def flicker(clips: torch.Tensor, references: torch.Tensor) -> np.ndarray:
    """RMS difference of the differences between neighbouring frames, float64 [n], of clips [n, T, H, W, 3]; 0 is equal."""
    moved = clips.diff(dim=1) - references.diff(dim=1)
    return moved.square().flatten(1).mean(1).sqrt().numpy(force=True).astype(np.float64)


def measured(metrics, decoded: torch.Tensor, reference: torch.Tensor) -> dict[str, np.ndarray]:
    """Each of METRICS by its name, float64 [n]; of clips [n, T, H, W, 3] means over frames, PSNR of the whole clip's error.

    metrics: `otcache_core.calibration.metrics`. Flicker is nan for pictures [n, H, W, 3], LPIPS where its backbone was not
    prepared (`with_lpips`).
    """
    cases, clips = len(decoded), decoded.ndim == 5
    frames = [part.flatten(0, 1) if clips else part for part in (decoded, reference)]
    ours, theirs = (part.movedim(-1, 1).clamp(0, 1).float() for part in frames)

    def each(metric: Callable) -> np.ndarray:
        return metric(ours, theirs).reshape(cases, -1)

    rmse = np.sqrt((each(metrics.rmse) ** 2).mean(1))
    return {
        "psnr": -20 * np.log10(np.maximum(rmse, 1e-6)),
        "ssim": each(metrics.ssim).mean(1),
        "rmse": rmse,
        "perceptual": each(metrics.structure_rmse).mean(1),
        "lpips": each(metrics.lpips).mean(1) if _lpips else np.full(cases, np.nan),
        "flicker": flicker(decoded, reference) if clips else np.full(cases, np.nan),
    }


@dataclass(frozen=True)
class Row:
    """One method at one budget. evaluations: that it really made; seconds: of its run over all cases; values: `measured`.

    family: "ours", "core", "plain" or "peer". beforehand: what it needed to know, in full runs of one case.
    """

    setting: str
    method: str
    family: str
    budget: int
    evaluations: int
    seconds: float
    values: dict[str, np.ndarray]
    beforehand: float = 0.0

    def mean(self, metric: str) -> float:
        return float(np.mean(self.values[metric]))

    def median(self, metric: str) -> float:
        return float(np.median(self.values[metric]))

    def worst(self, metric: str) -> float:
        values = self.values[metric]
        return float(values.min() if metric in LARGER_IS_BETTER else values.max())
