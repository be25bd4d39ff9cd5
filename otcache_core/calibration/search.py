"""Anchor search: Optuna over compute steps at one budget, with the end-to-end perceptual objective.

At an extreme budget the graph's additive costs stop describing what happens, so the picture itself is the judge. The
study's objective is the mean log distance over cases, which makes Optuna's Wilcoxon pruner (a paired test against the best
trial, case by case) apply as it stands.
"""

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import OTCacheError
from ..schedules.schedule import check_budget
from .scoring import Scorer

if TYPE_CHECKING:
    import optuna

MOVE = 4  # grid steps that a local move shifts a compute step by, at most


@dataclass(frozen=True)
class Trial:
    """A finished trial.

    score: over the cases that it was run on; NaN if it diverged on the first. dropped: it diverged, or the pruner found it
    worse than the best one, which may be with the last case.
    """

    score: float
    dropped: bool


@dataclass(frozen=True)
class Standing:
    """How a search stands: the finished trials in order, those of earlier sessions included, how many are wanted, the best."""

    trials: tuple[Trial, ...]
    wanted: int
    steps: tuple[int, ...]
    score: float

    @property
    def done(self) -> int:
        return len(self.trials)


def study_name(scorer: Scorer, budget: int, context: str = "") -> str:
    """A name that is equal only for equal problems: grid, budget, predictor, calibration cases, full runs and `context`."""
    group = scorer.groups[0]
    key = [
        scorer.sigmas.tolist(), budget, group.predictor.model_dump(), group.ridge, scorer.metric.__name__,
        [str(case) for g in scorer.groups for case in g.cases], len(group.cases), scorer.fingerprint, context,
    ]  # fmt: skip
    return f"otcache-B{budget}-" + hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]


def open_storage(storage: str | None):
    """An Optuna storage from a URL, a path of an SQLite file, or None for memory; raises `OTCacheError` if it fails."""
    optuna = import_optuna()
    if storage is None:
        return optuna.storages.InMemoryStorage()
    from sqlalchemy import URL  # Optuna's own dependency

    with reported(storage):
        if not storage.strip():
            raise ValueError("the path is empty")
        # Rendered by SQLAlchemy, since "?" and "%" mean something in a URL.
        path = URL.create("sqlite", database=storage).render_as_string()
        return optuna.storages.RDBStorage(storage if "://" in storage else path)


@contextmanager
def reported(storage: str | None):
    """Turn what SQLAlchemy and its drivers raise, a zoo of types, into `OTCacheError`."""
    try:
        yield
    except Exception as error:
        reason = (str(error.__cause__ or error) or type(error).__name__).splitlines()[0]
        raise OTCacheError(
            f"The storage {storage} cannot be opened ({reason}); give the path of a new file in an existing folder, "
            "or a database URL that you may write to."
        ) from None


def import_optuna():
    """Optuna, imported only when a search begins; raises `OTCacheError` with the command that installs it."""
    try:
        import optuna
    except ImportError:
        raise OTCacheError('The anchor search needs Optuna: run "pip install optuna" in the same environment.') from None
    for category in (optuna.exceptions.ExperimentalWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category, module=r"(.*\.)?otcache_core\.calibration\.search|optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it logs a traceback when a trial is interrupted
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return optuna


def suggest_steps(trial: "optuna.Trial", budget: int, steps: int) -> tuple[int, ...]:
    """B distinct rising steps from B - 1 integer parameters; no forced last step and no limit on gaps."""
    chosen = sorted(trial.suggest_int(f"step_{k}", k, steps - budget + k) for k in range(1, budget))
    path = [0]
    for step in chosen:
        path.append(max(step, path[-1] + 1))
    return tuple(path)


def step_parameters(compute_steps: Sequence[int]) -> dict[str, int]:
    """The parameters that `suggest_steps` turns into `compute_steps`."""
    return {f"step_{k}": int(step) for k, step in enumerate(compute_steps) if k}


def parameters(trial: "optuna.trial.FrozenTrial") -> dict[str, int]:
    """A trial's parameters, those that it was enqueued with but has not begun to use included."""
    return trial.system_attrs.get("fixed_params", {}) | trial.params


def outcome(trial: "optuna.trial.FrozenTrial") -> Trial:
    """What a finished trial found, read from the cases that it reported."""
    logs = list(trial.intermediate_values.values())
    return Trial(float(np.exp(np.mean(logs))) if logs else np.nan, trial.state.name == "PRUNED")


def local_move(best: Sequence[int], steps: int, rng: np.random.Generator) -> tuple[int, ...]:
    """`best` with one or two of its steps shifted by up to `MOVE` grid steps, still distinct; step 0 stays."""
    path = list(best)
    for _ in range(rng.integers(1, 3)):
        k = int(rng.integers(1, len(path)))
        low = max(path[k - 1] + 1, path[k] - MOVE)
        high = min((path[k + 1] if k + 1 < len(path) else steps) - 1, path[k] + MOVE)
        places = np.array([place for place in range(low, high + 1) if place != path[k]])
        if len(places):
            nearness = 1 / np.abs(places - path[k])
            path[k] = int(rng.choice(places, p=nearness / nearness.sum()))
    return tuple(path)


def search_steps(
    scorer: Scorer,
    budget: int,
    trials: int = 60,
    starts: Sequence[Sequence[int]] = (),
    seed: int = 0,
    storage: str | None = None,
    context: str = "",
    progress: Callable[[Standing], None] | None = None,
) -> tuple[tuple[int, ...], float]:
    """The best B compute steps found in `trials` trials, and their score (geometric mean distance).

    starts: schedules to try first. Every other trial after them is a local move of the best one so far, the rest are
    TPE's; a schedule that was tried before costs nothing. With `storage` the study is kept there and continues where it
    stopped, whatever stopped it. `progress(standing)` is called after every trial.
    Raises `OTCacheError` for a budget out of range or a storage that cannot be opened.
    """
    steps = len(scorer.sigmas) - 1
    check_budget(budget, steps)
    if trials < 1:
        raise OTCacheError(f"trials is {trials}, but must be at least 1; 60 is a good number.")
    if budget == 1:
        return (0,), scorer.score((0,))
    optuna = import_optuna()
    opened = open_storage(storage)
    with reported(storage):
        study = optuna.create_study(
            study_name=study_name(scorer, budget, context),
            storage=opened,
            pruner=optuna.pruners.WilcoxonPruner(p_threshold=0.2),
            load_if_exists=True,
        )  # fmt: skip
    complete, state = (optuna.trial.TrialState.COMPLETE,), optuna.trial.TrialState
    finished = (*complete, state.PRUNED)

    def count(states) -> int:
        return len(study.get_trials(deepcopy=False, states=states))

    # Where all that an earlier session tried diverged, something was wrong that may have been repaired: begin anew.
    wasted = 0 if count(complete) else count(finished)
    starts = [s for s in dict.fromkeys(map(tuple, starts)) if len(s) == budget and s[-1] < steps]
    # What no worker has finished or will run is run: the starts, and trials whose worker was killed or interrupted. A
    # worker that still runs one of them keeps it; the price is one trial run twice.
    known = (state.WAITING,) if wasted else (*finished, state.WAITING)
    settled = [parameters(trial) for trial in study.get_trials(deepcopy=False, states=known)]
    broken = study.get_trials(deepcopy=False, states=(state.RUNNING, state.FAIL))
    for wanted in [*map(step_parameters, starts), *map(parameters, broken)]:
        if len(wanted) == budget - 1 and wanted not in settled:
            study.enqueue_trial(wanted)
            settled.append(wanted)
    failure: OTCacheError | None = None

    def objective(trial: "optuna.Trial") -> float:
        path = suggest_steps(trial, budget, steps)
        trial.set_user_attr("steps", path)
        logs: list[float] = []
        nonlocal failure
        try:
            for distances in scorer.distances(path):
                if not np.isfinite(distances).all():
                    raise OTCacheError(f"The pictures of compute steps {path} are not finite; run in higher precision.")
                for value in np.log(np.maximum(distances, 1e-9)):
                    trial.report(float(value), len(logs))
                    logs.append(float(value))
                if path not in starts and trial.should_prune():
                    raise optuna.TrialPruned
        except OTCacheError as error:  # a candidate that diverges loses; that all do is an error
            failure = error
            raise optuna.TrialPruned from None
        return float(np.mean(logs))

    def best() -> tuple[tuple[int, ...], float]:
        return tuple(study.best_trial.user_attrs["steps"]), float(np.exp(study.best_value))

    while (number := count(finished) - wasted) < trials:
        # Seeded by the number of finished trials, so that a resumed search goes on as an unbroken one would.
        seeds = np.random.SeedSequence([seed, number]).generate_state(1)
        study.sampler = optuna.samplers.TPESampler(seed=int(seeds[0]), multivariate=True, n_startup_trials=len(starts))
        if number > len(starts) and number % 2 and count(complete):
            move = local_move(best()[0], steps, np.random.default_rng([seed, number]))
            study.enqueue_trial(step_parameters(move), skip_if_exists=True)
        study.optimize(objective, n_trials=1)
        if progress and count(complete):
            ended = study.get_trials(deepcopy=False, states=finished)[wasted:]
            progress(Standing(tuple(map(outcome, ended)), trials, *best()))
    if failure and not count(complete):
        raise failure
    return best()
