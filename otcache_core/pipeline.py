"""The stages, one function each: record, reference, anchor, interpolate, guard; and `calibrate`, which runs them all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .errors import OTCacheError
from .graph import Recorded, edge_costs, minimax_paths, peak_suppressed_paths, recorded
from .guard import GUARDED, STATE_AWARE, Candidate, guard
from .metrics import DEFAULT, distance
from .presets import starting_grids
from .propagation import growth_rates, output_gains, state_aware_paths
from .rollout import FITTED, Counted, Generator, Rollouts, record, stack
from .schedule import Predictor, Schedule, check_budget, check_sigmas, make_schedule, uniform_steps
from .scoring import Scorer
from .search import search_steps
from .trajectory import Spool, Trajectory
from .transport import budget_to_lambda

# progress(stage, done, total, note) is called after every unit of work; raising in it interrupts.
Progress = Callable[[str, int, int, str], None]
Paths = dict[str, dict[int, tuple[int, ...]]]

BUDGETS = range(5, 26)
REFERENCE_BUDGET = 15
ANCHOR_BUDGET = 8
TRIALS = 60
GROWTH_CASES = 2


@dataclass(frozen=True)
class Settings:
    """What a calibration is asked for; the defaults suit 50 steps. Raises `OTCacheError` when they do not fit together."""

    budgets: Sequence[int] = BUDGETS
    reference_budget: int = REFERENCE_BUDGET
    anchor_budget: int = ANCHOR_BUDGET
    trials: int = TRIALS
    gamma: float = 4.0
    metric: str = DEFAULT
    law: str = "log"
    seed: int = 0
    storage: str | None = None
    model: str = ""

    def check(self, steps: int) -> None:
        """Raise `OTCacheError` unless every budget fits a run of `steps` steps."""
        check_budget(self.reference_budget, steps, "reference budget")
        check_budget(self.anchor_budget, steps, "anchor budget")
        budget_to_lambda(self.anchor_budget, self.anchor_budget, self.reference_budget, self.law)
        for budget in self.budgets:
            check_budget(budget, steps)
        distance(self.metric)
        if not (self.gamma >= 1 and self.trials >= 1):
            raise OTCacheError(f"gamma is {self.gamma} and trials is {self.trials}, but both must be at least 1; try 4 and 60.")


@dataclass
class Calibrated:
    """What a calibration yields.

    anchor carries all `schedules` as prepared. geodesic holds the unguarded interpolation's steps for each budget,
    candidates what the guard tried. evaluations: model evaluations a case, stage by stage. paths: the graphs' own
    paths, by name and budget; trajectories the recorded runs.
    """

    reference: Schedule
    anchor: Schedule
    schedules: dict[int, Schedule]
    geodesic: dict[int, tuple[int, ...]]
    candidates: dict[int, list[Candidate]]
    paths: Paths
    trajectories: Sequence[Trajectory]
    evaluations: dict[str, float] = field(default_factory=dict)


def record_cases(generator: Generator, cases: Sequence, sigmas, progress: Progress | None = None) -> Spool:
    """Full runs of all cases; raises `OTCacheError` for no cases, a bad grid, or a run that is not finite."""
    if not len(cases):
        raise OTCacheError("The calibration set is empty; give at least one case (a prompt and a seed).")
    try:
        sigmas = check_sigmas(sigmas)
    except ValueError as error:
        raise OTCacheError(f"{error}.") from None
    spool = Spool()
    for number, case in enumerate(cases, 1):
        spool.append(record(generator, case, sigmas))
        if progress:
            progress("record", number, len(cases), "")
    return spool


def measure_growth(generator: Generator, cases: Sequence, trajectories: Sequence) -> np.ndarray:
    """kappa float64 [N] from one held run at half the steps; see `propagation.growth_rates`."""
    steps = uniform_steps((len(trajectories[0].sigmas)) // 2, len(trajectories[0].sigmas) - 1)
    rollouts = Rollouts(generator, cases, trajectories, Predictor(kind="hold"))
    nodes = [rollouts.node(steps[: k + 1]) for k in range(len(steps))]
    recorded_x, recorded_d = ([stack(trajectories, name, i) for i in steps] for name in "xd")
    return growth_rates(
        rollouts.sigmas, steps, [n.x for n in nodes], [n.d[0] for n in nodes], recorded_x, recorded_d
    )  # fmt: skip


def graph_paths(seen: Recorded, kappa: np.ndarray, budgets, gamma: float = 4.0) -> tuple[Paths, np.ndarray]:
    """Every graph's own path at every budget, by name, and the edge costs under the fitted predictor; no model runs."""
    fitted, _ = edge_costs(seen, FITTED)
    held, _ = edge_costs(seen, Predictor(kind="hold"), conditioned=False)
    gains = output_gains(seen.sigmas, kappa) ** 0.5
    paths = {
        "graph, fitted": peak_suppressed_paths(fitted, budgets, gamma),
        "graph, fitted, gains": peak_suppressed_paths(fitted, budgets, gamma, gains),
        "graph, fitted, gamma 1": peak_suppressed_paths(fitted, budgets, 1.0),
        "graph, minimax": minimax_paths(held, budgets),
        STATE_AWARE: state_aware_paths(seen, kappa, budgets, beam=2),
    }
    return paths, fitted


def search_starts(paths: Paths, budget: int, sigmas) -> list[tuple[int, ...]]:
    """What a search at `budget` tries first: the graphs' own paths, then uniform and published grids."""
    return list(dict.fromkeys([by_budget[budget] for by_budget in paths.values()] + starting_grids(budget, sigmas)))


def calibrate(generator: Generator, cases: Sequence, sigmas, settings: Settings = Settings(), progress=None) -> Calibrated:  # noqa: B008
    """All stages on one model: a guarded schedule with fitted weights for every budget asked for.

    Raises `OTCacheError` for settings that do not fit the grid, no cases, or runs that are not finite.
    """
    counted = Counted(generator)
    evaluations: dict[str, float] = {}

    def spent(stage: str) -> None:
        evaluations[stage] = counted.evaluations / len(cases) - sum(evaluations.values())

    settings.check(len(sigmas) - 1)
    trajectories = record_cases(counted, cases, sigmas, progress)
    spent("record")
    few = min(GROWTH_CASES, len(cases))
    kappa = measure_growth(counted, cases[:few], [trajectories[i] for i in range(few)])
    spent("error growth")
    wanted = sorted({*settings.budgets, settings.anchor_budget, settings.reference_budget})
    paths, costs = graph_paths(recorded(trajectories), kappa, wanted, settings.gamma)
    scorer = Scorer(counted, cases, trajectories, settings.metric)
    grid = scorer.sigmas

    reference, reference_score = scorer.choose([paths[name][settings.reference_budget] for name in (*GUARDED, STATE_AWARE)])
    spent("reference")
    starts = search_starts(paths, settings.anchor_budget, grid)
    anchor, anchor_score = search_steps(
        scorer, settings.anchor_budget, settings.trials, starts, settings.seed, settings.storage, settings.model,
        progress and (lambda done, total, best: progress("search", done, total, f"best {best:.4g}")),
    )  # fmt: skip
    spent("search")

    def schedule(steps, stage, score, **fields) -> Schedule:
        return make_schedule(
            name=f"{settings.model or 'model'}-{stage}-{len(steps)}of{len(grid) - 1}",
            sigmas=tuple(grid.tolist()), compute_steps=steps, predictor=FITTED,
            weights=scorer.final_rows(steps), stage=stage, model=settings.model, metric=settings.metric, score=score,
            cases=tuple(str(case)[:500] for case in cases), **fields,
        )  # fmt: skip

    reference_schedule = schedule(reference, "reference", reference_score)
    guarded = guard(
        scorer, anchor, reference, paths, costs, settings.budgets, settings.law,
        progress and (lambda done, total, note: progress("guard", done, total, note)),
    )  # fmt: skip
    spent("guard")
    parents = (f"anchor-{len(anchor)}", f"reference-{len(reference)}")
    schedules = {
        budget: schedule(here.best.steps, "interpolated", here.score, parents=parents, provenance=here.best.source)
        for budget, here in guarded.items()
    }
    anchor_schedule = schedule(anchor, "anchor", anchor_score, prepared=tuple(schedules.values()))
    spent("final weights")
    return Calibrated(
        reference_schedule, anchor_schedule, schedules,
        {budget: here.candidates[0].steps for budget, here in guarded.items()},
        {budget: here.candidates for budget, here in guarded.items()},
        paths, trajectories, evaluations,
    )  # fmt: skip
