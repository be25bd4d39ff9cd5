"""A picture of a calibration while it runs: pictures, the search's best-so-far curve, the error at each budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..calibration.live import SIDE, best_so_far
from .charts import SMALLEST, log_axis
from .style import COLOURS, DPI, MUTED, PAPER, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..calibration.live import Live
    from ..calibration.search import SearchState

SIZE = 640, 460  # pixels of the figure
BORDER, LINE, GUTTER = 12, 24, 4
TEXT, LEFT, BELOW, ABOVE = 220, 308, 58, 66  # pixels left of the chart's title, and around the chart
ROOM = 0.2  # decades above and below the values of a logarithmic axis, so that a single value has a tick


@styled
def live_figure(live: Live) -> Figure:
    """The full run's picture above the best one so far, and beside them the chart of the stage that runs.

    Small and wide, with large letters, since ComfyUI shows it in about 300 x 200 pixels.
    """
    figure = new_figure(SIZE[0] / DPI, SIZE[1] / DPI)
    rows = [(live.full, f"full, {live.steps} of {live.steps}")]
    missing = "latents are judged" if live.full is None else "best: found earlier"
    rows.append((live.best, missing if live.best is None else f"best, {live.budget} of {live.steps}"))
    for number, (image, title) in enumerate(rows):
        top = BORDER + number * (LINE + SIDE + GUTTER)
        figure.text((BORDER + SIDE / 2) / SIZE[0], 1 - (top + LINE / 2) / SIZE[1], title, ha="center", va="center")
        if image is not None:
            place(figure, image, BORDER, top + LINE)
    axes = figure.add_axes((LEFT / SIZE[0], BELOW / SIZE[1], 1 - (LEFT + BORDER) / SIZE[0], 1 - (BELOW + ABOVE) / SIZE[1]))
    if live.errors or live.standing is None:
        title = f"{len(live.errors)} of {len(live.budgets)} budgets"
        draw_budgets(axes, live)
    else:
        title = f"trial {live.standing.done} of {live.standing.wanted}, best {live.standing.score:.4g}"
        draw_search(axes, live.standing)
    axes.set_ylabel(live.metric)
    figure.text(TEXT / SIZE[0], 1 - (BORDER + LINE / 2) / SIZE[1], title, va="center", fontweight="bold")
    return figure


def place(figure: Figure, image: np.ndarray, x: int, y: int) -> None:
    """A thumbnail [h, w, 3], enlarged by a whole factor, amid the square of `SIDE` pixels at x, y from the upper left."""
    factor = max(SIDE // max(image.shape[:2]), 1)
    enlarged = image.repeat(factor, 0).repeat(factor, 1)
    height, width, _ = enlarged.shape
    figure.figimage(enlarged, x + (SIDE - width) // 2, SIZE[1] - y - (SIDE + height) // 2, origin="upper")


def draw_search(axes: Axes, standing: SearchState) -> None:
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
