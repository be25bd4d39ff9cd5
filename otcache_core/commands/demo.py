"""What the demo does: every stage on a model, judged on pictures that calibration has not seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch

from ..calibration.metrics import psnr, rmse
from ..calibration.pipeline import Calibrated, calibrate, search_starts
from ..calibration.scoring import Scorer
from ..calibration.search import SearchState, search_steps
from ..calibration.settings import Settings
from ..errors import OTCacheError
from ..sampling.rollout import FITTED, Counted, Generator, sample
from ..sampling.solvers import SOLVERS
from ..schedules.schedule import Schedule, make_schedule
from .bars import Bars

OURS, ALONE, GRAPH, DIRECT, PLAIN, EULER = (
    "OTCache", "OT without guard", "graph alone", "direct search", "best plain solver", "plain Euler",
)  # fmt: skip
GRAPH_PATH = "graph, fitted"  # among `Calibrated.paths`, what "graph alone" stands for
MOST_TRIALS = 100_000
ROUNDS = 3  # in which speed is measured


def check_trials(count: int) -> int:
    """`count` if a search can have so many trials; raises `OTCacheError`."""
    if not 1 <= count <= MOST_TRIALS:
        raise OTCacheError(f"trials is {count}, but must be a whole number from 1 to {MOST_TRIALS}; 60 is a good number.")
    return count


@dataclass(frozen=True)
class Plan:
    """What to measure. Raises `OTCacheError` where a number does not fit."""

    settings: Settings = field(default_factory=Settings)
    picture_budgets: tuple[int, ...] = (15, 10, 8, 6)
    curve_budgets: tuple[int, ...] = (5, 6, 8, 10, 12, 15, 20, 25)
    direct_trials: int = 20

    def __post_init__(self):
        check_trials(self.settings.trials)
        check_trials(self.direct_trials)
        for budget in (*self.picture_budgets, *self.curve_budgets):
            if budget not in self.settings.budgets or budget not in self.curve_budgets:
                raise OTCacheError(f"budget {budget} is to be shown, so it must be among the calibrated and measured ones.")


@dataclass(frozen=True)
class Subject:
    """The model that is shown: its generator, the cases of both sets, and its sigma grid for any number of steps.

    describe: the words for one case, shown under its pictures.
    """

    generator: Generator
    calibration: Sequence[Any]
    held_out: Sequence[Any]
    grid: Callable[[int], np.ndarray]
    steps: int = 50
    describe: Callable[[Any], str] = str
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """One method at one budget on the held-out cases: pictures float32 [n, H, W, 3], PSNR and RMSE float64 [n] against
    the full run, and the model evaluations it made per case."""

    pictures: np.ndarray
    psnr: np.ndarray
    rmse: np.ndarray
    evaluations: float
    label: str = ""


@dataclass(frozen=True)
class Speedup:
    """How many times as fast as the full run: the median of several rounds, and half of what they span."""

    times: float
    spread: float

    def __str__(self) -> str:
        return f"{self.times:.1f} \u00b1 {self.spread:.1f}"


@dataclass
class Results:
    """All that the report tells. `methods` maps a method's name to its budgets; `geodesic_scores` are the guard's scores
    of the unguarded interpolation; `seconds` are wall times by stage; `speedups` as `speedups` measures them."""

    subject: Subject
    plan: Plan
    calibrated: Calibrated
    full: Measured
    methods: dict[str, dict[int, Measured]]
    geodesic_scores: dict[int, float]
    seconds: dict[str, float]
    speedups: dict[int, Speedup]


class Examiner:
    """Runs methods on the held-out cases and compares them with the full run, made first."""

    def __init__(self, subject: Subject):
        self.subject, self.generator = subject, Counted(subject.generator)
        grid = subject.grid(subject.steps)
        everything = make_schedule(sigmas=tuple(grid.tolist()), compute_steps=tuple(range(subject.steps)))
        cases = subject.held_out
        self.generator.velocity(torch.stack([self.generator.noise(c) for c in cases]), float(grid[0]), cases)  # warm-up
        self._everything, self._reference = everything, None
        self.full = self.schedule(everything)

    def schedule(self, schedule: Schedule) -> Measured:
        """A schedule with its own weights."""
        return self._measure(lambda: self._sample(schedule))

    def _sample(self, schedule: Schedule) -> torch.Tensor:
        return sample(self.generator, self.subject.held_out, schedule)

    def speedups(self, schedules: Mapping[int, Schedule]) -> dict[int, Speedup]:
        """By budget: in each of `ROUNDS` rounds the full run and all schedules are timed one after the other."""
        ratios: dict[int, list[float]] = {budget: [] for budget in schedules}
        for _ in range(ROUNDS):
            full = self._seconds(self._everything)
            for budget, schedule in schedules.items():
                ratios[budget].append(full / self._seconds(schedule))
        return {budget: Speedup(median(found), (max(found) - min(found)) / 2) for budget, found in ratios.items()}

    def _seconds(self, schedule: Schedule) -> float:
        start = time.perf_counter()
        self._sample(schedule)
        return time.perf_counter() - start

    def plain(self, budget: int) -> dict[str, Measured]:
        """Every plain solver with `budget` steps on the model's own grid."""
        grid = self.subject.grid(budget)
        return {
            name: self._measure(lambda solver=solver: solver(self.generator, self.subject.held_out, grid), name)
            for name, solver in SOLVERS.items()
        }

    def _measure(self, run: Callable[[], torch.Tensor], label: str = "") -> Measured:
        before = self.generator.evaluations
        pictures = self.generator.decode(run())
        if self._reference is None:
            self._reference = pictures
        evaluations = (self.generator.evaluations - before) / len(self.subject.held_out)
        return Measured(pictures.permute(0, 2, 3, 1).float().numpy(force=True), psnr(pictures, self._reference),
                        rmse(pictures, self._reference), evaluations, label)  # fmt: skip


def run_all(subject: Subject, plan: Plan, bars: Bars) -> Results:
    """Calibrate, search directly at the shown budgets, and measure everything on the held-out cases.

    Raises `OTCacheError` for budgets that do not fit the grid and for cases or runs that cannot be used.
    """
    grid, seconds, clock = subject.grid(subject.steps), {}, time.perf_counter()
    plan.settings.check(subject.steps)

    def end_stage(stage: str) -> None:
        nonlocal clock
        seconds[stage], clock = time.perf_counter() - clock, time.perf_counter()

    calibrated = calibrate(subject.generator, subject.calibration, grid, plan.settings, bars)
    end_stage("calibration")
    scorer = Scorer(subject.generator, subject.calibration, calibrated.observed.trajectories, plan.settings.metric)
    direct = {}
    for budget in sorted(plan.picture_budgets):
        starts = search_starts(calibrated.observed.paths, budget, grid)
        direct[budget], _ = search_steps(
            scorer, budget, plan.direct_trials, starts, plan.settings.seed,
            progress=partial(_report_search, bars, budget),
        )  # fmt: skip
    end_stage("direct search, for comparison")
    bars("held-out pictures", 0, len(plan.curve_budgets), "full runs")
    examiner = Examiner(subject)
    methods: dict[str, dict[int, Measured]] = {name: {} for name in (OURS, ALONE, GRAPH, DIRECT, PLAIN, EULER)}
    others = {ALONE: calibrated.geodesic, GRAPH: calibrated.observed.paths[GRAPH_PATH], DIRECT: direct}
    for done, budget in enumerate(plan.curve_budgets, 1):
        methods[OURS][budget] = examiner.schedule(calibrated.schedules[budget])
        seen = {calibrated.schedules[budget].compute_steps: methods[OURS][budget]}
        for name in others:
            if steps := others[name].get(budget):
                if steps not in seen:  # methods often agree, and then differ in nothing
                    seen[steps] = examiner.schedule(with_weights(scorer, steps))
                methods[name][budget] = seen[steps]
        plain = examiner.plain(budget)
        methods[EULER][budget] = plain["euler"]
        methods[PLAIN][budget] = min(plain.values(), key=lambda measured: measured.rmse.mean())
        bars("held-out pictures", done, len(plan.curve_budgets), f"B = {budget}: {methods[OURS][budget].psnr.mean():.1f} dB")
    speedups = examiner.speedups({budget: calibrated.schedules[budget] for budget in plan.curve_budgets})
    scores = {budget: geodesic_score(scorer, calibrated, budget) for budget in plan.curve_budgets}
    end_stage("evaluation on held-out cases")
    return Results(subject, plan, calibrated, examiner.full, methods, scores, seconds, speedups)


def geodesic_score(scorer: Scorer, calibrated: Calibrated, budget: int) -> float:
    """What the guard would score the unguarded interpolation, run again only if something else was kept."""
    kept, steps = calibrated.schedules[budget], calibrated.geodesic[budget]
    return kept.score if kept.compute_steps == steps else scorer.score(steps)


def _report_search(bars: Bars, budget: int, now: SearchState) -> None:
    bars(f"direct search at {budget}", now.done, now.wanted, f"best {now.score:.4g}")


def with_weights(scorer: Scorer, steps: Sequence[int]) -> Schedule:
    """Compute steps as a schedule, with weights fitted on the calibration cases."""
    return make_schedule(sigmas=tuple(scorer.sigmas.tolist()), compute_steps=tuple(steps),
                         predictor=FITTED, weights=scorer.final_rows(steps))  # fmt: skip


def summary_table(results: Results) -> str:
    """What the terminal shows at the end."""
    lines = ["budget  evaluations   times as fast      PSNR against the full run",
             "                    ideal     measured   OTCache  best plain solver"]  # fmt: skip
    for budget in sorted(results.plan.picture_budgets):
        ours, plain = results.methods[OURS][budget], results.methods[PLAIN][budget]
        measured = str(results.speedups[budget]).replace("\u00b1", "+/-")
        lines.append(
            f"{budget:>6}  {ours.evaluations:>11.0f}  {results.subject.steps / budget:>4.1f}  {measured:>11}"
            f"  {ours.psnr.mean():>5.1f} dB  {plain.psnr.mean():>5.1f} dB  {plain.label}"
        )
    return "\n".join(lines)
