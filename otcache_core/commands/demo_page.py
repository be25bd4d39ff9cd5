"""What the demo writes: report page, figures and schedule files, made of `demo.Results`."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from ..calibration.guard import Candidate
from ..drawing.html_page import Figure, Grid, Section, Table, render
from ..drawing.image_grid import ERROR_FULL_SCALE, error_map
from ..drawing.style import png_bytes, to_png
from ..schedules.schedule import Schedule
from .demo import ALONE, DIRECT, EULER, GRAPH, OURS, PLAIN, ROUNDS, Results
from .demo_figures import YLABEL, case_figure, draw_figures, error_series, shown

ENLARGE = 3  # pictures are stored enlarged, so that browsers that smooth do not blur their pixels
LIMITS = (
    "The model is tiny, and so are its pictures: read the orderings, not the levels. A large model's errors have other "
    "sizes, and its best steps lie elsewhere, which is why a schedule is calibrated on the model that it is for.",
    "The comparison is with the full run of the same number of steps, which itself only approximates the exact solution. "
    "Caching reproduces your sampler's result with fewer evaluations; a better solver on a good grid may be closer to the "
    "exact solution. The command python -m otcache_core bench measures both.",
    "The held-out cases are few and of the same kind as the calibration cases. Differences of a few per cent between two "
    "schedules are noise; those between methods that are far apart on the chart are not.",
    "Direct search has fewer trials here than the anchor search, to keep the demo short; bench gives it as many.",
)


def all_files(results: Results, seconds: float) -> dict[str, bytes]:
    """Relative name -> content of every file of the demo's folder, the report last."""
    figures = draw_figures(results)
    files = {f"pictures/{name}.png": data for name, data in figures.items()}
    for number in range(len(results.subject.held_out)):
        files[f"pictures/case-{number + 1}.png"] = to_png(case_figure(results, number))
    for name, schedule in named_schedules(results).items():
        files[f"schedules/{name}.json"] = (schedule.model_dump_json(indent=1) + "\n").encode()
    title = "OTCache: full runs and cached runs, measured"
    footer = "Written by python -m otcache_core demo. The schedules are in the folder schedules, the figures in pictures."
    files["report.html"] = render(title, lead(results), sections(results, figures, seconds), footer).encode()
    return files


def named_schedules(results: Results) -> dict[str, Schedule]:
    """File stem -> schedule."""
    prepared = {f"budget-{budget:02d}": schedule for budget, schedule in results.calibrated.schedules.items()}
    return {"reference": results.calibrated.reference, "anchor": results.calibrated.anchor, **prepared}


def lead(results: Results) -> str:
    """The report's first paragraph: its main number, as measured."""
    budget = min(results.plan.picture_budgets, key=lambda b: abs(b - results.subject.steps / 5))
    ours, plain = results.methods[OURS][budget], results.methods[PLAIN][budget]
    return (
        f"With {budget} instead of {results.subject.steps} model evaluations ({results.speedups[budget]} times as fast, "
        f"measured), pictures that calibration has not seen reach {ours.psnr.mean():.1f} dB PSNR against the full run. "
        f"The best plain solver with {budget} steps ({plain.label}) reaches {plain.psnr.mean():.1f} dB."
    )


def sections(results: Results, figures: Mapping[str, bytes], seconds: float) -> list[Section]:
    """The report's parts."""
    return [
        Section("Pictures", [
            "Each block is one held-out case: the full run, then the cached run at four budgets; below, where the cached "
            f"run differs from the full one (black: not at all, brightest: by {ERROR_FULL_SCALE:g} of the range or more); "
            "last, the best plain solver with as many evaluations. Numbers are PSNR against the full run.",
            *(case_grid(results, number) for number in range(len(results.subject.held_out))),
        ]),
        Section("Error against budget", [
            Figure(figures["errors"], f"Chart of {YLABEL} against model evaluations on logarithmic axes; the table below "
                   "has its numbers.", "Mean over the held-out cases; lower is better. Both axes are logarithmic. Best plain "
                   "solver: at each budget the best of Euler, Adams-Bashforth 2 and DPM-Solver++(2M) on the model's own grid."),
            error_table(results),
            speed_table(results),
        ]),
        Section("Schedules", [
            Figure(figures["schedules"], "Strips of sampling steps, one a schedule; filled cells are computed: "
                   + "; ".join(f"{name}: {', '.join(map(str, s.compute_steps))}" for name, s in shown(results).items()) + ".",
                   "Which steps run the model. The anchor is found by search at a small budget, the reference by the graph at "
                   "a large one; the others lie on the Wasserstein geodesic between them, or are what the guard put in its "
                   "place."),
            Figure(figures["warps"], "Quantile functions of anchor and reference, of the geodesic between them at each shown "
                   "budget, and the steps that the schedule takes.",
                   "A schedule as a warp: after which share of the evaluations which part of the trajectory is done. Points "
                   "off the line are rounding to whole steps, or the guard's doing."),
        ]),
        Section("What the guard changed", [
            "The geodesic proposes, measurement decides: at each budget a few of its points, the graphs' own paths and "
            "close variants of the best of them are rolled out on the calibration cases, and the best is kept "
            f"({changed(results)}). Scores are the geometric mean "
            f"of {results.calibrated.anchor.metric or 'the metric'} over the calibration cases; lower is better.",
            guard_table(results),
        ]),
        Section("What was run", [facts_table(results, seconds), cost_table(results)]),
        Section("Limits", LIMITS),
    ]  # fmt: skip


def case_grid(results: Results, number: int) -> Grid:
    """One held-out case: full and cached pictures, error maps, the best plain solver's pictures."""
    words = results.subject.describe(results.subject.held_out[number])
    columns, full = results.plan.picture_budgets, results.full.pictures[number]

    def picture(image: np.ndarray, alt: str, caption: str = "") -> Figure:
        return Figure(png_bytes(image.repeat(ENLARGE, 0).repeat(ENLARGE, 1)), f"{alt}: {words}", caption)

    first: list[Figure | str] = [picture(full, "Full run", "full run")]
    second: list[Figure | str] = ["error of the cached run"]
    third: list[Figure | str] = ["best plain solver"]
    for budget in columns:
        ours, plain = results.methods[OURS][budget], results.methods[PLAIN][budget]
        image = ours.pictures[number]
        first.append(picture(image, f"Cached, {budget} evaluations", f"{ours.psnr[number]:.1f} dB"))
        second.append(picture(error_map(image, full), f"Error with {budget} evaluations"))
        third.append(picture(plain.pictures[number], f"{plain.label}, {budget} steps", f"{plain.psnr[number]:.1f} dB"))
    return Grid(words, [f"B = {results.subject.steps}", *(f"B = {budget}" for budget in columns)], [first, second, third])


def error_table(results: Results) -> Table:
    """Mean RMSE of every method at every measured budget."""
    budgets = sorted(results.plan.curve_budgets)
    series = error_series(results)
    rows = [
        [name, *(f"{1000 * series[name][b]:.2f}" if b in series[name] else "–" for b in budgets)]
        for name in (OURS, ALONE, GRAPH, DIRECT, PLAIN, EULER)
        if name in series
    ]
    best: dict[str, list[str]] = {}
    for budget in budgets:
        best.setdefault(results.methods[PLAIN][budget].label, []).append(str(budget))
    solvers = "; ".join(f"{name} at {', '.join(where)}" for name, where in best.items())
    caption = f"1000 x {YLABEL}, mean over {len(results.subject.held_out)} held-out cases. Best plain solver: {solvers}."
    return Table(caption, ["B", *map(str, budgets)], rows)


def speed_table(results: Results) -> Table:
    """Evaluations, speed-up and PSNR at every measured budget."""
    rows = []
    for budget in sorted(results.plan.curve_budgets):
        ours, plain = results.methods[OURS][budget], results.methods[PLAIN][budget]
        rows.append([str(budget), f"{ours.evaluations:.0f}", f"{results.subject.steps / budget:.1f}x",
                     str(results.speedups[budget]), f"{ours.psnr.mean():.1f}", f"{ours.psnr.min():.1f}",
                     f"{plain.psnr.mean():.1f}", f"{plain.psnr.min():.1f}"])  # fmt: skip
    head = ["B", "evaluations", "ideal", "measured", "OTCache, dB", "worst", "plain solver, dB", "worst"]
    caption = (f"How many times as fast as the full run, and PSNR, mean and worst case, of {len(results.subject.held_out)} "
               f"pictures. Speed is the median of {ROUNDS} rounds, each with a full run of its own, and half of what they "
               "span; where other programs ran meanwhile it can lie above the ideal.")  # fmt: skip
    return Table(caption, head, rows)


def kept_candidate(results: Results, budget: int) -> Candidate:
    """The guard's choice at `budget`."""
    return next(candidate for candidate in results.calibrated.candidates[budget] if candidate.kept)


def changed(results: Results) -> str:
    """How often the guard kept something else than the geodesic's own schedule."""
    calibrated = results.calibrated
    count = sum(kept_candidate(results, b).steps != calibrated.geodesic[b] for b in calibrated.schedules)
    return f"here it replaced the plain interpolation at {count} of {len(calibrated.schedules)} budgets"


def guard_table(results: Results) -> Table:
    """At each measured budget: what was kept, its steps and score beside the unguarded interpolation's."""
    rows = []
    for budget in sorted(results.plan.curve_budgets):
        kept, geodesic = kept_candidate(results, budget), results.calibrated.geodesic[budget]
        score, before = results.calibrated.schedules[budget].score, results.geodesic_scores[budget]
        steps = "the same" if kept.steps == geodesic else " ".join(map(str, geodesic))
        row = [str(budget), kept.source, " ".join(map(str, kept.steps)), f"{1000 * score:.4g}", steps, f"{1000 * before:.4g}"]
        rows.append(row)
    head = ["B", "kept", "its steps", "score", "the geodesic's steps", "score"]
    return Table("The guard's choice beside plain interpolation; scores are multiplied by 1000.", head, rows, words=(1, 2, 4))


def facts_table(results: Results, seconds: float) -> Table:
    """The model, the cases, the versions and the time."""
    subject, settings = results.subject, results.plan.settings
    laps = ", ".join(f"{name} {s:.0f} s" for name, s in results.seconds.items())
    rows = [[name, value] for name, value in subject.facts.items()] + [
        ["Sampling", f"{subject.steps} Euler steps"],
        ["Calibration cases", str(len(subject.calibration))],
        ["Held-out cases", f"{len(subject.held_out)}, used for nothing but the numbers and pictures here"],
        ["Anchor search", f"{settings.trials} trials at B = {settings.anchor_budget}, seed {settings.seed}"],
        ["Metric", settings.metric],
        ["Reference", f"graph at B = {settings.reference_budget}"],
        ["Wall time", f"{seconds:.0f} s, of which {laps}"],
        ["Versions", ", ".join(f"{name} {value}" for name, value in versions().items())],
    ]  # fmt: skip
    return Table("Setting", (), rows, words=(1,))


def cost_table(results: Results) -> Table:
    """What calibration cost, in model evaluations and full runs a case."""
    steps, evaluations = results.subject.steps, results.calibrated.evaluations
    rows = [[stage, f"{count:.0f}", f"{count / steps:.1f}"] for stage, count in evaluations.items()]
    total = sum(evaluations.values())
    rows.append(["all, for every budget", f"{total:.0f}", f"{total / steps:.1f}"])
    return Table("What calibration cost, per calibration case.", ["stage", "model evaluations", "full runs"], rows)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    found = {"Python": platform.python_version()}
    for package in ("torch", "numpy", "scipy", "optuna", "matplotlib"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
