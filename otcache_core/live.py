"""What there is to see of a calibration while it runs: pictures, the search's best-so-far curve, the error at each budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from .figures import COLOURS, DPI, MUTED, PAPER, new_figure, styled
from .plots import SMALLEST, log_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .search import Standing, Trial

SIZE, SIDE = (640, 460), 192  # pixels of the figure, and of a picture's longer side
MARGIN, LINE, GUTTER = 12, 24, 4
TEXT, LEFT, BELOW, ABOVE = 220, 308, 58, 66  # pixels left of the chart's title, and around the chart
CUT = 2.0  # times its width: so much of a taller picture, such as frames of a video one below the other, is shown
ROOM = 0.2  # decades above and below the values of a logarithmic axis, so that a single value has a tick


class Live:
    """The state of a calibration; `prepare` keeps it up to date.

    budget: the anchor's, of `steps` steps. full and best: the first case's pictures, float32 [h, w, 3] in [0, 1], scaled
    down to be looked at; best is None while that of the best schedule is not at hand, as in a search that was resumed.
    errors: the score at each budget of `budgets` that the guard has judged.
    """

    def __init__(self, budget: int, steps: int, budgets: Sequence[int], metric: str, full: torch.Tensor):
        self.budget, self.steps, self.budgets, self.metric = budget, steps, budgets, metric
        self.full, self.best = thumbnail(full), None
        self.standing: Standing | None = None
        self.errors: dict[int, float] = {}

    def search(self, standing: Standing, picture: torch.Tensor | None) -> None:
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


@styled
def live_figure(live: Live) -> Figure:
    """The full run's picture above the best one so far, and beside them the chart of the stage that runs.

    Small and wide, with large letters, since ComfyUI shows it in about 300 x 200 pixels.
    """
    figure = new_figure(SIZE[0] / DPI, SIZE[1] / DPI)
    rows = [(live.full, f"full, {live.steps} of {live.steps}")]
    rows.append((live.best, "best: found earlier" if live.best is None else f"best, {live.budget} of {live.steps}"))
    for number, (image, title) in enumerate(rows):
        top = MARGIN + number * (LINE + SIDE + GUTTER)
        figure.text((MARGIN + SIDE / 2) / SIZE[0], 1 - (top + LINE / 2) / SIZE[1], title, ha="center", va="center")
        if image is not None:
            place(figure, image, MARGIN, top + LINE)
    axes = figure.add_axes((LEFT / SIZE[0], BELOW / SIZE[1], 1 - (LEFT + MARGIN) / SIZE[0], 1 - (BELOW + ABOVE) / SIZE[1]))
    if live.errors or live.standing is None:
        title = f"{len(live.errors)} of {len(live.budgets)} budgets"
        draw_budgets(axes, live)
    else:
        title = f"trial {live.standing.done} of {live.standing.wanted}, best {live.standing.score:.4g}"
        draw_search(axes, live.standing)
    axes.set_ylabel(live.metric)
    figure.text(TEXT / SIZE[0], 1 - (MARGIN + LINE / 2) / SIZE[1], title, va="center", fontweight="bold")
    return figure


def place(figure: Figure, image: np.ndarray, x: int, y: int) -> None:
    """A thumbnail [h, w, 3], enlarged by a whole factor, amid the square of `SIDE` pixels at x, y from the upper left."""
    factor = max(SIDE // max(image.shape[:2]), 1)
    enlarged = image.repeat(factor, 0).repeat(factor, 1)
    height, width, _ = enlarged.shape
    figure.figimage(enlarged, x + (SIDE - width) // 2, SIZE[1] - y - (SIDE + height) // 2, origin="upper")


def draw_search(axes: Axes, standing: Standing) -> None:
    """Scores of all trials and the best so far, on a logarithmic axis."""
    numbers = np.arange(1, standing.done + 1)
    scores = np.maximum([trial.score for trial in standing.trials], SMALLEST)
    dropped = np.array([trial.dropped for trial in standing.trials])
    dots = {"linestyle": "none", "marker": "o", "markersize": 4}
    axes.plot(numbers[dropped], scores[dropped], **dots, color=MUTED, markerfacecolor=PAPER, label="dropped early")
    axes.plot(numbers[~dropped], scores[~dropped], **dots, color=COLOURS[1], label="trial")
    axes.plot(numbers, best_so_far(standing.trials), color=COLOURS[0], drawstyle="steps-post", linewidth=2, label="best so far")
    log_axis(axes, scores, ROOM)
    axes.set(xlim=(0, max(standing.done, standing.wanted) + 1), xlabel="trial")
    axes.legend(loc="lower left", bbox_to_anchor=(TEXT / SIZE[0], 1 - ABOVE / SIZE[1]), bbox_transform=axes.figure.transFigure,
                ncols=3, frameon=False, fontsize=8, handlelength=1.2, borderaxespad=0.2, borderpad=0, columnspacing=1.2,
                handletextpad=0.5)  # fmt: skip


def draw_budgets(axes: Axes, live: Live) -> None:
    """The error at every budget that was judged, on a logarithmic axis."""
    judged = sorted(live.errors)
    errors = np.maximum([live.errors[budget] for budget in judged], SMALLEST)
    axes.plot(judged, errors, color=COLOURS[0], marker="o", linewidth=2)
    log_axis(axes, errors, ROOM)
    axes.set(xlim=(min(live.budgets) - 0.5, max(live.budgets) + 0.5), xlabel="model evaluations")
    axes.xaxis.get_major_locator().set_params(integer=True)
