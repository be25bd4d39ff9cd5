"""A MODEL that learns: the first run in full, the next ones cached by what it taught."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ...otcache_core.calibration.fit_or_hold import expected_errors
from ...otcache_core.calibration.solving import fitted
from ...otcache_core.calibration.statistics import Statistics
from ...otcache_core.errors import OTCacheError
from ...otcache_core.sampling.cached_run import CachedRun
from ...otcache_core.schedules.following import FEWEST, changed
from ...otcache_core.schedules.interpolation import budget_for_speedup, error_curve, smallest_budget
from ...otcache_core.schedules.rules import StepRules, ruled_steps
from . import learned
from .attach import noted, with_runs
from .known import fitting, of_same_runs, origin_of, solved
from .lesson import Lesson
from .run import HostRun

BY_SPEEDUP, BY_BUDGET, BY_ERROR = "by speed-up", "by budget", "by error"
WHEN_NEEDED, THIS_RUN, ANEW = "when needed", "this run too", "anew"
NEARER = {BY_SPEEDUP: "a smaller speedup", BY_BUDGET: "a larger budget", BY_ERROR: "a smaller target_error"}
VISIBLE = 0.15  # expected relative error of the latent: the demo model's pictures are then about 30 dB from the full run's


@dataclass(frozen=True)
class Target:
    """What a run should be like: `choose` names which of the others counts."""

    choose: str = BY_SPEEDUP
    speedup: float = 3.0
    budget: int = 10
    error: float = 0.05

    def evaluations(self, steps: int, statistics: Statistics | None) -> int:
        """The budget for a run of `steps`; by error all of them while nothing is known."""
        if self.choose == BY_BUDGET:
            return min(self.budget, steps)
        if self.choose == BY_SPEEDUP:
            return max(budget_for_speedup(steps, self.speedup), min(FEWEST, steps))
        if statistics is None or not statistics.errors:
            return steps
        budgets = range(2, max(steps // 2, 2) + 1)
        return smallest_budget(error_curve(expected_errors(statistics.errors, budgets)), steps, self.error)

    def limited(self, steps: int) -> str:
        """What to tell where a run of `steps` makes more evaluations than this asks for, else ""."""
        floored = self.choose == BY_SPEEDUP and budget_for_speedup(steps, self.speedup) < min(FEWEST, steps)
        return f"at least {FEWEST} evaluations are made" if floored else ""


def visibly_off(statistics: Statistics, budget: int, steps: int, choose: str) -> str:
    """What to tell of a run of `budget` of `steps` evaluations that is expected to differ visibly from the full, else ""."""
    errors = expected_errors(statistics.errors, range(budget, max(steps // 2, budget) + 1))
    if errors.get(budget, 0.0) < VISIBLE:
        return ""
    enough = next((b for b, error in errors.items() if error < VISIBLE), None)
    better = NEARER[choose]
    if enough and choose == BY_SPEEDUP:
        speedup = math.floor(10 * steps / enough) / 10  # in the widget's steps, and no fewer evaluations
        better = f"speedup {speedup:.1f} ({budget_for_speedup(steps, speedup)} of {steps})"
    elif enough and choose == BY_BUDGET:
        better = f"budget {enough}"
    return f"may differ visibly; to be closer, set {better}"


def with_auto_cache(
    model, target: Target, level: str = "output", learn: str = WHEN_NEEDED, on_report=None,
    say: Callable[[str], None] | None = None, step_rules: StepRules = StepRules(),  # noqa: B008
):  # fmt: skip
    """A clone of the ModelPatcher `model` whose runs teach and are then cached; see `attach.with_cache`."""
    forgotten = set()  # once only, for the samplers of one workflow may teach different parts of a run

    def begin(guider, sampler, grid, layout, begins):
        key = learned.model_key(guider.model_patcher)
        if learn == ANEW and key not in forgotten:
            learned.forget(key)
            forgotten.add(key)
        origin = origin_of(guider, sampler)
        known = fitting(learned.recall(key), origin, grid, layout)
        budget = target.evaluations(len(grid) - 1, known[0] if known else None)
        same = of_same_runs(known, origin, grid, layout)
        in_full = budget >= len(grid) - 1
        taught = bool(known) and known[0].taught
        if learn == WHEN_NEEDED and in_full and (taught or target.choose != BY_ERROR):

            def every_step():
                if target.choose == BY_ERROR:
                    raise OTCacheError(f"no fewer evaluations are known to keep the error within {target.error:g}")
                if len(grid) - 1 <= FEWEST:
                    raise OTCacheError(f"{len(grid) - 1} steps leave nothing to skip")
                raise OTCacheError("every step was asked for")

            return HostRun(every_step, grid, guider, sampler)

        if taught and learn == WHEN_NEEDED:
            told = [target.limited(len(grid) - 1)]

            def follow_rules():
                found = solved(key, known, grid, budget)
                sampling = guider.model_patcher.get_model_object("model_sampling")
                rules = step_rules.on_grid(grid, sampling.percent_to_sigma)
                steps = ruled_steps(found.compute_steps, grid, rules)
                told.append(step_rules.left_out(len(grid) - 1))
                if steps != found.compute_steps:
                    told.append(changed(budget, len(steps), rules))
                    found = fitted(known, grid, steps)
                return CachedRun(found, layout)

            run = noted(HostRun(follow_rules, grid, guider, sampler, level), *told)
            if run.cached and abs(known[0].origin.cfg - origin.cfg) <= 1:  # at another guidance other errors are to be expected
                run.hint = visibly_off(known[0], run.cached.schedule.budget, len(grid) - 1, target.choose)
            return run

        rehearses = not in_full or target.choose == BY_ERROR
        if same and same.runs >= learned.ENOUGH and (same.taught or not rehearses):

            def follow():
                raise OTCacheError(f"{same.runs} runs like this one were learnt from, and more of them change nothing")

            return HostRun(follow, grid, guider, sampler)

        def keep(statistics: Statistics) -> str:
            learned.remember(key, statistics)
            if learn != WHEN_NEEDED:
                return f"learn is {learn}: the next one is made in full, too"
            return f"the next one makes {target.evaluations(len(grid) - 1, statistics)} of {len(grid) - 1}"

        return Lesson(grid, layout, guider, sampler, origin, same, keep, rehearses, say, 0 if in_full else budget)

    return with_runs(model, begin, on_report)
