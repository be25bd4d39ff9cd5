"""The embedded model as the showcase's subject, and as what the headless search works on."""

from __future__ import annotations

from safetensors import SafetensorError

from .demo.generator import WEIGHTS, DemoGenerator
from .demo.generator import cases as demo_cases
from .demo.scenes import caption
from .errors import OTCacheError
from .observation import observe
from .pipeline import Settings, search_starts
from .progress import Bars
from .rollout import FITTED
from .schedule import Schedule, check_budget, make_schedule
from .scoring import Scorer
from .search import search_steps
from .showcase import Plan, Subject, check_trials

CALIBRATION_SEED, HELD_OUT_SEED = 1000, 2000
HELD_OUT = 8
MOST_CASES = 64
MODEL = "otcache-demo"


def load_generator() -> DemoGenerator:
    """The embedded model; raises `OTCacheError` when its weights are missing or damaged."""
    try:
        return DemoGenerator()
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise OTCacheError(
            f"The demo's weights in {WEIGHTS} cannot be read ({reason}); restore that folder from the repository."
        ) from None


def check_cases(count: int) -> int:
    """`count` if it is a fair number of calibration cases; raises `OTCacheError`."""
    if not 1 <= count <= MOST_CASES:
        raise OTCacheError(f"cases is {count}, but must be a whole number from 1 to {MOST_CASES}; 6 is a good number.")
    return count


def demo_plan(trials: int, seed: int) -> Plan:
    """What the demo measures; raises `OTCacheError` for numbers out of range."""
    return Plan(Settings(trials=trials, seed=seed, model=MODEL))


def demo_subject(count: int) -> Subject:
    """The embedded model with `count` calibration cases; raises `OTCacheError`."""
    check_cases(count)
    generator = load_generator()
    parameters = sum(parameter.numel() for parameter in generator.model.parameters())
    facts = {
        "Model": f"embedded flow transformer of FLUX architecture, {parameters:,} parameters, pictures of 64 x 64",
        "Guidance": f"true CFG, scale {generator.cfg:g}",
    }
    return Subject(generator, demo_cases(count, CALIBRATION_SEED), demo_cases(HELD_OUT, HELD_OUT_SEED), generator.sigmas,
                   generator.steps, lambda case: caption(case.scene), facts)  # fmt: skip


def demo_search(budget: int, trials: int, count: int, seed: int, storage: str | None, bars: Bars) -> Schedule:
    """The best schedule that the study in `storage` has at `budget` once it has `trials` trials.

    Raises `OTCacheError` for numbers out of range or a storage that cannot be opened.
    """
    check_cases(count)
    check_trials(trials)
    generator = load_generator()
    grid, cases = generator.sigmas(), demo_cases(count, CALIBRATION_SEED)
    check_budget(budget, len(grid) - 1)
    observed = observe(generator, cases, grid, progress=bars)
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
