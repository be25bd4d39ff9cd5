"""Figures of schedules, warps, errors and pictures. Every distinction is drawn twice: by colour, and by fill, marker or label.

`to_image` makes an array of a figure, `to_png` a file's bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..schedules.schedule import Schedule, trajectory_time
from ..schedules.transport import geodesic, quantile_function, wasserstein
from .image_grid import BORDER, draw_grid, error_map, grid_size, side_by_side
from .style import COLOURS, DPI, INK, MARKERS, MUTED, PAPER, new_figure, styled, to_image, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["error_against_budget", "error_map", "overview", "schedule_strips", "side_by_side", "to_image", "to_png", "warps"]

WIDE, NODE = 8.2, 5.2  # inches: on a page, and on a node of ComfyUI
TICK = 0.22  # inches between the middles of two numbers
LONGEST = 44  # characters of a strip's label
SMALLEST = 1e-6  # where a logarithmic axis ends
FEW_TICKS = 0.9  # decades, below which a logarithmic axis has more ticks a decade


@styled
def schedule_strips(schedules: Sequence[Schedule], labels: Sequence[str] | None = None, width: float = WIDE) -> Figure:
    """One strip of N cells a schedule, filled where the model runs and hollow where it is predicted; sigma above.

    Labels default to the schedules' names. Strips of different N share their width, and their own sigma curves. width: of the
    figure in inches; letters keep their size.
    """
    labels = [s.name or s.stage for s in schedules] if labels is None else labels
    labels = [label if len(label) <= LONGEST else label[: LONGEST - 1] + "…" for label in labels]
    most = max(s.steps for s in schedules)
    figure = new_figure(width, 1.5 + 0.31 * len(schedules), layout="constrained")
    curve, strips = figure.subplots(2, 1, sharex=True, height_ratios=[0.75, 0.31 * len(schedules) + 0.12])
    for sigmas in dict.fromkeys(s.sigmas for s in schedules):
        curve.plot(np.linspace(0, most, len(sigmas)), sigmas, color=MUTED, linewidth=1.2)
    curve.set(ylabel="sigma", ylim=(0, None))
    for row, schedule in enumerate(schedules):
        cell = most / schedule.steps
        chosen = np.isin(np.arange(schedule.steps), schedule.compute_steps)
        left = np.arange(schedule.steps) * cell
        gap = 0.16 * cell if schedule.steps <= 120 else 0.0
        cells = {"width": cell - gap, "height": 0.62, "align": "edge"}
        strips.barh(np.full((~chosen).sum(), row), left=left[~chosen] + gap / 2, facecolor=PAPER, edgecolor="#c3c9d2",
                    linewidth=0.6 if gap else 0.0, **cells | {"align": "center"})  # fmt: skip
        strips.barh(np.full(chosen.sum(), row), left=left[chosen] + gap / 2, facecolor=COLOURS[0], edgecolor=COLOURS[0],
                    linewidth=0.6 if gap else 0.0, **cells | {"align": "center"})  # fmt: skip
        strips.annotate(f"{schedule.budget} of {schedule.steps}   {schedule.ideal_speedup:.1f}x", (1, row), (6, 0),
                        xycoords=("axes fraction", "data"), textcoords="offset points", va="center", fontsize=8)  # fmt: skip
    strips.set(yticks=range(len(schedules)), ylim=(len(schedules) - 0.5, -0.5), xlim=(0, most))
    strips.set_yticklabels(labels, color=INK, fontsize=9)
    strips.set_xlabel("sampling step (filled: model evaluated, hollow: predicted)")
    strips.tick_params(axis="y", length=0)
    strips.spines["left"].set_visible(False)
    strips.grid(False)
    curve.tick_params(axis="x", length=0)
    if len({s.steps for s in schedules}) > 1:
        strips.set_xticks([0, most / 2, most], ["first step", "half of the steps", "last"])
    return figure


@styled
def warps(
    anchor: Schedule, reference: Schedule, schedules: Sequence[Schedule], lambdas: Sequence[float] | None = None
) -> Figure:
    """One panel a schedule: the quantile functions of anchor and reference, the geodesic's between them, and the
    schedule's own steps as points.

    lambdas: the geodesic's position for each schedule, 0 at the anchor; by default the point of the geodesic nearest to
    the schedule in W_2.
    """
    grid = np.asarray(reference.sigmas)
    ends = [quantile_function(s.compute_steps, s.sigmas) for s in (anchor, reference)]
    columns = min(len(schedules), 4)
    rows = -(-len(schedules) // columns)
    figure = new_figure(max(2.05 * columns, 4.4), 2.35 * rows + 0.35, layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for panel in panels.flat[len(schedules) :]:
        panel.set_visible(False)
    for number, (panel, schedule) in enumerate(zip(panels.flat, schedules, strict=False)):
        own = quantile_function(schedule.compute_steps, schedule.sigmas)
        if lambdas is None:
            lam = min(np.linspace(0, 1.5, 151), key=lambda value: wasserstein(geodesic(*ends, value), own))
        else:
            lam = lambdas[number]
        between = geodesic(*ends, lam)
        for warp, style, label in zip(ends, ("--", ":"), (f"anchor, B = {anchor.budget}", f"reference, B = {reference.budget}"),
                                      strict=True):  # fmt: skip
            panel.plot(warp.u, warp.t, linestyle=style, color=MUTED, linewidth=1.1, label=label)
        panel.plot(between.u, between.t, color=COLOURS[0], linewidth=1.2, label="geodesic between them")
        shares = np.arange(schedule.budget) / schedule.budget
        times = trajectory_time(schedule.sigmas)[list(schedule.compute_steps)]
        panel.plot(shares, times, "o", color=COLOURS[1], markersize=4, markerfacecolor=PAPER, label="steps of the schedule")
        panel.set_title(f"B = {schedule.budget}", loc="left", fontweight="bold")
        panel.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    figure.supxlabel("share of the evaluations", fontsize=9)
    figure.supylabel(f"trajectory time (sigma {grid[0]:.3g} to {grid[-1]:.3g})", fontsize=9)
    handles, names = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=2 if columns < 3 else 4, frameon=False, fontsize=8)
    return figure


@styled
def error_against_budget(series: Mapping[str, Mapping[int, float]], ylabel: str, width: float = WIDE) -> Figure:
    """Error against evaluations, both axes logarithmic, each line named at its end; the first line is the heavy one.

    series: name -> {budget: error}; errors below `SMALLEST`, such as 0, are drawn there. width: as in `schedule_strips`.
    """
    figure = new_figure(width, 4.3 * width / WIDE)
    left, bottom = 0.09 * WIDE / width, 0.12 * WIDE / width
    axes = figure.add_axes((left, bottom, 0.72 - left, 0.97 - bottom))
    draw_errors(axes, series, ylabel)
    return figure


def apart(budgets: Sequence[int], least: float) -> list[int]:
    """Of rising `budgets` the first, and each that is `least` in logarithms from the one taken before."""
    taken = list(budgets[:1])
    for budget in budgets:
        if np.log(budget / taken[-1]) >= least:
            taken.append(budget)
    return taken


def draw_errors(axes: Axes, series: Mapping[str, Mapping[int, float]], ylabel: str) -> None:
    """The chart of `error_against_budget` on `axes`; names stand right of it."""
    budgets = sorted({budget for line in series.values() for budget in line})
    series = {name: {b: max(error, SMALLEST) for b, error in line.items()} for name, line in series.items()}
    values = [error for line in series.values() for error in line.values()]
    low, high = log_axis(axes, values)
    axes.set(xscale="log", xlim=(budgets[0] * 0.96, budgets[-1] * 1.04), xlabel="model evaluations", ylabel=ylabel)
    inches = axes.get_position().width * axes.figure.get_figwidth()
    named = apart(budgets, TICK * np.log(budgets[-1] / budgets[0] * 1.04 / 0.96) / inches)
    axes.set_xticks(budgets, [str(b) if b in named else "" for b in budgets], minor=False)
    axes.set_xticks([], minor=True)
    height = axes.get_position().height * axes.figure.get_figheight() * 72  # points
    ends = {name: (np.log10(line[max(line)]) - low) / (high - low) for name, line in series.items()}
    places = spread(list(ends.values()), 12.5 / height)
    for number, ((name, line), place) in reversed(list(enumerate(zip(series.items(), places, strict=True)))):
        x, y = sorted(line), [line[b] for b in sorted(line)]
        colour, ours = COLOURS[number % len(COLOURS)], number == 0
        marker = MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]  # no pair of colour and marker comes twice
        axes.plot(x, y, color=colour, marker=marker, linewidth=2.6 if ours else 1.3,
                  markersize=6 if ours else 4.5, markerfacecolor=colour if ours else PAPER, clip_on=False,
                  zorder=4 if ours else 3)  # fmt: skip
        leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "linestyle": ":", "shrinkA": 1, "shrinkB": 4}
        axes.annotate(name, (x[-1], y[-1]), (1.035, place), textcoords="axes fraction", color=colour, va="center",
                      fontsize=9 if ours else 8, fontweight="bold" if ours else "normal", arrowprops=leader,
                      annotation_clip=False)  # fmt: skip


def log_axis(axes: Axes, values: Sequence[float], room: float = 0.06) -> tuple[float, float]:
    """A logarithmic y axis from the least to the greatest of `values` and `room` decades beyond, as (low, high) of log10.

    Values below `SMALLEST` are taken for it, those that are not finite are left out.
    """
    logs = [float(np.log10(max(value, SMALLEST))) for value in values if np.isfinite(value)] or [0.0]
    low, high = min(logs) - room, max(logs) + room
    digits = (1, 2, 5) if high - low > FEW_TICKS else (1, 1.5, 2, 3, 4, 5, 7)
    ticks = [digit * 10.0**power for power in range(int(low) - 2, int(high) + 2) for digit in digits]
    ticks = [tick for tick in ticks if low <= np.log10(tick) <= high]
    axes.set(yscale="log", ylim=(10**low, 10**high))
    axes.set_yticks(ticks, [f"{tick:.10f}".rstrip("0").rstrip(".") for tick in ticks])
    axes.set_yticks([], minor=True)
    return low, high


def spread(places: Sequence[float], gap: float) -> list[float]:
    """`places` in [0, 1] moved as little as makes neighbours `gap` apart (least squares); their order is kept."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(places, kind="stable")
    gap = min(gap, 1 / max(len(order) - 1, 1))
    offsets = np.arange(len(order)) * gap
    result = np.empty(len(order))
    result[order] = isotonic_regression(np.asarray(places)[order] - offsets).x.clip(0, 1 - offsets[-1]) + offsets
    return result.tolist()


@styled
def overview(
    images: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    captions: Sequence[Sequence[str]],
    series: Mapping[str, Mapping[int, float]],
    ylabel: str,
    cell: int = 192,
) -> Figure:
    """`side_by_side` on the left and `error_against_budget` on the right: a whole comparison in one wide picture."""
    width, height = grid_size(images, None, captions, cell)
    gap, chart, names = 125, 0.85 * height, 215  # pixels: the axis's labels, the axes, the lines' names
    total = BORDER + width + gap + chart + names
    figure = new_figure(total / DPI, (height + 2 * BORDER) / DPI)
    draw_grid(figure, images, titles, None, captions, cell)
    axes = figure.add_axes(((BORDER + width + gap) / total, 0.1, chart / total, 0.86))
    draw_errors(axes, series, ylabel)
    return figure
