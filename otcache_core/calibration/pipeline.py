"""The stages over an observed `Generator`: choose the reference, search the anchor and `prepare` every budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..sampling.generator import Generator
from ..sampling.rollout import fitted_to
from ..schedules.presets import starting_grids
from ..schedules.retiming import retime
from ..schedules.schedule import Schedule, check_budget, make_schedule
from .full_runs import Progress, measured_beside
from .guard import GUARDED, STATE_AWARE, Candidate, Guarded, guard
from .judging import Latents
from .live import Live
from .measurement_log import MeasurementLog, model_log
from .metrics import LATENT
from .recording import Meter, Observed, Paths, analyse
from .same_model import digest
from .scoring import Scorer
from .search import SearchState, search_steps
from .settings import Settings
from .sharing import Told, shared_folder, shared_log
from .study import study_name

SHARED = 0.7  # of the kept schedules' evaluations are made when weights are fitted anew; they share the rest as prefixes


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


def analyse_together(
    generator: Generator, cases: Sequence, sigmas, settings: Settings, progress: Progress | None = None,
    folder: str | Path | None = None, most: int = 0,
) -> Observed:  # fmt: skip
    """`analyse`, whose work is divided where `settings` have an identity and a storage for several machines.

    folder: where full runs and what is measured with them are kept, unless workers share one (`shared_folder`). Raises what
    `analyse` raises, and `OTCacheError` for a storage that cannot be opened.
    """
    progress = Told(progress or (lambda *_: None))
    log = shared_log(settings, cases, sigmas, LATENT, progress)
    if log:
        folder = shared_folder(settings.storage, recordings_name(settings, cases, sigmas)) or folder
    return analyse(generator, cases, sigmas, settings.gamma, progress, folder, most, log)


def recordings_name(settings: Settings, cases: Sequence, sigmas) -> str:
    """The name of a folder of full runs of these cases."""
    return digest([settings.identity, *map(str, cases), *map(float, sigmas)])


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
    folder: str | Path | None = None,
) -> Schedule:  # fmt: skip
    """The best of the graphs' paths at the reference budget by the final latents' RMSE, which needs no decoder.

    What it measures is kept in `folder`, if any; what it spends is entered in `observed`. Raises `OTCacheError` for settings
    that do not fit the grid.
    """
    check_budget(settings.reference_budget, len(observed.sigmas) - 1, "reference budget")
    progress = Told(progress or (lambda *_: None))
    progress("reference", 0, 1, "")
    log = shared_log(settings, observed.cases, observed.sigmas, LATENT, progress)
    meter = Meter(generator, observed.cases, observed.evaluations, log)
    scorer = make_scorer(meter.generator, observed, LATENT)
    scorer.log = log or measured_beside(folder, observed.trajectories)
    names = (*GUARDED, STATE_AWARE)
    steps, score = scorer.choose([observed.paths[name][settings.reference_budget] for name in names])
    schedule = describe(settings, observed, "reference", steps, scorer.final_rows(steps), metric=LATENT, score=score)
    meter.end_stage("reference")
    observed.evaluations = meter.stages
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
    that do not fit. Workers with the same settings, an identity and a shared storage among them, divide the work.
    """
    settings.check(len(observed.sigmas) - 1)
    cases, grid = observed.cases, observed.sigmas
    progress = Told(progress or (lambda *_: None))
    log = shared_log(settings, cases, grid, settings.metric, progress)
    meter = Meter(generator, cases, observed.evaluations, log)
    latents = settings.metric == LATENT
    if not latents:
        progress("pictures", 0, 1, "")
    scorer = make_scorer(meter.generator, observed, settings.metric)
    if not latents:
        progress("pictures", 1, 1, "")
    if log:
        scorer.log = log
    elif settings.memory is not None:
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
        ("guard", digest([anchor, reference.compute_steps, sorted(settings.budgets), settings.allowance])),
    )  # fmt: skip
    meter.end_stage("guard")
    parents = (f"anchor-{len(anchor)}", f"reference-{reference.budget}")
    schedules = {}
    progress("final weights", 0, len(guarded) + 1, "")
    # The longest first, so that no worker begins with one when the others are done.
    chosen = dict.fromkeys([anchor, *(here.best.steps for here in guarded.values())])
    scorer.fit_together(sorted(chosen, key=len, reverse=True))
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

    As many processes as there are may call it with the same arguments, where `settings` have an identity and a storage for
    several machines: each part is done by one of them, and all return the same.
    Raises `OTCacheError` for settings that do not fit the grid, no cases, or runs that are not finite.
    """
    settings.check(len(sigmas) - 1)
    most = max(*settings.budgets, settings.reference_budget, settings.anchor_budget)
    folder = Path(settings.memory, f"recordings-{recordings_name(settings, cases, sigmas)}") if settings.memory else None
    observed = analyse_together(generator, cases, sigmas, settings, progress, folder, most)
    return prepare(generator, observed, reference_schedule(generator, observed, settings, progress, folder), settings, progress)
