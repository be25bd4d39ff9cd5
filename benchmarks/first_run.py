"""What one ordinary run of one prompt teaches, in the real ComfyUI: python benchmarks/first_run.py

The embedded demo model learns as OT Auto Cache does, then draws other scenes: on the grid that was learnt, beside the full
calibration with the nodes, plain solvers and ComfyUI's own caches at equal evaluations; and on other grids without learning
anew, beside schedules that were re-timed. Exits with 1 when a contract is missed.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import cache, partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

from booted import boot_host, say
from quality import CALIBRATION_SCENES, CFG, HELD_OUT_SCENES, PLAIN, calibrated, demo, ours, plain_steps, psnr, rivals, table

BUDGETS = {50: (6, 8, 10, 12, 15, 25), 20: (5, 7, 10)}
# Of calibrations: steps, and the budgets of anchor and reference. The nodes' defaults for 50 steps come first; at budgets
# outside theirs they would only extrapolate, so that another one is asked for those.
CALIBRATIONS = ((50, 8, 15), (50, 6, 25), (20, 5, 10))
OURS, FULLY = "OTCache, one ordinary run", "OTCache, full calibration"
RECORDED_ONLY, RETIMED, FULLY_RETIMED = "recorded only, re-timed", "learnt, re-timed", "full, re-timed"
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
BUDGETS_ELSEWHERE = (8, 10, 15)
MOST = 0.5  # budgets elsewhere, as a share of the steps

ABOVE_PLAIN, ABOVE_PLAIN_SHORT = 7.0, 5.0  # dB, of 50 steps at B in JUDGED and of 20 from B = 7 on
JUDGED = (8, 10, 12, 15)
BELOW_FULL, BELOW_FULL_SMALL = 3.0, 4.0  # dB, from B = 8 on and under it
BELOW_RETIMED, ABOVE_RETIMED = 0.5, 4.0  # dB, everywhere; mean over the shifts at B = 15


class Bench:
    """The booted host, scenes to learn from and others to measure on."""

    def __init__(self, base: Path, prompt: int, cases: int, held_out: int):
        self.host = boot_host(base)
        self.one, self.old = demo(self.host, prompt, 1), demo(self.host, CALIBRATION_SCENES, cases)
        self.new = demo(self.host, HELD_OUT_SCENES, held_out)
        self.calibrations: dict = {}

    def sample(self, case, model=None, **options):
        from sampling import ksampler

        return ksampler(self.host, case, model, **{"cfg": CFG, "seed": 77} | options)

    def auto(self, model, budget: int, reports: list):
        auto = self.host.module("nodes.host.auto")
        return auto.with_auto_cache(model, auto.Target(auto.BY_BUDGET, budget=budget), on_report=reports.append)

    def forget(self) -> None:
        """Drop lessons and calibrated anchors."""
        learned = self.host.module("nodes.host.learned")
        learned.forget(learned.model_key(self.one.model))

    def learn(self, steps: int) -> None:
        """Sample once, in full, with nothing known of the model; says what that cost."""
        self.forget()
        learned, reports, calls = self.host.module("nodes.host.learned"), [], []
        model = counted(self.auto(self.one.model, 10, reports), calls)
        self.sample(self.one, model, steps=steps, seed=100)
        file, = learned.folder(learned.model_key(self.one.model)).iterdir()
        say(f"\nLearnt from one run of {steps} steps: {reports[-1].text}")
        say(f"  {len(calls) - steps} evaluations beyond the {steps}; one file of {file.stat().st_size / 1024:.0f} KiB")

    def learnt(self):
        """The statistics that `learn` left."""
        learned = self.host.module("nodes.host.learned")
        return learned.recall(learned.model_key(self.one.model))

    def one_run(self, new, budget: int, options: dict):
        """(evaluations, samples) of a run that uses what was learnt, and teaches nothing."""
        reports: list = []
        samples = self.sample(new, self.auto(new.model, budget, reports), **options)
        assert not reports[0].reason and reports[0].evaluations == budget, reports[0].text
        return budget, samples

    def calibrate(self, steps: int, anchor: int, reference: int) -> None:
        """With nothing known of the model, and nothing left behind."""
        self.forget()
        found, summary = calibrated(self.host, self.old, {"steps": steps, "budget": reference}, {"budget": anchor})
        say(f"Calibrated on {steps} steps for B = {anchor} to {reference}. {summary.splitlines()[1]}")
        self.calibrations[steps, anchor, reference] = found
        self.forget()

    def recorded_only(self, steps: int):
        """budget -> the schedule that one full run gives by itself: the graph's path, weights fitted to recorded velocities.

        As if the model gave these wherever the cached latent is.
        """
        self.forget()
        inputs = {"positive": self.one.positive, "negative": self.one.negative, "latent_image": self.one.latent}
        _, calibration, _ = self.host.run("OTReferenceSchedule", model=self.one.model, steps=steps, seed=100, cases=1, **inputs)
        self.forget()
        rollout, observed = self.host.module("otcache_core.sampling.rollout"), calibration.observed
        rollouts = rollout.Rollouts(Replay(observed.trajectories[0]), observed.cases, observed.trajectories)

        def schedule_of(budget: int):
            path = observed.paths["graph, fitted"][budget]
            _, rows = rollouts.run(path)
            make = self.host.module("otcache_core.schedules.schedule").make_schedule
            return make(sigmas=tuple(observed.sigmas), compute_steps=path, predictor=rollout.FITTED, weights=rows)

        return cache(schedule_of)

    def fully(self, steps: int, budget: int):
        """The calibrated schedule: of the first calibration that prepared this budget, else of the last."""
        fitting = [made for made in self.calibrations if made[0] == steps]
        place = next((made for made in fitting if made[1] <= budget <= made[2]), fitting[-1])
        return self.calibrations[place](budget)

    def moved(self, schedule_of: Callable, grid, budget: int):
        """The schedule re-timed to `grid` that makes `budget` evaluations there; for a part of the range it needs more."""
        retime = self.host.module("otcache_core.schedules.retiming").retime
        there = (retime(schedule_of(more), grid) for more in range(budget, 50))
        return next(schedule for schedule in there if schedule.budget >= budget)


class Replay:
    """A generator whose model gives one recorded run's velocities, whatever the latent."""

    def __init__(self, trajectory):
        self._velocities = dict(zip(trajectory.sigmas.tolist(), trajectory.d, strict=False))

    def velocity(self, x, sigma: float, cases):
        return self._velocities[sigma][None]


def counted(model, calls: list):
    """`model`, which notes each of its evaluations in `calls`."""
    from comfy.patcher_extension import WrappersMP

    def note(executor, *args, **kwargs):
        calls.append(1)
        return executor(*args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "counted", note)
    return model


def same_grid(bench: Bench, steps: int, core: bool) -> dict[int, dict[str, float]]:
    """Mean dB by budget and row, on the grid that was learnt."""
    new, options = bench.new, {"steps": steps, "cfg": CFG, "seed": 77}
    full, found, seen = bench.sample(new, steps=steps), {}, {} if core else None
    say(f"\n{steps} steps: PSNR in dB against their full run, {len(full)} other scenes, euler, simple, CFG {CFG:g}")
    for budget in BUDGETS[steps]:
        learnt = ((OURS, *bench.one_run(new, budget, options)),)
        fully = ((FULLY, *ours(bench.host, new, options, bench.fully(steps, budget))),)
        found[budget] = table(new, full, budget, chain(learnt, fully, rivals(bench.host, new, options, budget, full, seen)))
    return found


def run_grid(model, steps: int, scheduler: str = "simple", denoise: float = 1.0):
    """The sigmas of a KSampler run, float64 [N + 1]."""
    import comfy.samplers

    return comfy.samplers.KSampler(model, steps, "cpu", "euler", scheduler, denoise).sigmas.double().numpy()


def elsewhere(bench: Bench, recorded_only: Callable) -> dict[tuple[str, int], dict[str, float]]:
    """Mean dB by grid, budget and row, on grids that were not learnt."""
    solve = bench.host.module("otcache_core.calibration.solving").solve
    known, found = bench.learnt(), {}
    schedule_of = cache(lambda budget: solve(known, known[0].sigmas, budget))
    fully = cache(partial(bench.fully, 50))
    other = {"samples": bench.sample(bench.new, steps=50).roll(1, 0)}  # another scene's picture
    names = (OURS, RECORDED_ONLY, RETIMED, FULLY_RETIMED, "euler")
    say("\nElsewhere, learnt from 50 steps of `simple` at shift 1: mean and (worst) dB against the full run there.")
    say("In the middle re-timed: the home schedules of one run without rehearsals, of what was learnt, of the calibration.")
    heads = ("one ordinary run", "recorded only", "learnt", "full", "plain euler")
    say(f"\n  {'':14} {'B':>3}   " + " ".join(f"{head:>16}" for head in heads))
    for name, differs in ELSEWHERE.items():
        options = {"steps": 50} | {key: value for key, value in differs.items() if key != "shift"}
        new = SimpleNamespace(**vars(bench.new))
        if "shift" in differs:  # the node for models whose timestep is sigma
            new.model, = bench.host.run("ModelSamplingAuraFlow", model=new.model, shift=differs["shift"])
        if "denoise" in differs:
            new.latent = other
        grid = run_grid(new.model, **options)
        full, options = bench.sample(new, **options), {"cfg": CFG, "seed": 77, **options}
        for budget in (b for b in BUDGETS_ELSEWHERE if b <= MOST * options["steps"]):
            rows = (
                bench.one_run(new, budget, options),
                ours(bench.host, new, options, bench.moved(recorded_only, grid, budget)),
                ours(bench.host, new, options, bench.moved(schedule_of, grid, budget)),
                ours(bench.host, new, options, bench.moved(fully, grid, budget)),
                (budget, bench.sample(new, **options | {"steps": budget})),
            )
            values = {row: psnr(new.vae, samples, full) for row, (_, samples) in zip(names, rows, strict=True)}
            found[name, budget] = {row: float(value.mean()) for row, value in values.items()}
            cells = [f"{float(value.mean()):.2f} ({float(value.min()):.2f})" for value in values.values()]
            made = [f" [{evaluations}]" if evaluations != budget else "" for evaluations, _ in rows]
            cells = [f"{cell + mark:>16}" for cell, mark in zip(cells, made, strict=True)]
            say(f"  {name:14} {budget:3}   {' '.join(cells)}")
    return found


def judge(long: dict, short: dict, other: dict) -> bool:
    """Prints each contract with the least margin by which it is kept or missed; returns whether all are kept."""

    def above_plain(found, budgets):
        best = {b: max(found[b][plain_steps(name, b)] for name in PLAIN) for b in budgets if b in found}
        return {f"B = {b}": found[b][OURS] - value for b, value in best.items()}

    against_full = {f"B = {b}": means[OURS] - means[FULLY] for b, means in long.items()}
    small = {f"B = {b}" for b in long if b < JUDGED[0]}
    apart = {row: {f"{name}, B = {b}": means[OURS] - means[row] for (name, b), means in other.items()}
             for row in (RECORDED_ONLY, RETIMED)}  # fmt: skip
    shifted = {row: {"mean": sum(values[f"shift {shift}, B = 15"] for shift in SHIFTS) / len(SHIFTS)} if values else {}
               for row, values in apart.items()}  # fmt: skip
    contracts = (
        (f"50 steps: {ABOVE_PLAIN:g} dB above the best plain solver, B = 8 to 15", above_plain(long, JUDGED), ABOVE_PLAIN),
        (f"50 steps: within {BELOW_FULL:g} dB of the full calibration from B = 8 on",
         {b: apart for b, apart in against_full.items() if b not in small}, -BELOW_FULL),
        (f"50 steps: within {BELOW_FULL_SMALL:g} dB of it below that",
         {b: apart for b, apart in against_full.items() if b in small}, -BELOW_FULL_SMALL),
        (f"20 steps: {ABOVE_PLAIN_SHORT:g} dB above the best plain solver from B = 7 on", above_plain(short, (7, 10)),
         ABOVE_PLAIN_SHORT),
        (f"elsewhere: nowhere more than {BELOW_RETIMED:g} dB below what one recorded run gives, re-timed",
         apart[RECORDED_ONLY], -BELOW_RETIMED),
        (f"elsewhere: {ABOVE_RETIMED:g} dB above that at B = 15, a mean over the shifts",
         shifted[RECORDED_ONLY], ABOVE_RETIMED),
    )  # fmt: skip
    contracts = [contract for contract in contracts if contract[1]]  # those of the parts that were run
    say("\nContracts, and where each is nearest to its bound")
    for text, margins, bound in contracts:
        where = min(margins, key=margins.get)
        say(f"  {'kept  ' if margins[where] >= bound else 'MISSED'}  {text}: {margins[where]:+.2f} ({where})")
    if other:
        where = min(apart[RETIMED], key=apart[RETIMED].get)
        say(f"  beside: against what was learnt, re-timed: {apart[RETIMED][where]:+.2f} ({where}); at B = 15 of the shifts "
            f"{shifted[RETIMED]['mean']:+.2f}")  # fmt: skip
    return all(min(margins.values()) >= bound for _, margins, bound in contracts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompt", type=int, default=CALIBRATION_SCENES, help="set whose first scene is learnt (%(default)s)")
    parser.add_argument("--steps", type=int, nargs="+", choices=(50, 20), default=(50, 20), help="the parts to run (both)")
    parser.add_argument("--without-core-caches", action="store_true", help="leave EasyCache and LazyCache out, half the time")
    parser.add_argument("--cases", type=int, default=4, help="scenes of the full calibration (%(default)s)")
    parser.add_argument("--held-out", type=int, default=24, help="scenes to measure on (%(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        bench = Bench(Path(base), arguments.prompt, arguments.cases, arguments.held_out)
        for calibration in CALIBRATIONS:
            if calibration[0] in arguments.steps:
                bench.calibrate(*calibration)
        found, other = {50: {}, 20: {}}, {}
        recorded_only = bench.recorded_only(50) if 50 in arguments.steps else None
        for steps in arguments.steps:
            bench.learn(steps)
            other |= elsewhere(bench, recorded_only) if steps == 50 else {}
            found[steps] = same_grid(bench, steps, not arguments.without_core_caches)
        return 0 if judge(found[50], found[20], other) else 1


if __name__ == "__main__":
    sys.exit(main())
