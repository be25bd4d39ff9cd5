"""The stages over a `Generator`: `observe` a model, choose the reference, search the anchor and `prepare` every budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .errors import OTCacheError
from .graph import Recorded, edge_costs, minimax_paths, peak_suppressed_paths, recorded
from .guard import GUARDED, STATE_AWARE, Candidate, guard
from .memo import Memo
from .metrics import DEFAULT, check_metric
from .presets import starting_grids
from .propagation import growth_rates, output_gains, state_aware_paths
from .retiming import retime
from .rollout import FITTED, Counted, Generator, Rollouts, record, stack
from .schedule import Predictor, Schedule, check_budget, check_sigmas, make_schedule, uniform_steps
from .scoring import Scorer
from .search import search_steps, study_name
from .trajectory import Spool, Trajectory, load_trajectory
from .transport import budget_to_lambda

# progress(stage, done, total, note) is called after every unit of work; raising in it interrupts.
Progress = Callable[[str, int, int, str], None]
Paths = dict[str, dict[int, tuple[int, ...]]]

BUDGETS = range(5, 26)
REFERENCE_BUDGET = 15
ANCHOR_BUDGET = 8
TRIALS = 60
ALLOWANCE = 28.0
GROWTH_CASES = 2
SAME = 1e-3
SHARED = 0.7  # of the kept schedules' evaluations are made when weights are fitted anew; they share the rest as prefixes


@dataclass(frozen=True)
class Settings:
    """What a calibration is asked for; the defaults suit 50 steps.

    allowance: full runs' worth of evaluations a case that all stages may make together. When it runs short, the guard
    tries fewer candidates. storage: the search's Optuna storage; memory: a folder for all other measurements. With both,
    an interrupted calibration goes on where it stopped.
    """

    budgets: Sequence[int] = BUDGETS
    reference_budget: int = REFERENCE_BUDGET
    anchor_budget: int = ANCHOR_BUDGET
    trials: int = TRIALS
    allowance: float = ALLOWANCE
    gamma: float = 4.0
    metric: str = DEFAULT
    law: str = "log"
    seed: int = 0
    storage: str | None = None
    memory: str | None = None
    model: str = ""

    def check(self, steps: int) -> None:
        """Raise `OTCacheError` unless every budget fits a run of `steps` steps."""
        check_budget(self.reference_budget, steps, "reference budget")
        check_budget(self.anchor_budget, steps, "anchor budget")
        budget_to_lambda(self.anchor_budget, self.anchor_budget, self.reference_budget, self.law)
        for budget in self.budgets:
            check_budget(budget, steps)
        check_metric(self.metric)
        if not (self.gamma >= 1 and self.trials >= 1):
            raise OTCacheError(f"gamma is {self.gamma} and trials is {self.trials}, but both must be at least 1; try 4 and 60.")


@dataclass
class Observed:
    """What recording a model yields, all that later stages need beside the model itself.

    kappa: error growth float64 [N]; paths: the graphs' own paths at every budget 1..N, by name; costs: edge costs under the
    fitted predictor; evaluations: model evaluations a case, stage by stage.
    """

    cases: Sequence
    trajectories: Sequence[Trajectory]
    kappa: np.ndarray
    paths: Paths
    costs: np.ndarray
    evaluations: dict[str, float]

    @property
    def sigmas(self) -> np.ndarray:
        """The grid, float64 [N + 1]."""
        return self.trajectories[0].sigmas


@dataclass
class Calibrated:
    """What a calibration yields.

    anchor carries all `schedules` as prepared. geodesic holds the unguarded interpolation's steps for each budget,
    candidates what the guard tried. evaluations: model evaluations a case, stage by stage, those of `observed` included.
    """

    reference: Schedule
    anchor: Schedule
    schedules: dict[int, Schedule]
    geodesic: dict[int, tuple[int, ...]]
    candidates: dict[int, list[Candidate]]
    observed: Observed
    evaluations: dict[str, float] = field(default_factory=dict)


class Meter:
    """Evaluations a case, stage by stage, and the generator that counts them."""

    def __init__(self, generator: Generator, cases: Sequence, before: dict[str, float] | None = None):
        self.generator, self._cases = Counted(generator), len(cases)
        self.stages, self._before = dict(before or {}), sum((before or {}).values())

    @property
    def total(self) -> float:
        return self._before + self.generator.evaluations / self._cases

    def lap(self, stage: str) -> None:
        """What has been spent since the last call is `stage`'s."""
        self.stages[stage] = self.total - sum(self.stages.values())


class Latents:
    """A generator whose pictures are its latents, for judging without a decoder."""

    def __init__(self, generator: Generator):
        self.noise, self.velocity = generator.noise, generator.velocity

    def decode(self, x):
        return x


def record_cases(
    generator: Generator, cases: Sequence, sigmas, progress: Progress | None = None, folder: str | Path | None = None
) -> Spool:
    """Full runs of all cases; raises `OTCacheError` for no cases, a bad grid, or a run that is not finite.

    folder: where finished runs are kept and found again when an interrupted recording is repeated; it must belong to these
    cases and this grid alone. What is found is checked with one evaluation, for the model may be another.
    """
    if not len(cases):
        raise OTCacheError("The calibration set is empty; give at least one case (a prompt and a seed).")
    try:
        sigmas = check_sigmas(sigmas)
    except ValueError as error:
        raise OTCacheError(f"{error}.") from None
    spool = Spool()
    for number, case in enumerate(cases, 1):
        path = folder and Path(folder) / f"{number}.safetensors"
        found = load_trajectory(path) if path and path.exists() else None
        if found is None or not repeats(generator, case, found):
            found = record(generator, case, sigmas)
            if path:
                found.save(path)
        spool.append(found)
        if progress:
            progress("record", number, len(cases), "")
    return spool


def repeats(generator: Generator, case, recorded: Trajectory) -> bool:
    """Whether the model still gives what was recorded half-way, but for rounding."""
    step = recorded.steps // 2
    d = generator.velocity(recorded.x[step : step + 1], float(recorded.sigmas[step]), [case])[0]
    return bool((d - recorded.d[step]).norm() <= SAME * recorded.d[step].norm())


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


def observe(
    generator: Generator,
    cases: Sequence,
    sigmas,
    gamma: float = 4.0,
    progress: Progress | None = None,
    folder: str | Path | None = None,
) -> Observed:
    """Record full runs of all cases (see `record_cases`), measure error growth and solve every graph.

    Raises `OTCacheError` for no cases, a bad grid, or a run that is not finite.
    """
    meter = Meter(generator, cases)
    trajectories = record_cases(meter.generator, cases, sigmas, progress, folder)
    meter.lap("record")
    few = min(GROWTH_CASES, len(cases))
    kappa = measure_growth(meter.generator, cases[:few], [trajectories[i] for i in range(few)])
    meter.lap("error growth")
    if progress:
        progress("graphs", 0, 1, "")
    paths, costs = graph_paths(recorded(trajectories), kappa, range(1, len(trajectories[0].sigmas)), gamma)
    if progress:
        progress("graphs", 1, 1, "")
    return Observed(cases, trajectories, kappa, paths, costs, meter.stages)


def describe(settings: Settings, observed: Observed, stage: str, steps, rows, **fields) -> Schedule:
    """A schedule of this calibration."""
    grid = observed.sigmas
    return make_schedule(
        name=f"{settings.model or 'model'}-{stage}-{len(steps)}of{len(grid) - 1}",
        sigmas=tuple(grid.tolist()), compute_steps=steps, predictor=FITTED, weights=rows, stage=stage,
        model=settings.model, cases=tuple(str(case)[:500] for case in observed.cases), **fields,
    )  # fmt: skip


def reference_schedule(generator: Generator, observed: Observed, settings: Settings = Settings()) -> Schedule:  # noqa: B008
    """The best of the graphs' paths at the reference budget by the final latents' RMSE, which needs no decoder.

    What it spends is entered in `observed`. Raises `OTCacheError` for settings that do not fit the grid.
    """
    check_budget(settings.reference_budget, len(observed.sigmas) - 1, "reference budget")
    meter = Meter(generator, observed.cases, observed.evaluations)
    scorer = Scorer(Latents(meter.generator), observed.cases, observed.trajectories, "rmse")
    names = (*GUARDED, STATE_AWARE)
    steps, score = scorer.choose([observed.paths[name][settings.reference_budget] for name in names])
    schedule = describe(settings, observed, "reference", steps, scorer.final_rows(steps), metric="latent rmse", score=score)
    meter.lap("reference")
    observed.evaluations = meter.stages
    return schedule


def prepare(
    generator: Generator,
    observed: Observed,
    reference: Schedule,
    settings: Settings = Settings(),  # noqa: B008
    progress: Progress | None = None,
) -> Calibrated:
    """Search the anchor, and guard the interpolation at every budget asked for.

    A `reference` made on another grid is re-timed. Raises `OTCacheError` for settings that do not fit.
    """
    settings.check(len(observed.sigmas) - 1)
    cases, grid = observed.cases, observed.sigmas
    meter = Meter(generator, cases, observed.evaluations)
    scorer = Scorer(meter.generator, cases, observed.trajectories, settings.metric)
    if settings.memory is not None:
        scorer.memo = Memo(Path(settings.memory) / f"{study_name(scorer, 0, settings.model)}.jsonl")
    reference = retime(reference, grid)
    anchor, anchor_score = search_steps(
        scorer, settings.anchor_budget, settings.trials, search_starts(observed.paths, settings.anchor_budget, grid),
        settings.seed, settings.storage, settings.model,
        progress and (lambda done, total, best: progress("search", done, total, f"best {best:.4g}")),
    )  # fmt: skip
    meter.lap("search")
    final = SHARED * (sum(settings.budgets) + len(anchor)) if scorer.fits_some else 0
    begin, allowance = meter.total, settings.allowance * (len(grid) - 1) - final - meter.total
    guarded = guard(
        scorer, anchor, reference.compute_steps, observed.paths, observed.costs, settings.budgets, settings.law,
        progress and (lambda done, total, note: progress("guard", done, total, note)),
        lambda share: begin + share * allowance - meter.total,
    )  # fmt: skip
    meter.lap("guard")
    parents = (f"anchor-{len(anchor)}", f"reference-{reference.budget}")
    schedules = {}
    for number, (budget, here) in enumerate(guarded.items(), 1):
        schedules[budget] = describe(
            settings, observed, "interpolated", here.best.steps, scorer.final_rows(here.best.steps),
            metric=settings.metric, score=here.score, parents=parents, provenance=here.best.source,
        )  # fmt: skip
        if progress:
            progress("final weights", number, len(guarded), f"B = {budget}")
    anchor_schedule = describe(
        settings, observed, "anchor", anchor, scorer.final_rows(anchor),
        metric=settings.metric, score=anchor_score, prepared=tuple(schedules.values()),
    )  # fmt: skip
    meter.lap("final weights")
    return Calibrated(
        reference, anchor_schedule, schedules,
        {budget: here.candidates[0].steps for budget, here in guarded.items()},
        {budget: here.candidates for budget, here in guarded.items()},
        observed, meter.stages,
    )  # fmt: skip


def calibrate(generator: Generator, cases: Sequence, sigmas, settings: Settings = Settings(), progress=None) -> Calibrated:  # noqa: B008
    """All stages on one model: a guarded schedule with fitted weights for every budget asked for.

    Raises `OTCacheError` for settings that do not fit the grid, no cases, or runs that are not finite.
    """
    settings.check(len(sigmas) - 1)
    observed = observe(generator, cases, sigmas, settings.gamma, progress)
    return prepare(generator, observed, reference_schedule(generator, observed, settings), settings, progress)
