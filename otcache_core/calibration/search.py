"""Anchor search: Optuna over compute steps at one budget, with the end-to-end perceptual objective.

At an extreme budget the graph's additive costs stop describing what happens, so the picture itself is the judge. The
study's objective is the mean log distance over cases, which makes Optuna's Wilcoxon pruner (a paired test against the best
trial, case by case) apply as it stands.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import NotFiniteError, OTCacheError
from ..schedules.schedule import check_budget
from .parts import agreed, one_at_a_time, own_number
from .places import Place, find_place
from .scoring import Scorer
from .storages import import_optuna, kept
from .study import open_study

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
class SearchState:
    """How a search stands: the finished trials in order, those of earlier sessions included, how many are wanted, the best."""

    trials: tuple[Trial, ...]
    wanted: int
    steps: tuple[int, ...]
    score: float

    @property
    def done(self) -> int:
        return len(self.trials)


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
    storage: str | Place | None = None,
    context: str = "",
    progress: Callable[[SearchState], None] | None = None,
    identity: str = "",
) -> tuple[tuple[int, ...], float]:
    """The best B compute steps found in `trials` trials, and their score (geometric mean distance).

    starts: schedules to try first. Every other trial after them is a local move of the best one so far, the rest are
    TPE's; a schedule that was tried before costs nothing. With `storage` the study is kept there and continues where it
    stopped, whatever stopped it, if it is this model's (see `open_study`). `progress(standing)` is called after every trial,
    and first where an earlier session has found something. Workers that share the scorer's log as well measure no schedule
    twice, and all of them return the same one.
    Raises `OTCacheError` for numbers out of range or a storage that cannot be opened or fails.
    """
    steps = len(scorer.sigmas) - 1
    check_budget(budget, steps)
    if trials < 1:
        raise OTCacheError(f"trials is {trials}, but must be at least 1; 60 is a good number.")
    if seed < 0:
        raise OTCacheError(f"seed is {seed}, but must not be negative; 0 is a good number.")
    if budget == 1:
        return (0,), scorer.score((0,))
    place = find_place(storage)
    study = open_study(scorer, budget, place, context, identity)
    with kept(place):
        return _go_on(study, scorer, budget, trials, starts, seed, progress)


def _go_on(study: "optuna.Study", scorer: Scorer, budget: int, trials: int, starts, seed: int, progress):
    """`search_steps` in an opened study."""
    optuna, steps, log = import_optuna(), len(scorer.sigmas) - 1, scorer.log
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
    enqueued = []
    with one_at_a_time(log, ["beginning of the search", budget]):
        settled = [parameters(trial) for trial in study.get_trials(deepcopy=False, states=known)]
        broken = study.get_trials(deepcopy=False, states=(state.RUNNING, state.FAIL))
        for wanted in [*map(step_parameters, starts), *map(parameters, broken)]:
            if len(wanted) == budget - 1 and wanted not in settled:
                study.enqueue_trial(wanted)
                settled.append(wanted)
                enqueued.append(wanted)
    if log.shared or not count((state.RUNNING,)):  # else other workers have begun with them
        new = [path for path in starts if log.shared or step_parameters(path) in enqueued]
        scorer.judge_together(new[: max(trials - count(finished) + wasted, 0)], range(len(scorer.groups)))
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

    def tell() -> None:
        if progress and count(complete):
            ended = study.get_trials(deepcopy=False, states=finished)[wasted:]
            progress(SearchState(tuple(map(outcome, ended)), trials, *best()))

    tell()
    while (over := count(finished) - wasted) < trials:
        # Seeded by the number of finished trials, so that a resumed search goes on as an unbroken one would; workers take
        # different ones, so that they do not try the same.
        with own_number(log, f"trial at {budget}", over, trials) as number:
            if number is None:  # the last ones are others' to finish
                log.wait()
                continue
            seeds = np.random.SeedSequence([seed, number]).generate_state(1)
            study.sampler = optuna.samplers.TPESampler(seed=int(seeds[0]), multivariate=True, n_startup_trials=len(starts))
            if number > len(starts) and number % 2 and count(complete):
                move = local_move(best()[0], steps, np.random.default_rng([seed, number]))
                study.enqueue_trial(step_parameters(move), skip_if_exists=True)
            try:
                study.optimize(objective, n_trials=1)
            except ValueError as error:  # SQLite can hand a waiting trial to two workers at once: the other one was faster
                if not str(error).startswith("Cannot tell a "):
                    raise
        tell()
    if failure and not count(complete):
        raise failure
    path, score = agreed(log, ["anchor", budget, trials, seed], best)  # others may still be at a last trial
    if log.shared:  # asked for, so that what other workers spent is counted too
        for trial in study.get_trials(deepcopy=False, states=finished):
            for group in range(len(scorer.groups)):
                with suppress(NotFiniteError):
                    log.get([trial.user_attrs.get("steps"), group])
    return tuple(path), score
