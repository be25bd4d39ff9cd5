"""Recording a model: full runs, how errors grow, and every graph's own paths; all that later stages need beside the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..sampling.rollout import FITTED, Counted, Generator, Rollouts, stack
from ..sampling.trajectory import Trajectory
from ..schedules.schedule import Predictor, uniform_steps
from .error_growth import growth_rates, growth_sums, output_gains, state_aware_paths
from .full_runs import Progress, measured_beside, record_cases
from .graph import Costs, edge_costs, minimax_paths, peak_suppressed_paths
from .guard import STATE_AWARE
from .inner_products import GramData, recorded
from .measurement_log import MeasurementLog
from .parts import Log, divide

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
    """Evaluations a case, stage by stage, and the generator that counts them.

    Where several workers share `log` they are those of all workers, for the parts that this one has asked for.
    """

    def __init__(self, generator: Generator, cases: Sequence, before: dict[str, float] | None = None, log: Log | None = None):
        self.generator, self._cases = Counted(generator), len(cases)
        self.stages, self._before = dict(before or {}), sum((before or {}).values())
        self._log = log if log and log.shared else None
        if self._log:
            log.counted = self.generator

    @property
    def total(self) -> float:
        return self._before + (self._log or self.generator).evaluations / self._cases

    def end_stage(self, stage: str) -> None:
        """What has been spent since the last call is `stage`'s."""
        self.stages[stage] = self.total - sum(self.stages.values())


def measure_growth(generator: Generator, cases: Sequence, trajectories: Sequence, log: Log | None = None) -> np.ndarray:
    """kappa float64 [N] from one held run at half the steps; see `error_growth.growth_rates`.

    Workers that share `log` take the cases apart: what they are fitted to adds up.
    """
    log, sigmas = log or MeasurementLog(), trajectories[0].sigmas
    steps = uniform_steps(len(sigmas) // 2, len(sigmas) - 1)
    prefixes = [steps[: k + 1] for k in range(len(steps))]
    together = [[number] for number in range(len(cases))] if log.shared else [list(range(len(cases)))]

    def work(keys: list) -> None:
        for key in keys:
            runs = [trajectories[number] for number in key[1]]
            rollouts = Rollouts(generator, [cases[number] for number in key[1]], runs, Predictor(kind="hold"))
            x, d = (rollouts.state_at(prefix).x for prefix in prefixes), (rollouts.state_at(prefix).d[0] for prefix in prefixes)
            log.put(key, growth_sums(x, d, *((stack(runs, name, i) for i in steps) for name in "xd")).tolist())

    keys = [["error growth", numbers] for numbers in together]
    divide(log, keys, work)
    return growth_rates(sigmas, steps, sum(np.array(log.get(key)) for key in keys))


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


def analyse(
    generator: Generator,
    cases: Sequence,
    sigmas,
    gamma: float = 4.0,
    progress: Progress | None = None,
    folder: str | Path | None = None,
    most: int = 0,
    log: Log | None = None,
) -> Observed:
    """Record full runs of all cases (see `record_cases`), measure error growth and solve every graph up to budget `most`.

    What is measured is kept in `folder` with the runs. Workers that share `log` divide what needs the model. Raises
    `OTCacheError` for no cases, a bad grid, or a run that is not finite.
    """
    meter = Meter(generator, cases, log=log)
    trajectories = record_cases(meter.generator, cases, sigmas, progress, folder, log)
    log = log or measured_beside(folder, trajectories)
    meter.end_stage("record")
    few = min(GROWTH_CASES, len(cases))
    if progress:
        progress("error growth", 0, 1, "")
    kappa = measure_growth(meter.generator, cases[:few], [trajectories[i] for i in range(few)], log)
    if progress:
        progress("error growth", 1, 1, "")
    meter.end_stage("error growth")
    most = min(most, len(trajectories[0].sigmas) - 1)
    paths, costs = graph_paths(recorded(trajectories), kappa, most, gamma, progress)
    return Observed(cases, trajectories, paths, costs, meter.stages)
