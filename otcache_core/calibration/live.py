"""What there is to see of a calibration while it runs, kept up to date; `drawing.live_picture` draws it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .search import SearchState, Trial

SIDE = 192  # pixels of a picture's longer side
CUT = 2.0  # times its width: so much of a taller picture, such as frames of a video one below the other, is shown


class Live:
    """The state of a calibration; `prepare` keeps it up to date.

    budget: the anchor's, of `steps` steps. full and best: the first case's pictures, float32 [h, w, 3] in [0, 1], scaled
    down to be looked at; best is None while that of the best schedule is not at hand, as in a search that was resumed. Both
    are where latents are judged.
    errors: the score at each budget of `budgets` that the guard has judged.
    """

    def __init__(self, budget: int, steps: int, budgets: Sequence[int], metric: str, full: torch.Tensor | None):
        self.budget, self.steps, self.budgets, self.metric = budget, steps, budgets, metric
        self.full, self.best = None if full is None else thumbnail(full), None
        self.standing: SearchState | None = None
        self.errors: dict[int, float] = {}

    def search(self, standing: SearchState, picture: torch.Tensor | None) -> None:
        """Take what a trial changed; `picture` is that of the best schedule [3, H, W], if it is at hand."""
        if self.standing is None or standing.steps != self.standing.steps:
            self.best = None if picture is None else thumbnail(picture)
        self.standing = standing

    def guard(self, budget: int, score: float) -> None:
        """Take what the guard found at `budget`."""
        self.errors[budget] = score


def thumbnail(picture: torch.Tensor) -> np.ndarray:
    """The upper part of a picture [3, H, W], at most `CUT` times as high as wide, averaged down to `SIDE` pixels."""
    picture = picture[:, : max(int(CUT * picture.shape[2]), 1)].float().cpu()
    height, width = picture.shape[1:]
    scale = min(1.0, SIDE / max(height, width))
    size = max(round(scale * height), 1), max(round(scale * width), 1)
    return torch.nn.functional.interpolate(picture[None], size, mode="area")[0].movedim(0, -1).numpy()


def best_so_far(trials: Sequence[Trial]) -> np.ndarray:
    """The best score after each trial, float64 [n]: NaN before the first that was not dropped."""
    scores = np.array([np.inf if trial.dropped or np.isnan(trial.score) else trial.score for trial in trials], dtype=np.float64)
    best = np.minimum.accumulate(scores)
    return np.where(np.isinf(best), np.nan, best)
