"""What one ordinary run of one prompt teaches, in the real ComfyUI: python benchmarks/first_run.py

The embedded demo model learns as OT Auto Cache does, from one run, then draws other scenes: on the grid that was learnt, beside
the full calibration with the nodes, plain solvers and ComfyUI's own caches at equal evaluations; and on other grids without
learning anew, beside schedules that were re-timed. What one run teaches is partly luck, so several scenes teach, each alone
with all else forgotten, and the mean over them is judged. Exits with 1 when a contract is missed.
"""

import argparse
import sys
import tempfile
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import other_grids
from booted import boot_host, say
from quality import CALIBRATION_SCENES, CFG, HELD_OUT_SCENES, PLAIN, calibrated, demo, ours, plain_steps, rivals, table

BUDGETS = {50: (6, 8, 10, 12, 15, 25), 20: (5, 7, 10)}
ELSEWHERE = "elsewhere"
PARTS = {"50": 50, "20": 20, ELSEWHERE: 50}  # steps of the runs that teach
TARGET = 10  # what is wanted of the next runs where nothing is said; elsewhere a lesson is for its own row's budget
# Of calibrations: steps, and the budgets of anchor and reference. The nodes' defaults for 50 steps come first; at budgets
# outside theirs they would only extrapolate, so that another one is asked for those.
CALIBRATIONS = ((50, 8, 15), (50, 6, 25), (20, 5, 10))
OURS, FULLY = "OTCache, one ordinary run", "OTCache, full calibration"

ABOVE_PLAIN, ABOVE_PLAIN_SHORT = 7.0, 5.0  # dB, of 50 steps at B in JUDGED and of 20 from B = 7 on
JUDGED = (8, 10, 12, 15)
BELOW_FULL, BELOW_FULL_SMALL = 3.0, 4.0  # dB, from B = 8 on and under it


class Bench:
    """The booted host, scenes to learn from and others to measure on."""

    def __init__(self, base: Path, prompt: int, learners: int, cases: int, held_out: int):
        self.host = boot_host(base)
        self.learners = alone(demo(self.host, prompt, learners))
        self.old, self.new = demo(self.host, CALIBRATION_SCENES, cases), demo(self.host, HELD_OUT_SCENES, held_out)
        self.calibrations, self.lessons = {}, {}

    def sample(self, case, model=None, **options):
        from sampling import ksampler

        return ksampler(self.host, case, model, **{"cfg": CFG, "seed": 77} | options)

    def auto(self, model, budget: int, reports: list):
        auto = self.host.module("nodes.host.auto")
        return auto.with_auto_cache(model, auto.Target(auto.BY_BUDGET, budget=budget), on_report=reports.append)

    @property
    def key(self) -> str:
        return self.host.module("nodes.host.learned").model_key(self.new.model)

    def forget(self) -> None:
        """Drop lessons and calibrated anchors."""
        self.host.module("nodes.host.learned").forget(self.key)

    def lessons_for(self, steps: int, budget: int = TARGET) -> list:
        """What each learner teaches in a run of `steps` whose next runs should make `budget` evaluations."""
        rehearsed = self.host.module("otcache_core.calibration.ladder").rehearsed_budgets
        place = steps, *rehearsed(steps, budget)  # wishes that rehearse the same teach the same
        if place not in self.lessons:
            self.lessons[place] = self.learn(steps, budget)
        return self.lessons[place]

    def learn(self, steps: int, budget: int) -> list:
        """Each learner samples once, in full, with nothing known of the model; says what that cost."""
        learned, lessons, beyond, sizes = self.host.module("nodes.host.learned"), [], set(), []
        for number, learner in enumerate(self.learners):
            self.forget()
            reports, calls = [], []
            self.sample(learner, counted(self.auto(learner.model, budget, reports), calls), steps=steps, seed=100 + number)
            lesson, = learned.recall(self.key)
            file, = learned.folder(self.key).iterdir()
            lessons.append(lesson)
            beyond.add(len(calls) - steps)
            sizes.append(file.stat().st_size / 1024)
        self.forget()
        say(f"\n{len(lessons)} learners, one run of {steps} steps each, for B = {budget}. The last: {reports[-1].text}")
        say(f"  {' or '.join(map(str, sorted(beyond)))} evaluations beyond the {steps}; one file of {max(sizes):.0f} KiB")
        return lessons

    def one_run(self, new, budget: int, options: dict, lesson):
        """(evaluations, samples) of a run that knows one `lesson`, and teaches nothing."""
        self.forget()
        self.host.module("nodes.host.learned").remember(self.key, lesson)
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

    def fully(self, steps: int, budget: int):
        """The calibrated schedule: of the first calibration that prepared this budget, else of the last."""
        fitting = [made for made in self.calibrations if made[0] == steps]
        place = next((made for made in fitting if made[1] <= budget <= made[2]), fitting[-1])
        return self.calibrations[place](budget)


def alone(cases: SimpleNamespace) -> list[SimpleNamespace]:
    """Each scene of a batch as a batch of one."""
    (context, options), = cases.positive
    pooled, latent = options["pooled_output"], cases.latent["samples"]
    return [
        SimpleNamespace(**vars(cases) | {
            "positive": [[context[i : i + 1], {"pooled_output": pooled[i : i + 1]}]], "latent": {"samples": latent[i : i + 1]},
        })
        for i in range(len(latent))
    ]  # fmt: skip


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
    lessons = {budget: bench.lessons_for(steps, budget) for budget in BUDGETS[steps]}
    full, found, seen = bench.sample(new, steps=steps), {}, {} if core else None
    say(f"\n{steps} steps: PSNR in dB against their full run, {len(full)} other scenes, euler, simple, CFG {CFG:g}")
    for budget in BUDGETS[steps]:
        runs = [bench.one_run(new, budget, options, lesson)[1] for lesson in lessons[budget]]
        fully = ((FULLY, *ours(bench.host, new, options, bench.fully(steps, budget))),)
        others = rivals(bench.host, new, options, budget, full, seen)
        found[budget] = table(new, full, budget, chain(((OURS, budget, runs),), fully, others))
    return found


def judge(long: dict, short: dict, other: dict) -> bool:
    """Prints each contract with the least margin by which it is kept or missed; returns whether all are kept."""

    def above_plain(found, budgets):
        best = {b: max(found[b][plain_steps(name, b)] for name in PLAIN) for b in budgets if b in found}
        return {f"B = {b}": found[b][OURS] - value for b, value in best.items()}

    def against_full(budgets):
        return {f"B = {b}": long[b][OURS] - long[b][FULLY] for b in budgets}

    contracts = (
        (f"50 steps: {ABOVE_PLAIN:g} dB above the best plain solver, B = 8 to 15", above_plain(long, JUDGED), ABOVE_PLAIN),
        (f"50 steps: within {BELOW_FULL:g} dB of the full calibration from B = 8 on",
         against_full(b for b in long if b >= JUDGED[0]), -BELOW_FULL),
        (f"50 steps: within {BELOW_FULL_SMALL:g} dB of it below that", against_full(b for b in long if b < JUDGED[0]),
         -BELOW_FULL_SMALL),
        (f"20 steps: {ABOVE_PLAIN_SHORT:g} dB above the best plain solver from B = 7 on", above_plain(short, (7, 10)),
         ABOVE_PLAIN_SHORT),
        *other_grids.contracts(other),
    )  # fmt: skip
    contracts = [contract for contract in contracts if contract[1]]  # those of the parts that were run
    say("\nContracts, of means over the learners, and where each is nearest to its bound")
    for text, margins, bound in contracts:
        where = min(margins, key=margins.get)
        say(f"  {'kept  ' if margins[where] >= bound else 'MISSED'}  {text}: {margins[where]:+.2f} ({where})")
    if other:
        say(f"  beside: {other_grids.beside(other)}")
    return all(min(margins.values()) >= bound for _, margins, bound in contracts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompt", type=int, default=CALIBRATION_SCENES, help="set whose first scenes teach (%(default)s)")
    parser.add_argument("--learners", type=int, default=4, help="scenes that teach, each alone (%(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS], help="what to measure (all)")
    parser.add_argument("--without-core-caches", action="store_true", help="leave EasyCache and LazyCache out")
    parser.add_argument("--cases", type=int, default=4, help="scenes of the full calibration (%(default)s)")
    parser.add_argument("--held-out", type=int, default=24, help="scenes to measure on (%(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        bench = Bench(Path(base), arguments.prompt, arguments.learners, arguments.cases, arguments.held_out)
        for calibration in CALIBRATIONS:
            if calibration[0] in map(PARTS.get, arguments.parts):
                bench.calibrate(*calibration)
        found, other = {"50": {}, "20": {}}, {}
        for part in found:
            if part in arguments.parts:
                found[part] = same_grid(bench, PARTS[part], not arguments.without_core_caches)
        if ELSEWHERE in arguments.parts:
            bench.forget()
            recorded = other_grids.recorded_only(bench.host, bench.learners[0], PARTS[ELSEWHERE])
            lessons = bench.lessons_for(PARTS[ELSEWHERE])
            other = other_grids.elsewhere(bench, lessons, recorded, partial(bench.fully, PARTS[ELSEWHERE]))
        return 0 if judge(found["50"], found["20"], other) else 1


if __name__ == "__main__":
    sys.exit(main())
