"""The stages over an observed `Generator`: choose the reference, search the anchor and `prepare` every budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import OTCacheError
from ..sampling.generator import Generator
from ..sampling.rollout import fitted_to
from ..schedules.presets import starting_grids
from ..schedules.retiming import retime
from ..schedules.schedule import Schedule, check_budget, make_schedule
from ..schedules.transport import budget_to_lambda
from .guard import GUARDED, MOST, STATE_AWARE, Candidate, Guarded, guard
from .judging import Latents
from .live import Live
from .measurement_log import MeasurementLog, model_log
from .metrics import DEFAULT, LATENT, check_metric
from .places import Place
from .recording import Meter, Observed, Paths, Progress, observe
from .scoring import Scorer
from .search import SearchState, search_steps
from .study import study_name

BUDGETS = range(5, 26)
REFERENCE_BUDGET = 15
ANCHOR_BUDGET = 8
TRIALS = 60
ALLOWANCE = 28.0
SHARED = 0.7  # of the kept schedules' evaluations are made when weights are fitted anew; they share the rest as prefixes


@dataclass(frozen=True)
class Settings:
    """What a calibration is asked for; the defaults suit 50 steps.

    allowance: full runs' worth of evaluations a case that all stages may make together. When it runs short, the guard
    tries fewer candidates. storage: where the search's trials are kept (see `open_storage`); memory: a folder for all other
    measurements. With both, an interrupted calibration goes on where it stopped. metric: one of `DISTANCES`, or `LATENT`,
    which needs no decoder. model, model_class, model_key, noise: as in `Schedule`. identity: what tells this model, with all
    that it runs with, from every other one; measurements of the same identity are trusted, so that machines that round
    differently can share them. Without it they are used only where the full runs agree.
    """

    budgets: Sequence[int] = BUDGETS
    reference_budget: int = REFERENCE_BUDGET
    anchor_budget: int = ANCHOR_BUDGET
    trials: int = TRIALS
    allowance: float = ALLOWANCE
    gamma: float = 4.0
    metric: str = DEFAULT
    seed: int = 0
    storage: str | Place | None = None
    memory: str | None = None
    model: str = ""
    model_class: str = ""
    model_key: str = ""
    noise: str = ""
    identity: str = ""

    def check(self, steps: int) -> None:
        """Raise `OTCacheError` unless every budget fits a run of `steps` steps."""
        check_budget(self.reference_budget, steps, "reference budget")
        check_budget(self.anchor_budget, steps, "anchor budget")
        budget_to_lambda(self.anchor_budget, self.anchor_budget, self.reference_budget)
        for budget in self.budgets:
            check_budget(budget, steps)
        if self.metric != LATENT:
            check_metric(self.metric)
        if self.seed < 0:
            raise OTCacheError(f"seed is {self.seed}, but must not be negative; 0 is a good number.")
        if not (self.gamma >= 1 and self.trials >= 1):
            raise OTCacheError(f"gamma is {self.gamma} and trials is {self.trials}, but both must be at least 1; try 4 and 60.")

    def pictures(self, cases: int) -> int:
        """How many pictures `prepare` decodes at most."""
        return 0 if self.metric == LATENT else cases * (1 + self.trials + MOST * len(self.budgets))


@dataclass
class Calibrated:
    """What a calibration yields.

    anchor carries all `schedules` as prepared. geodesic holds the unguarded interpolation's steps for each budget,
    candidates what the guard tried. evaluations: model evaluations a case, stage by stage, those of `observed` included;
    decoded: pictures a case.
    """

    reference: Schedule
    anchor: Schedule
    schedules: dict[int, Schedule]
    geodesic: dict[int, tuple[int, ...]]
    candidates: dict[int, list[Candidate]]
    observed: Observed
    evaluations: dict[str, float] = field(default_factory=dict)
    decoded: float = 0.0


def search_starts(paths: Paths, budget: int, sigmas) -> list[tuple[int, ...]]:
    """What a search at `budget` tries first: the graphs' own paths, then uniform and published grids."""
    return list(dict.fromkeys([by_budget[budget] for by_budget in paths.values()] + starting_grids(budget, sigmas)))


def describe(settings: Settings, observed: Observed, stage: str, steps, rows, **fields) -> Schedule:
    """A schedule of this calibration."""
    grid = observed.sigmas
    return make_schedule(
        name=f"{settings.model or 'model'}-{stage}-{len(steps)}of{len(grid) - 1}",
        sigmas=tuple(grid.tolist()), compute_steps=steps, predictor=fitted_to(observed.trajectories[0].layout.bands),
        weights=rows, stage=stage,
        model=settings.model, model_class=settings.model_class, model_key=settings.model_key, noise=settings.noise,
        cases=tuple(str(case)[:500] for case in observed.cases), **fields,
    )  # fmt: skip


def reference_schedule(
    generator: Generator, observed: Observed, settings: Settings = Settings(), progress: Progress | None = None,  # noqa: B008
) -> Schedule:  # fmt: skip
    """The best of the graphs' paths at the reference budget by the final latents' RMSE, which needs no decoder.

    What it spends is entered in `observed`. Raises `OTCacheError` for settings that do not fit the grid.
    """
    check_budget(settings.reference_budget, len(observed.sigmas) - 1, "reference budget")
    if progress:
        progress("reference", 0, 1, "")
    meter = Meter(generator, observed.cases, observed.evaluations)
    scorer = make_scorer(meter.generator, observed, LATENT)
    names = (*GUARDED, STATE_AWARE)
    steps, score = scorer.choose([observed.paths[name][settings.reference_budget] for name in names])
    schedule = describe(settings, observed, "reference", steps, scorer.final_rows(steps), metric=LATENT, score=score)
    meter.end_stage("reference")
    observed.evaluations = meter.stages
    if progress:
        progress("reference", 1, 1, "")
    return schedule


def make_scorer(generator: Generator, observed: Observed, metric: str) -> Scorer:
    """What judges by `metric`, on pictures or, for `LATENT`, on latents."""
    if metric == LATENT:
        return Scorer(Latents(generator), observed.cases, observed.trajectories, "rmse")
    return Scorer(generator, observed.cases, observed.trajectories, metric)


def log_of(scorer: Scorer, settings: Settings) -> MeasurementLog:
    """What has been measured of this model in the folder `settings.memory`."""
    name = study_name(scorer, 0, settings.model, settings.identity)
    if settings.identity:
        return MeasurementLog(Path(settings.memory) / f"{name}.jsonl")
    return model_log(settings.memory, name, scorer.signature)


def prepare(
    generator: Generator,
    observed: Observed,
    reference: Schedule,
    settings: Settings = Settings(),  # noqa: B008
    progress: Progress | None = None,
    watch: Callable[[Live], None] | None = None,
) -> Calibrated:
    """Search the anchor, and guard the interpolation at every budget asked for.

    A `reference` made on another grid is re-timed. `watch` is called with what there is to see after every trial and every
    budget that was guarded; pictures are then [3, H, W], and none where latents are judged. Raises `OTCacheError` for settings
    that do not fit.
    """
    settings.check(len(observed.sigmas) - 1)
    cases, grid = observed.cases, observed.sigmas
    meter = Meter(generator, cases, observed.evaluations)
    progress = progress or (lambda *_: None)
    latents = settings.metric == LATENT
    if not latents:
        progress("pictures", 0, 1, "")
    scorer = make_scorer(meter.generator, observed, settings.metric)
    if not latents:
        progress("pictures", 1, 1, "")
    if settings.memory is not None:
        scorer.log = log_of(scorer, settings)
    reference.check_noise(settings.noise)
    reference = retime(reference, grid)

    def seen(picture):
        return None if latents else picture

    if watch:
        live = Live(settings.anchor_budget, len(grid) - 1, settings.budgets, settings.metric, seen(scorer.full_picture))

    def searched(standing: SearchState) -> None:
        if watch:
            live.search(standing, seen(scorer.picture(standing.steps)))
            watch(live)
        progress("search", standing.done, standing.wanted, f"best {standing.score:.4g}")

    def guarded_at(done: int, total: int, budget: int, here: Guarded) -> None:
        if watch:
            live.guard(budget, here.score)
            watch(live)
        progress("guard", done, total, f"budget {budget}")

    progress("search", 0, settings.trials, "")
    anchor, anchor_score = search_steps(
        scorer, settings.anchor_budget, settings.trials, search_starts(observed.paths, settings.anchor_budget, grid),
        settings.seed, settings.storage, settings.model, searched, settings.identity,
    )  # fmt: skip
    meter.end_stage("search")
    final = SHARED * (sum(settings.budgets) + len(anchor)) if scorer.fits_some else 0
    progress("guard", 0, 2 * len(settings.budgets), "")
    begin, allowance = meter.total, settings.allowance * (len(grid) - 1) - final - meter.total
    guarded = guard(
        scorer, anchor, reference.compute_steps, observed.paths, observed.costs, settings.budgets,
        guarded_at, lambda share: begin + share * allowance - meter.total,
    )  # fmt: skip
    meter.end_stage("guard")
    parents = (f"anchor-{len(anchor)}", f"reference-{reference.budget}")
    schedules = {}
    progress("final weights", 0, len(guarded) + 1, "")
    for number, (budget, here) in enumerate(guarded.items(), 1):
        schedules[budget] = describe(
            settings, observed, "interpolated", here.best.steps, scorer.final_rows(here.best.steps),
            metric=settings.metric, score=here.score, psnr=scorer.psnr(here.best.steps), parents=parents,
            provenance=here.best.source,
        )  # fmt: skip
        progress("final weights", number, len(guarded) + 1, f"budget {budget}")
    anchor_schedule = describe(
        settings, observed, "anchor", anchor, scorer.final_rows(anchor),
        metric=settings.metric, score=anchor_score, psnr=scorer.psnr(anchor), prepared=tuple(schedules.values()),
    )  # fmt: skip
    meter.end_stage("final weights")
    progress("final weights", len(guarded) + 1, len(guarded) + 1, f"budget {len(anchor)}")
    return Calibrated(
        reference, anchor_schedule, schedules,
        {budget: here.candidates[0].steps for budget, here in guarded.items()},
        {budget: here.candidates for budget, here in guarded.items()},
        observed, meter.stages, meter.generator.decoded / len(cases),
    )  # fmt: skip


def calibrate(generator: Generator, cases: Sequence, sigmas, settings: Settings = Settings(), progress=None) -> Calibrated:  # noqa: B008
    """All stages on one model: a guarded schedule with fitted weights for every budget asked for.

    Raises `OTCacheError` for settings that do not fit the grid, no cases, or runs that are not finite.
    """
    settings.check(len(sigmas) - 1)
    most = max(*settings.budgets, settings.reference_budget, settings.anchor_budget)
    observed = observe(generator, cases, sigmas, settings.gamma, progress, most=most)
    return prepare(generator, observed, reference_schedule(generator, observed, settings, progress), settings, progress)
