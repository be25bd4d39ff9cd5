"""The headless search: one worker of a study on the embedded model."""

from pathlib import Path

from ..calibration.pipeline import search_starts
from ..calibration.places import Place, find_place
from ..calibration.recording import analyse
from ..calibration.same_model import digest
from ..calibration.scoring import Scorer
from ..calibration.search import search_steps
from ..calibration.settings import Settings
from ..calibration.storages import JOURNAL
from ..demo.generator import cases as demo_cases
from ..demo.scenes import caption
from ..sampling.rollout import FITTED
from ..schedules.schedule import Schedule, check_budget, make_schedule
from .bars import Bars
from .demo import check_trials
from .embedded import CALIBRATION_SEED, MODEL, check_cases, load_generator


def demo_search(budget: int, trials: int, count: int, seed: int, storage: str | Place | None, bars: Bars) -> Schedule:
    """The best schedule that the study in `storage` has at `budget` once it has `trials` trials.

    Full runs are kept beside a study that is a file. Raises `OTCacheError` for numbers out of range or a storage that cannot
    be opened.
    """
    check_cases(count)
    check_trials(trials)
    generator = load_generator()
    grid, cases = generator.sigmas(), demo_cases(count, CALIBRATION_SEED)
    check_budget(budget, len(grid) - 1)
    folder = recordings(find_place(storage), cases, grid)
    observed = analyse(generator, cases, grid, progress=bars, folder=folder, most=budget)
    scorer = Scorer(generator, cases, observed.trajectories)
    steps, score = search_steps(
        scorer, budget, trials, search_starts(observed.paths, budget, grid), seed, storage, MODEL,
        lambda now: bars(f"search at {budget}", min(now.done, trials), trials, f"best {now.score:.4g}"),
    )  # fmt: skip
    return make_schedule(
        name=f"{MODEL}-search-{budget}of{len(grid) - 1}", sigmas=tuple(grid.tolist()), compute_steps=steps,
        predictor=FITTED, weights=scorer.final_rows(steps), stage="search", model=MODEL,
        metric=Settings.metric, score=score, cases=tuple(caption(case.scene) for case in cases),
        provenance=f"direct search at B = {budget}",
    )  # fmt: skip


def recordings(place: Place, cases, grid) -> Path | None:
    """Where full runs of these cases on this grid are kept: beside the study's file; None where that is no file here."""
    if place.url is None or "://" in place.url:
        return None
    return Path(f"{place.url.removeprefix(JOURNAL)}.recordings", digest([[str(case) for case in cases], grid.tolist()]))
