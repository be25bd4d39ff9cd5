"""Pictures beside each other, pixel for pixel, and maps of where two of them differ."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from .style import DPI, MUTED, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR_FULL_SCALE = 0.25  # the error that an error map draws brightest
BORDER, TITLE, LINE, CAPTION, GUTTER = 12, 30, 20, 26, 10  # pixels


def error_map(image: np.ndarray, reference: np.ndarray, full_scale: float = ERROR_FULL_SCALE) -> np.ndarray:
    """Where and how much two pictures [H, W, 3] differ, float32 [H, W, 3]: black is equal, brighter is worse.

    The largest difference of the three channels, on a colour map whose lightness rises evenly; `full_scale` is its top.
    """
    from matplotlib import colormaps

    difference = np.abs(np.asarray(image, dtype=np.float32) - np.asarray(reference, dtype=np.float32))
    # Channel by channel, and colours looked up: max(-1) and calling the colour map take several times as long.
    largest = np.maximum(np.maximum(difference[..., 0], difference[..., 1]), difference[..., 2])
    colours = colormaps["inferno"](np.arange(256))[:, :3].astype(np.float32)
    return colours[np.minimum(largest * (256 / full_scale), 255).astype(np.uint8)]


@styled
def side_by_side(
    images: Sequence[Sequence[np.ndarray | None]],
    titles: Sequence[str],
    row_labels: Sequence[str] | None = None,
    captions: Sequence[Sequence[str]] | None = None,
    cell: int = 200,
) -> Figure:
    """Rows of pictures [H, W, 3] in [0, 1] (None leaves a gap), enlarged by whole factors so that pixels stay pixels.

    titles: one a column. row_labels: one a row, above it. captions: one a picture, below it, "" for none.
    cell: about how many pixels wide a picture is drawn.
    """
    width, height = grid_size(images, row_labels, captions, cell)
    figure = new_figure((width + 2 * BORDER) / DPI, (height + 2 * BORDER) / DPI)
    draw_grid(figure, images, titles, row_labels, captions, cell)
    return figure


def _scaled(images, cell: int) -> tuple[int, int, int]:
    """(factor, height, width) of the enlarged pictures."""
    height, width = next(np.shape(image)[:2] for row in images for image in row if image is not None)
    factor = max(1, round(cell / width))
    return factor, height * factor, width * factor


def _layout(images, row_labels, captions, cell: int) -> tuple[int, list[tuple[list[str], int, int]]]:
    """The grid's width, and for each row its label's lines and the pixels above and below its pictures."""
    _, _, width = _scaled(images, cell)
    across = max(len(row) for row in images) * (width + GUTTER) - GUTTER
    rows = []
    for number in range(len(images)):
        lines = wrap(row_labels[number], max(across // 11, 1)) if row_labels else []
        above = LINE * len(lines) + GUTTER if lines else 0
        rows.append((lines, above, GUTTER + (CAPTION if captions and any(captions[number]) else 0)))
    return across, rows


def grid_size(images, row_labels, captions, cell: int) -> tuple[int, int]:
    """(width, height) in pixels of what `draw_grid` draws, without margins."""
    _, height, _ = _scaled(images, cell)
    across, rows = _layout(images, row_labels, captions, cell)
    return across, TITLE + sum(above + height + below for _, above, below in rows)


def draw_grid(figure: Figure, images, titles, row_labels, captions, cell: int) -> None:
    """The grid of `side_by_side` in the upper left corner of `figure`, `BORDER` pixels from its edges."""
    factor, height, width = _scaled(images, cell)
    total_width, total_height = (figure.get_size_inches() * DPI).round()

    def write(x: float, y: float, words: str, **style) -> None:
        figure.text(x / total_width, 1 - y / total_height, words, va="center", **style)

    for column, title in enumerate(titles):
        write(BORDER + column * (width + GUTTER) + width / 2, BORDER + TITLE / 2, title, ha="center", fontweight="bold")
    y = BORDER + TITLE
    for number, (row, (lines, above, below)) in enumerate(
        zip(images, _layout(images, row_labels, captions, cell)[1], strict=True)
    ):
        for line, words in enumerate(lines):
            write(BORDER, y + LINE * (line + 0.5) + GUTTER / 4, words, color=MUTED, fontsize=8)
        y += above
        for column, image in enumerate(row):
            if image is None:
                continue
            x = BORDER + column * (width + GUTTER)
            corner = x / total_width, 1 - (y + height) / total_height
            axes = figure.add_axes((*corner, width / total_width, height / total_height))
            enlarged = np.clip(np.asarray(image, dtype=np.float32), 0, 1).repeat(factor, 0).repeat(factor, 1)
            axes.imshow(enlarged, interpolation="nearest", aspect="auto")
            axes.set_axis_off()
            if captions and captions[number][column]:
                write(x + width / 2, y + height + CAPTION / 2, captions[number][column], ha="center", fontsize=8)
        y += height + below
