"""The stages, one function each: record, reference, anchor, interpolate, guard; and `calibrate`, which runs them all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .errors import OTCacheError
from .graph import Recorded, cheapest_neighbours, edge_costs, minimax_paths, peak_suppressed_paths, recorded
from .metrics import DEFAULT
from .presets import starting_grids
from .propagation import growth_rates, output_gains, state_aware_paths
from .rollout import FITTED, Counted, Generator, Rollouts, record, stack
from .schedule import Predictor, Schedule, check_budget, check_sigmas, make_schedule, uniform_steps
from .scoring import Scorer
from .search import search_steps
from .trajectory import Spool, Trajectory
from .transport import budget_to_lambda, geodesic, quantile_function, steps_at_budget

# progress(stage, done, total, note) is called after every unit of work; raising in it interrupts.
Progress = Callable[[str, int, int, str], None]
Paths = dict[str, dict[int, tuple[int, ...]]]

BUDGETS = range(5, 26)
REFERENCE_BUDGET = 15
ANCHOR_BUDGET = 6
TRIALS = 60
LAMBDAS = (0.5, 1.0)  # beside lambda(B): half way, and the reference resampled
NEIGHBOURS = 3  # of the best candidate, by the graph's cost, that the guard tries as well
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


@dataclass
class Candidate:
    """A schedule that the guard tried at one budget: where it comes from, its steps, and whether it was kept."""

    source: str
    steps: tuple[int, ...]
    kept: bool = False


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
        "graph, fitted, gamma 2": peak_suppressed_paths(fitted, budgets, 2.0),
        "graph, minimax": minimax_paths(held, budgets),
        "graph, state-aware": state_aware_paths(seen, kappa, budgets, beam=2),
    }
    return paths, fitted


def search_starts(paths: Paths, budget: int, sigmas) -> list[tuple[int, ...]]:
    """What a search at `budget` tries first: the graphs' own paths, then uniform and published grids."""
    return list(dict.fromkeys([by_budget[budget] for by_budget in paths.values()] + starting_grids(budget, sigmas)))


def interpolate(anchor: Sequence[int], reference: Sequence[int], sigmas, budget: int, law: str = "log") -> tuple:
    """The compute steps that the Wasserstein geodesic from anchor to reference has at `budget`."""
    lam = budget_to_lambda(budget, len(anchor), len(reference), law)
    return at_lambda(anchor, reference, sigmas, budget, lam)


def at_lambda(anchor: Sequence[int], reference: Sequence[int], sigmas, budget: int, lam: float) -> tuple[int, ...]:
    """The compute steps at `budget` on the geodesic's point `lam`."""
    warp = geodesic(quantile_function(anchor, sigmas), quantile_function(reference, sigmas), lam)
    return steps_at_budget(warp, budget, sigmas)


def guard_candidates(paths: Paths, anchor, reference, sigmas, budget: int, law: str) -> list[Candidate]:
    """What the guard rolls out at one budget: points of the geodesic, and the graphs' own paths; no duplicates."""
    lam = budget_to_lambda(budget, len(anchor), len(reference), law)
    found = {at_lambda(anchor, reference, sigmas, budget, lam): f"geodesic at {lam:.2f}"}
    for other in LAMBDAS:
        found.setdefault(at_lambda(anchor, reference, sigmas, budget, other), f"geodesic at {other:.2f}")
    for name, by_budget in paths.items():
        found.setdefault(by_budget[budget], name)
    return [Candidate(source, steps) for steps, source in found.items()]


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

    reference, reference_score = scorer.choose([by_budget[settings.reference_budget] for by_budget in paths.values()])
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
            weights=scorer.rows(steps), stage=stage, model=settings.model, metric=settings.metric, score=score,
            cases=tuple(str(case)[:500] for case in cases), **fields,
        )  # fmt: skip

    schedules, tried, unguarded = {}, {}, {}
    parents = (f"anchor-{len(anchor)}", f"reference-{len(reference)}")
    for number, budget in enumerate(settings.budgets, 1):
        tried[budget] = guard_candidates(paths, anchor, reference, grid, budget, settings.law)
        unguarded[budget] = tried[budget][0].steps
        best, _ = scorer.choose([candidate.steps for candidate in tried[budget]])
        tried[budget] += [Candidate("neighbour", steps) for steps in cheapest_neighbours(costs, best, NEIGHBOURS)]
        best, score = scorer.choose([candidate.steps for candidate in tried[budget]])
        for candidate in tried[budget]:
            candidate.kept = candidate.steps == best
        kept = next(candidate for candidate in tried[budget] if candidate.kept)
        schedules[budget] = schedule(best, "interpolated", score, parents=parents, provenance=kept.source)
        if progress:
            progress("guard", number, len(settings.budgets), f"B = {budget}: {kept.source}")
    spent("guard")
    return Calibrated(
        schedule(reference, "reference", reference_score),
        schedule(anchor, "anchor", anchor_score, prepared=tuple(schedules.values())),
        schedules, unguarded, tried, paths, trajectories, evaluations,
    )  # fmt: skip
