"""How figures look, and how they become pictures: the one place for fonts, colours and lines.

matplotlib and Pillow are imported when a figure is made, never before. Figures are drawn without pyplot, so nothing global
is kept. While one is made or drawn, matplotlib's settings are changed for the whole process, by one thread of ours at a time.
"""

from __future__ import annotations

import io
from functools import wraps
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

INK, MUTED, FAINT, PAPER = "#1f2937", "#6b7280", "#e5e7eb", "#ffffff"
# Okabe and Ito's colour-blind safe hues, the first for what the reader came for, darkened to be legible as text.
COLOURS = ("#0b5fa5", "#c2410c", "#047857", "#a05a00", "#9d3c78", "#4b5563", "#0e7490")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DPI = 150
STYLE = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so figures are the same everywhere
    "text.parse_math": False,  # a prompt with dollar signs is no formula
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "text.color": INK, "axes.labelcolor": INK, "axes.titlecolor": INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "figure.facecolor": PAPER, "axes.facecolor": PAPER, "savefig.facecolor": PAPER,
    "axes.edgecolor": MUTED, "axes.linewidth": 0.7, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": FAINT, "grid.linewidth": 0.7, "axes.axisbelow": True,
    "xtick.major.width": 0.7, "ytick.major.width": 0.7, "xtick.major.size": 3, "ytick.major.size": 3,
    "lines.linewidth": 1.5, "lines.markersize": 4.5, "axes.unicode_minus": False,
}  # fmt: skip


_settings = RLock()


def styled(draw):
    """Let `draw`, which makes a figure or a picture of one, do it under `STYLE`."""
    @wraps(draw)
    def drawn(*args, **kwargs):
        from matplotlib import style

        with _settings, style.context(["default", STYLE]):  # the user's own matplotlibrc counts for nothing
            return draw(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float, **options) -> Figure:
    """An empty figure of `width` x `height` inches with an Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, **options)
    FigureCanvasAgg(figure)
    return figure


def to_image(figure: Figure) -> np.ndarray:
    """The figure as float32 [H, W, 3] in [0, 1]."""
    return np.asarray(to_picture(figure)).astype(np.float32) / 255


@styled  # matplotlib makes ticks and their labels only now
def to_picture(figure: Figure) -> Image:
    """The figure as an RGB picture of Pillow's."""
    from PIL import Image

    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())


def to_png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    return png_bytes(to_image(figure))


def png_bytes(image: np.ndarray, levels: int = 256) -> bytes:
    """A picture [H, W, 3] in [0, 1] as the bytes of a PNG file.

    Fewer `levels` a channel make a smaller file: 86, steps of 3 in 255, cannot be seen and save a quarter.
    """
    from PIL import Image

    coarse = np.round(np.clip(image, 0, 1) * (levels - 1)) / (levels - 1)
    data = io.BytesIO()
    Image.fromarray(np.round(coarse * 255).astype(np.uint8)).save(data, "PNG", optimize=True)
    return data.getvalue()
