"""Recording a model: full runs, how errors grow, and every graph's own paths; all that later stages need beside the model."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import OTCacheError
from ..sampling.rollout import FITTED, Counted, Generator, Rollouts, record, stack
from ..sampling.trajectory import Trajectory, TrajectoryStore, load_trajectory
from ..schedules.schedule import Predictor, check_sigmas, uniform_steps
from .error_growth import growth_rates, output_gains, state_aware_paths
from .graph import Costs, edge_costs, minimax_paths, peak_suppressed_paths
from .guard import STATE_AWARE
from .inner_products import GramData, recorded
from .same_model import SAME

# progress(stage, done, total, note) is called when a stage begins and after every unit of its work; raising in it interrupts.
Progress = Callable[[str, int, int, str], None]
Paths = dict[str, dict[int, tuple[int, ...]]]  # each a `Solved`

GROWTH_CASES = 2
# Of the errors' growth, for the graph that weighs edges by it. Alone it loses to no weighing: 0, 0.5, 1, 2 and 5 end at 36.1,
# 35.2, 33.4, 30.6 and 21.5 dB at B = 10 on 8 other scenes of the demo model. As one more start for the search it is kept.
GAIN_POWER = 0.5


class Solved(dict[int, tuple[int, ...]]):
    """A graph's own path by budget, solved when one is first asked for: the larger the budget, the longer that takes.

    solve(budgets): the paths at some budgets. Raises what it raises for a budget out of range.
    """

    def __init__(self, solve: Callable[[Sequence[int]], dict[int, tuple[int, ...]]], most: int = 0):
        super().__init__(solve(range(1, most + 1)) if most else {})
        self._solve = solve

    def __missing__(self, budget: int) -> tuple[int, ...]:
        self.update(self._solve(sorted({*range(len(self) + 1, int(budget)), budget})))
        return self[budget]


@dataclass
class Observed:
    """What recording a model yields, all that later stages need beside the model itself.

    paths: the graphs' own paths by name and budget 1..N, solved when asked for; costs: edge costs under the fitted predictor;
    evaluations: model evaluations a case, stage by stage.
    """

    cases: Sequence
    trajectories: Sequence[Trajectory]
    paths: Paths
    costs: Costs
    evaluations: dict[str, float]

    @property
    def sigmas(self) -> np.ndarray:
        """The grid, float64 [N + 1]."""
        return self.trajectories[0].sigmas


class Meter:
    """Evaluations a case, stage by stage, and the generator that counts them."""

    def __init__(self, generator: Generator, cases: Sequence, before: dict[str, float] | None = None):
        self.generator, self._cases = Counted(generator), len(cases)
        self.stages, self._before = dict(before or {}), sum((before or {}).values())

    @property
    def total(self) -> float:
        return self._before + self.generator.evaluations / self._cases

    def end_stage(self, stage: str) -> None:
        """What has been spent since the last call is `stage`'s."""
        self.stages[stage] = self.total - sum(self.stages.values())


def record_cases(
    generator: Generator, cases: Sequence, sigmas, progress: Progress | None = None, folder: str | Path | None = None
) -> TrajectoryStore:
    """Full runs of all cases; raises `OTCacheError` for no cases, a bad grid, or a run that is not finite.

    folder: where finished runs are kept and found again when an interrupted recording is repeated; it must belong to these
    cases and this grid alone. What is found is checked with one evaluation, for the model may be another; what is damaged is
    recorded again, and what cannot be kept is recorded all the same, each with a line in the log.
    """
    if not len(cases):
        raise OTCacheError("The calibration set is empty; give at least one case (a prompt and a seed).")
    try:
        sigmas = check_sigmas(sigmas)
    except ValueError as error:
        raise OTCacheError(f"{error}.") from None
    spool = TrajectoryStore()
    if progress:
        progress("record", 0, len(cases), "")
    for number, case in enumerate(cases, 1):
        path = folder and Path(folder) / f"{number}.safetensors"
        found = _kept(path, generator, case, sigmas) if path and path.exists() else None
        if found is None:
            found = record(generator, case, sigmas)
            if path:
                _keep(found, path)
        spool.append(found)
        if progress:
            progress("record", number, len(cases), "")
    return spool


def _kept(path: Path, generator: Generator, case, sigmas: np.ndarray) -> Trajectory | None:
    """The run that lies there, or None if it is damaged or not of this case on this grid."""
    try:
        found = load_trajectory(path)
    except OTCacheError as error:
        logging.warning("OTCache: %s", error)
        return None
    same = np.array_equal(found.sigmas, sigmas) and found.final.shape == generator.noise(case).shape
    return found if same and repeats(generator, case, found) else None


def _keep(run: Trajectory, path: Path) -> None:
    try:
        run.save(path)
    except OTCacheError as error:  # minutes of evaluations are not thrown away for it
        logging.warning("OTCache: %s", error)


def repeats(generator: Generator, case, recorded: Trajectory) -> bool:
    """Whether the model still gives what was recorded half-way, but for rounding."""
    step = recorded.steps // 2
    d = recorded.kept(generator.velocity(recorded.halfway[None], float(recorded.sigmas[step]), [case]))[0]
    return bool((d - recorded.d[step]).norm() <= SAME * recorded.d[step].norm())


def measure_growth(generator: Generator, cases: Sequence, trajectories: Sequence) -> np.ndarray:
    """kappa float64 [N] from one held run at half the steps; see `error_growth.growth_rates`."""
    steps = uniform_steps((len(trajectories[0].sigmas)) // 2, len(trajectories[0].sigmas) - 1)
    rollouts = Rollouts(generator, cases, trajectories, Predictor(kind="hold"))
    prefixes = [steps[: k + 1] for k in range(len(steps))]
    x, d = (rollouts.state_at(prefix).x for prefix in prefixes), (rollouts.state_at(prefix).d[0] for prefix in prefixes)
    recorded_x, recorded_d = ((stack(trajectories, name, i) for i in steps) for name in "xd")
    return growth_rates(rollouts.sigmas, steps, x, d, recorded_x, recorded_d)


def graph_paths(
    seen: GramData, kappa: np.ndarray, most: int, gamma: float = 4.0, progress: Progress | None = None
) -> tuple[Paths, Costs]:
    """Every graph's own path by name and budget, and the edge costs under the fitted predictor; no model runs.

    Budgets up to `most` are solved now, others when they are asked for. At N = 150 this takes seconds, so `progress` is told
    of every part of it.
    """
    done, total = 0, 2 * seen.steps + most
    if progress:
        progress("graphs", 0, total, "")

    def tick() -> None:
        nonlocal done
        done += 1
        if progress and done <= total:
            progress("graphs", done, total, "")

    fitted, _ = edge_costs(seen, FITTED, tick=tick)
    held, _ = edge_costs(seen, Predictor(kind="hold"), conditioned=False, tick=tick)
    gains = output_gains(seen.sigmas, kappa) ** GAIN_POWER
    solvers = {
        "graph, fitted": partial(peak_suppressed_paths, fitted, gamma=gamma),
        "graph, fitted, gains": partial(peak_suppressed_paths, fitted, gamma=gamma, gains=gains),
        "graph, fitted, gamma 1": partial(peak_suppressed_paths, fitted, gamma=1.0),
        "graph, minimax": partial(minimax_paths, held),
        STATE_AWARE: partial(state_aware_paths, seen, kappa, beam=2, tick=tick),
    }
    return {name: Solved(solve, most) for name, solve in solvers.items()}, fitted


def observe(
    generator: Generator,
    cases: Sequence,
    sigmas,
    gamma: float = 4.0,
    progress: Progress | None = None,
    folder: str | Path | None = None,
    most: int = 0,
) -> Observed:
    """Record full runs of all cases (see `record_cases`), measure error growth and solve every graph up to budget `most`.

    Raises `OTCacheError` for no cases, a bad grid, or a run that is not finite.
    """
    meter = Meter(generator, cases)
    trajectories = record_cases(meter.generator, cases, sigmas, progress, folder)
    meter.end_stage("record")
    few = min(GROWTH_CASES, len(cases))
    if progress:
        progress("error growth", 0, 1, "")
    kappa = measure_growth(meter.generator, cases[:few], [trajectories[i] for i in range(few)])
    if progress:
        progress("error growth", 1, 1, "")
    meter.end_stage("error growth")
    most = min(most, len(trajectories[0].sigmas) - 1)
    paths, costs = graph_paths(recorded(trajectories), kappa, most, gamma, progress)
    return Observed(cases, trajectories, paths, costs, meter.stages)
