"""What one ordinary run teaches about other grids than its own: a part of benchmarks/first_run.py."""

from collections.abc import Callable
from functools import cache, partial
from types import SimpleNamespace

from booted import say
from quality import CFG, ours, psnr

ONE_RUN, RECORDED_ONLY, RETIMED, FULLY_RETIMED, EULER = "one ordinary run", "recorded only", "learnt", "full", "plain euler"
SHIFTS = (2, 3, 5)
# Of a grid: widgets of KSampler, and the shift, where it differs from the learnt one's.
ELSEWHERE = {
    "20 steps": {"steps": 20},
    "28 steps": {"steps": 28},
    **{f"shift {shift}": {"shift": shift} for shift in SHIFTS},
    "beta": {"scheduler": "beta"},
    "sgm_uniform": {"scheduler": "sgm_uniform"},
    "denoise 0.6": {"denoise": 0.6},
}
BUDGETS = (8, 10, 15)
MOST = 0.5  # budgets, as a share of the steps
BELOW_RECORDED, ABOVE_RECORDED = 0.5, 4.0  # dB, everywhere; mean over the shifts at B = 15


class Replay:
    """A generator whose model gives one recorded run's velocities, whatever the latent."""

    def __init__(self, trajectory):
        self._velocities = dict(zip(trajectory.sigmas.tolist(), trajectory.d, strict=False))

    def velocity(self, x, sigma: float, cases):
        return self._velocities[sigma][None]


def recorded_only(host, case, steps: int) -> Callable:
    """budget -> the schedule that one full run of `case` gives by itself: the graph's path, weights fitted to its velocities.

    As if the model gave these wherever the cached latent is.
    """
    inputs = {"positive": case.positive, "negative": case.negative, "latent_image": case.latent}
    _, calibration, _ = host.run("OTReferenceSchedule", model=case.model, steps=steps, cfg=CFG, seed=100, cases=1,
                                 **inputs)  # fmt: skip
    rollout, observed = host.module("otcache_core.sampling.rollout"), calibration.observed
    rollouts = rollout.Rollouts(Replay(observed.trajectories[0]), observed.cases, observed.trajectories)

    def schedule_of(budget: int):
        path = observed.paths["graph, fitted"][budget]
        _, rows = rollouts.run(path)
        make = host.module("otcache_core.schedules.schedule").make_schedule
        return make(sigmas=tuple(observed.sigmas), compute_steps=path, predictor=rollout.FITTED, weights=rows)

    return cache(schedule_of)


def run_grid(model, steps: int, scheduler: str = "simple", denoise: float = 1.0):
    """The sigmas of a KSampler run, float64 [N + 1]."""
    import comfy.samplers

    return comfy.samplers.KSampler(model, steps, "cpu", "euler", scheduler, denoise).sigmas.double().numpy()


def moved(host, schedule_of: Callable, grid, budget: int):
    """The schedule re-timed to `grid` that makes `budget` evaluations there; for a part of the range it needs more."""
    retime = host.module("otcache_core.schedules.retiming").retime
    there = (retime(schedule_of(more), grid) for more in range(budget, 50))
    return next(schedule for schedule in there if schedule.budget >= budget)


def cell(values: list, made: set[int], budget: int) -> str:
    """What is printed of dB [n] of each learner, or of one run."""
    mean = sum(float(value.mean()) for value in values) / len(values)
    lowest = f"{min(float(value.mean()) for value in values):.2f}, " if len(values) > 1 else ""
    marks = "".join(f" [{evaluations}]" for evaluations in sorted(made - {budget}))
    return f"{mean:.2f} ({lowest}{min(float(value.min()) for value in values):.2f}){marks}"


def elsewhere(bench, lessons: list, recorded: Callable, fully: Callable) -> dict[tuple[str, int], dict[str, float]]:
    """Mean dB by grid, budget and row, on grids that were not learnt.

    bench: first_run.Bench; lessons: what each learner taught at 50 steps; recorded, fully: budget -> schedule for these.
    """
    host, found = bench.host, {}
    solve = host.module("otcache_core.calibration.solving").solve
    homes = [cache(partial(solve, [lesson], lesson.sigmas)) for lesson in lessons]
    fully = cache(fully)
    other = {"samples": bench.sample(bench.new, steps=50).roll(1, 0)}  # another scene's picture
    say("\nElsewhere, learnt from 50 steps of `simple` at shift 1: mean and (worst) dB against the full run there, of what was")
    say(f"learnt a mean of {len(lessons)} learners and (the lowest learner's mean, the worst picture).")
    say("Three re-timed: the home schedules of one run without rehearsals, of what was learnt, of the calibration.")
    heads = (ONE_RUN, RECORDED_ONLY, RETIMED, FULLY_RETIMED, EULER)
    say(f"\n  {'':14} {'B':>3}   " + " ".join(f"{head:>23}" for head in heads))
    for name, differs in ELSEWHERE.items():
        options = {"steps": 50} | {key: value for key, value in differs.items() if key != "shift"}
        new = SimpleNamespace(**vars(bench.new))
        if "shift" in differs:  # the node for models whose timestep is sigma
            new.model, = host.run("ModelSamplingAuraFlow", model=new.model, shift=differs["shift"])
        if "denoise" in differs:
            new.latent = other
        grid = run_grid(new.model, **options)
        full, options = bench.sample(new, **options), {"cfg": CFG, "seed": 77, **options}

        def retimed(schedule_of: Callable, budget: int, new=new, grid=grid, options=options):
            return ours(host, new, options, moved(host, schedule_of, grid, budget))

        for budget in (b for b in BUDGETS if b <= MOST * options["steps"]):
            rows = (
                [bench.one_run(new, budget, options, lesson) for lesson in lessons],
                [retimed(recorded, budget)],
                [retimed(home, budget) for home in homes],
                [retimed(fully, budget)],
                [(budget, bench.sample(new, **options | {"steps": budget}))],
            )
            values = [[psnr(new.vae, samples, full) for _, samples in row] for row in rows]
            made = [{evaluations for evaluations, _ in row} for row in rows]
            found[name, budget] = {
                head: sum(float(value.mean()) for value in row) / len(row) for head, row in zip(heads, values, strict=True)
            }
            cells = (f"{cell(row, counts, budget):>23}" for row, counts in zip(values, made, strict=True))
            say(f"  {name:14} {budget:3}   {' '.join(cells)}")
    return found


def margins(found: dict, row: str) -> dict[str, float]:
    """dB of one ordinary run above `row`, by grid and budget."""
    return {f"{name}, B = {budget}": means[ONE_RUN] - means[row] for (name, budget), means in found.items()}


def over_shifts(found: dict, row: str) -> dict[str, float]:
    """The mean of `margins` over the shifts at B = 15."""
    apart = margins(found, row)
    return {"mean": sum(apart[f"shift {shift}, B = 15"] for shift in SHIFTS) / len(SHIFTS)} if apart else {}


def contracts(found: dict) -> tuple[tuple[str, dict[str, float], float], ...]:
    """(text, margins, bound) of each; no margins where nothing was measured."""
    return (
        (f"elsewhere: nowhere more than {BELOW_RECORDED:g} dB below what one recorded run gives, re-timed",
         margins(found, RECORDED_ONLY), -BELOW_RECORDED),
        (f"elsewhere: {ABOVE_RECORDED:g} dB above that at B = 15, a mean over the shifts",
         over_shifts(found, RECORDED_ONLY), ABOVE_RECORDED),
    )  # fmt: skip


def beside(found: dict) -> str:
    """How one ordinary run compares with its own schedule re-timed, which nothing is promised of."""
    apart = margins(found, RETIMED)
    where = min(apart, key=apart.get)
    most = max(apart.values())
    return (f"against what was learnt, re-timed: {apart[where]:+.2f} ({where}) to {most:+.2f}; at B = 15 of the shifts "
            f"{over_shifts(found, RETIMED)['mean']:+.2f}")  # fmt: skip
