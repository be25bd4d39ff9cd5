"""The demo's figures, made of `demo.Results`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..drawing.charts import error_against_budget, overview, schedule_strips, warps
from ..drawing.image_grid import error_map, side_by_side
from ..drawing.style import png_bytes, to_image, to_png
from ..schedules.schedule import Schedule
from ..schedules.transport import budget_to_lambda
from .demo import OURS, PLAIN, Results

if TYPE_CHECKING:
    import matplotlib.figure

YLABEL = "RMSE against the full run"


def error_series(results: Results) -> dict[str, dict[int, float]]:
    """Mean RMSE by method and budget."""
    return {
        name: {budget: float(measured.rmse.mean()) for budget, measured in by_budget.items()}
        for name, by_budget in results.methods.items()
        if by_budget
    }


def draw_figures(results: Results) -> dict[str, bytes]:
    """The report's charts as PNG files, by name."""
    calibrated, budgets = results.calibrated, sorted(results.plan.picture_budgets)
    shown = [calibrated.schedules[budget] for budget in budgets]
    ends = calibrated.anchor, calibrated.reference
    labels = [f"anchor, B = {ends[0].budget}", f"reference, B = {ends[1].budget}", *(f"B = {b}" for b in budgets)]
    lambdas = [budget_to_lambda(budget, ends[0].budget, ends[1].budget) for budget in budgets]
    return {
        "overview": png_bytes(to_image(overview_figure(results)), levels=86),  # for the README: under 400 kB
        "schedules": to_png(schedule_strips([*ends, *shown], labels)),
        "warps": to_png(warps(*ends, shown, lambdas)),
        "errors": to_png(error_against_budget(error_series(results), YLABEL)),
    }


def overview_figure(results: Results) -> matplotlib.figure.Figure:
    """Four held-out cases, full, cached and at last by the best plain solver, beside the errors of all methods."""
    columns, least = results.plan.picture_budgets, min(results.plan.picture_budgets)
    shown = [results.full, *(results.methods[OURS][b] for b in columns), results.methods[PLAIN][least]]
    last = len(results.subject.held_out) - 1
    few = sorted({round(i) for i in np.linspace(0, last, 4)})  # spread over the set, not chosen
    images = [[measured.pictures[i] for measured in shown] for i in few]
    captions = [["full run", *(f"{measured.psnr[i]:.1f} dB" for measured in shown[1:])] for i in few]
    titles = [f"{b} evaluations" for b in (results.subject.steps, *columns)] + [f"plain, {least} steps"]
    return overview(images, titles, captions, error_series(results), YLABEL)


def case_figure(results: Results, number: int) -> matplotlib.figure.Figure:
    """One held-out case as a figure: full run and ours, error maps, best plain solver."""
    columns, full = results.plan.picture_budgets, results.full.pictures[number]
    ours, plain = ([results.methods[name][b] for b in columns] for name in (OURS, PLAIN))
    images = [
        [full, *(m.pictures[number] for m in ours)],
        [None, *(error_map(m.pictures[number], full) for m in ours)],
        [None, *(m.pictures[number] for m in plain)],
    ]
    captions = [["full run", *(f"{m.psnr[number]:.1f} dB" for m in ours)], [""] * (1 + len(ours)),
                ["", *(f"{m.psnr[number]:.1f} dB" for m in plain)]]  # fmt: skip
    titles = [f"{b} evaluations" for b in (results.subject.steps, *columns)]
    labels = [results.subject.describe(results.subject.held_out[number]), "error of the cached run, black is none",
              "best plain solver with as many evaluations"]  # fmt: skip
    return side_by_side(images, titles, labels, captions)


def shown(results: Results) -> dict[str, Schedule]:
    """The schedules that the strips show, by name."""
    calibrated = results.calibrated
    budgets = {f"budget {b}": calibrated.schedules[b] for b in sorted(results.plan.picture_budgets)}
    return {"anchor": calibrated.anchor, "reference": calibrated.reference, **budgets}
