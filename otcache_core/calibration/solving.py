"""Schedules for a run's own grid from what full runs taught: the steps from a graph, the weights from rehearsals.

No model evaluation is made. Steps are those of `learnt_paths`. A segment's weights come from the visits
(`sampling.rehearsal.Visit`) that are most like its beginning: near in sigma, with gaps of similar size between the
evaluations. Their normal equations are averaged, which also smooths what a single run would overfit. Where gaps are short
the recorded run itself serves as a visit, since nothing has gone astray there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import OTCacheError
from ..sampling.predictors import LEAST_MOMENT, solve_ridge
from ..sampling.rehearsal import Visit
from ..sampling.rollout import FITTED, fitted_to
from ..schedules.extrapolation import prior_weights
from ..schedules.schedule import HISTORY, Schedule, check_budget, check_sigmas, make_schedule
from .fit_or_hold import expected_errors
from .ladder import LEAST
from .learnt_paths import EDGE, paths, steps_on
from .statistics import Statistics

RIDGE = 1e-3  # of the fit: pulls weights towards the prior, relative to the mean square of the evaluations
FARTHEST = 30.0  # logarithm: the ridge where no gaps are alike, which leaves the prior alone
NEAR, ALIKE, WIDTH = 1.0, 0.5, 0.7  # scales of a visit's distance: the segment's own length, logarithm of gaps; kernel
RECORDED_GAPS, DOUBT = (1, 2, 3), 1.0  # gaps of visits made of the recorded run, and what each step of a gap counts
LEARNT = "learnt"  # how the provenance of such schedules begins
METRIC = "expected latent error"  # as schedules name it


def covers(statistics: Statistics, sigmas: np.ndarray) -> bool:
    """Whether a run on `sigmas` [M + 1] lies within the recorded range."""
    known = statistics.sigmas
    return bool(sigmas[0] <= known[0] * (1 + EDGE) and sigmas[-1] >= known[-1] - EDGE * known[0])


def solve(statistics: Sequence[Statistics], sigmas, budget: int) -> Schedule:
    """The schedule of `budget` evaluations on `sigmas` [M + 1] with fitted weights.

    statistics: of one model, the most fitting first; steps come from the first of them, weights from the visits of all that
    tell as many bands apart. Raises `OTCacheError` for a grid that is none, a budget that does not fit, or a run beyond what
    was recorded.
    """
    try:
        grid = check_sigmas(sigmas)
    except ValueError as error:
        raise OTCacheError(f"{error}.") from None
    check_budget(budget, len(grid) - 1)
    if not statistics or not covers(statistics[0], grid):
        raise OTCacheError("Nothing was learnt of this range of noise levels; sample once in full.")
    return fitted(statistics, grid, steps_on(statistics[0], grid, budget))


def fitted(statistics: Sequence[Statistics], sigmas, compute_steps: Sequence[int]) -> Schedule:
    """`compute_steps` on `sigmas` [M + 1] with fitted weights, from the visits of all `statistics` that tell as many
    bands apart as the first; raises `OTCacheError`.

    Without weights, to hold, where the sampler adds noise or where holding came nearer in rehearsals (`fit_or_hold`).
    """
    grid, first = np.asarray(sigmas, dtype=np.float64), statistics[0]
    how = {"predictor": {"kind": "hold"}}
    if not first.holds_at(len(compute_steps)):
        same = [known for known in statistics if known.bands == first.bands]
        rows = weights([sight for known in same for sight in sights(known)], grid, compute_steps, first.bands)
        how = {"predictor": fitted_to(first.bands), "weights": rows}
    origin, runs = first.origin, sum(known.runs for known in statistics)
    where = f"{first.steps} steps at CFG {origin.cfg:g}"
    whence = f"1 ordinary run ({where})" if runs == 1 else f"{runs} ordinary runs (the nearest: {where})"
    return make_schedule(
        name=f"{origin.model_class or 'model'}-learnt-{len(compute_steps)}of{len(grid) - 1}"[:200],
        sigmas=tuple(grid.tolist()), compute_steps=tuple(compute_steps), stage="graph", **how,
        model=origin.model_class, model_class=origin.model_class, noise=origin.noise, sampler=origin.sampler,
        provenance=f"{LEARNT} from {whence}",
    )  # fmt: skip


def anchor_of(statistics: Statistics, model_key: str = "") -> Schedule:
    """The smallest budget that was rehearsed, carrying every budget up to half the steps, on the recorded grid.

    Scores are expected errors (`expected_errors`): estimates. model_key: of the model that was learnt, as in `Schedule`.
    """
    most = max(statistics.steps // 2, 1)
    budgets = range(min(min(statistics.errors, default=LEAST), most), most + 1)
    graph, errors = paths(statistics, budgets[-1]), expected_errors(statistics.errors, budgets)
    made = [
        fitted([statistics], statistics.sigmas, graph[b]).replace(metric=METRIC, score=errors.get(b), model_key=model_key)
        for b in budgets
    ]
    return made[0].replace(stage="anchor", prepared=tuple(made))


@dataclass(frozen=True)
class Sight:
    """A visit in noise levels instead of steps: sigmas of its evaluations [m], newest first, and of later points [J], J >= 1.

    moved: float64 [J], how far a velocity of one moves the latent to each of those. doubt: how much less it counts than a
    visit of a rehearsal.
    """

    past: np.ndarray
    later: np.ndarray
    moved: np.ndarray
    visit: Visit
    doubt: float = 0.0

    @cached_property
    def gaps(self) -> np.ndarray:
        """Between its evaluations, [m - 1], the newest first."""
        return np.diff(self.past)

    def moment(self, span: float) -> np.ndarray:
        """Of its evaluations with the mean velocity to x_j, for j `span` (below 0) away or at the end, float64 [bands, m].

        x_j moves along straight lines between the recorded points, and along one from x itself to the first of them.
        """
        ways = self.later - self.past[0]
        j = min(int(np.searchsorted(-ways, -span)), len(ways) - 1)
        # A sampler that hardly moves there, as some do in their last steps, is taken for Euler.
        moved = np.where(self.moved / ways < LEAST_MOMENT, ways, self.moved)
        if not j:
            return self.visit.moments[..., 0] / moved[0]
        share = (max(span, ways[-1]) - ways[j - 1]) / (ways[j] - ways[j - 1])
        after, before = self.visit.moments[..., j], self.visit.moments[..., j - 1]
        return (share * after + (1 - share) * before) / (share * moved[j] + (1 - share) * moved[j - 1])


def sights(statistics: Statistics) -> list[Sight]:
    """All visits of `statistics`, and those that the recorded run itself makes at short gaps."""
    grid, moves = statistics.sigmas, statistics.moves
    found = [
        Sight(grid[list(steps)], grid[steps[0] + 1 :], np.cumsum(moves[steps[0] :]), seen)
        for steps, seen in statistics.visits.items()
    ]
    for gap in RECORDED_GAPS:
        for step in range(statistics.steps):
            past = [back for back in range(step, -1, -gap)][:HISTORY]
            parts = [products.of_segments(step, past) for products in statistics.recorded.band_products]
            seen = Visit(*(np.concatenate(part) for part in zip(*parts, strict=True)))
            found.append(Sight(grid[past], grid[step + 1 :], np.cumsum(moves[step:]), seen, DOUBT * gap))
    return found


def weights(
    known: Iterable[Sight], grid: np.ndarray, compute_steps: Sequence[int], bands: int = FITTED.bands
) -> tuple[tuple[float, ...], ...]:
    """Weight rows for `compute_steps` on `grid` [M + 1] from the sights, all of `bands`, like each segment's beginning."""
    known, rows = list(known), []
    for k, (start, end) in enumerate(zip(compute_steps, (*compute_steps[1:], len(grid) - 1), strict=True)):
        past = grid[list(compute_steps[k::-1][:HISTORY])]
        if end == start + 1:
            rows.append(((1.0,) + (0.0,) * (len(past) - 1)) * bands)
            continue
        prior = prior_weights(past, grid[start : end + 1])
        if not any(len(sight.past) >= len(past) for sight in known):  # of two or three recorded steps
            rows.append(tuple(prior.tolist()) * bands)
            continue
        gram, moment, far = alike(known, past, grid[end] - grid[start])
        rows.append(tuple(solve_ridge(gram, moment[:, None], prior[None], RIDGE * far).ravel().tolist()))
    return tuple(rows)


def alike(known: Sequence[Sight], past: np.ndarray, span: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Normal equations of a segment that moves by `span` after evaluations at `past` [m]: a mean over sights like it.

    span: below 0. A sight of more evaluations counts with its newest m. Returns (gram [bands, m, m],
    moment [bands, m] per unit of span, far): `far` says how many times the ridge the prior should have, 1 where a sight has
    the same gaps. Without it a segment after two evaluations that all but coincide would extrapolate by what long gaps need.
    """
    m, gaps = len(past), np.diff(past)
    fitting = [sight for sight in known if len(sight.past) >= m]
    apart = np.array([(np.log(gaps / sight.gaps[: m - 1]) ** 2).sum() for sight in fitting]) / ALIKE**2
    distance = apart + [((past[0] - sight.past[0]) / (NEAR * span)) ** 2 + sight.doubt for sight in fitting]
    share = np.exp(-(distance - distance.min()) / 2 / WIDTH**2)
    gram, moment = 0.0, 0.0
    for number in np.flatnonzero(share > 1e-3):
        gram = gram + share[number] * fitting[number].visit.gram[:, :m, :m]
        moment = moment + share[number] * fitting[number].moment(span)[:, :m]
    return gram, moment, float(np.exp(min(apart[distance.argmin()] / 2, FARTHEST)))
