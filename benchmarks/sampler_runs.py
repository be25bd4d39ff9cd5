"""What samplers.py measures of one sampler, in a process of its own with the real ComfyUI."""

import logging
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from booted import boot_host, say
from quality import CALIBRATION_SCENES, HELD_OUT_SCENES, demo, psnr
from sampler_rows import EULERS, HOLD, HOLD_DENOISED, OURS, OUTPUT, OWN, PLAIN, Form, Kept, Row

SCHEDULER, SEED, LESSON_SEED = "simple", 77, 100
IN_BLOCKS, BLOCKS_STEPS, BLOCKS_BUDGETS = ("euler", "euler_ancestral", "er_sde"), 50, (8, 10, 15)


class Bench:
    """The booted host, a scene to learn from and others to measure on."""

    def __init__(self, base: Path, form: Form):
        self.host, self.form = boot_host(base), form
        logging.disable(logging.WARNING)  # ComfyUI's, one for every run
        import comfy.utils

        comfy.utils.PROGRESS_BAR_ENABLED = False
        self.one, self.new = demo(self.host, CALIBRATION_SCENES, 1), demo(self.host, HELD_OUT_SCENES, form.held_out)
        self.euler = cache(self._euler)

    def sample(self, case, model, sampler: str, steps: int, cfg: float, seed: int = SEED):
        from sampling import ksampler

        options = {"steps": steps, "cfg": cfg, "sampler_name": sampler, "scheduler": SCHEDULER, "seed": seed}
        return ksampler(self.host, case, model, **options)

    def auto(self, model, budget: int, level: str, on_report: Callable):
        """`model` as OT Auto Cache gives it."""
        auto = self.host.module("nodes.host.auto")
        return auto.with_auto_cache(model, auto.Target(auto.BY_BUDGET, budget=budget), level, on_report=on_report)

    def cached(self, model, schedule, level: str, on_report: Callable):
        """`model` as OT Apply Cache gives it."""
        return self.host.module("nodes.host.attach").with_cache(model, schedule, level, on_report)

    def learn(self, sampler: str, steps: int, cfg: float, budget: int) -> list:
        """Sample once as a user does who wants `budget`, with nothing known of the model; what that taught."""
        self.know([])
        model = self.auto(self.one.model, budget, OUTPUT, lambda report: None)
        self.sample(self.one, model, sampler, steps, cfg, LESSON_SEED)
        learned = self.host.module("nodes.host.learned")
        return learned.recall(learned.model_key(self.one.model))

    def know(self, lessons: list) -> None:
        """These and nothing else of the model."""
        learned = self.host.module("nodes.host.learned")
        key = learned.model_key(self.one.model)
        learned.forget(key)
        for lesson in lessons:
            learned.remember(key, lesson)

    def _euler(self, steps: int, cfg: float) -> tuple[list, Callable]:
        """What one run with euler teaches, and the schedule of a budget that this gives."""
        known = self.learn("euler", steps, cfg, min(self.form.budgets(steps)))
        solve = self.host.module("otcache_core.calibration.solving").solve
        return known, cache(lambda budget: solve(known, known[0].sigmas, budget))

    def adds_noise(self, sampler: str) -> bool:
        """Whether the sampler's seed changes the picture where the first noise is the same."""
        import comfy.sample
        import torch

        noise = comfy.sample.prepare_noise(self.one.latent["samples"], SEED)
        conds = self.one.positive, self.one.negative, self.one.latent["samples"]
        with torch.inference_mode():
            one, other = (comfy.sample.sample(self.one.model, noise.clone(), 8, 4.0, sampler, SCHEDULER, *conds, seed=seed,
                                              disable_pbar=True) for seed in (1, 2))  # fmt: skip
        return not torch.equal(one, other)


class Of:
    """One sampler with one guidance and number of steps: its full run, and others beside that."""

    def __init__(self, bench: Bench, sampler: str, steps: int, cfg: float, plain: Callable, adds_noise: bool):
        """plain: steps -> (evaluations, samples) of the sampler without us."""
        self.bench, self.sampler, self.steps, self.cfg = bench, sampler, steps, cfg
        self.plain, self.adds_noise = plain, adds_noise
        self.sigmas: list[float] = []  # of every evaluation
        self.full = self._run(watched(bench.new.model, self.sigmas))

    def rows(self) -> Iterable[Row]:
        bench = self.bench

        def own(budget: int, level: str) -> Callable:
            return lambda model, on_report: bench.auto(model, budget, level, on_report)

        def borrowed(budget: int, level: str) -> Callable:
            schedule_of = bench.euler(self.steps, self.cfg)[1]
            return lambda model, on_report: bench.cached(model, schedule_of(budget), level, on_report)

        for lesson in bench.form.lessons:
            attach = own if lesson == OWN else borrowed
            if lesson == EULERS:
                if self.sampler == "euler":
                    continue
                bench.know(bench.euler(self.steps, self.cfg)[0])
            for budget in bench.form.budgets(self.steps):
                if lesson == OWN:
                    bench.learn(self.sampler, self.steps, self.cfg, budget)
                yield self._row(lesson, budget, attach(budget, OUTPUT))
            if self.sampler in IN_BLOCKS and self.steps == BLOCKS_STEPS:
                for budget in BLOCKS_BUDGETS:
                    if lesson == OWN:
                        bench.learn(self.sampler, self.steps, self.cfg, budget)
                    yield self._in_blocks(lesson, budget, *(attach(budget, level) for level in (OUTPUT, "blocks")))

    def _run(self, model):
        return self.bench.sample(self.bench.new, model, self.sampler, self.steps, self.cfg)

    def _ours(self, attach: Callable):
        """(report, samples) of the run on the model that attach(model, on_report) gives; no samples of a run in full."""
        reports: list = []
        self.bench.sample(self.bench.one, attach(self.bench.one.model, reports.append), self.sampler, self.steps, self.cfg)
        if reports[0].reason:  # told by one scene: all of them would cost a full run for each budget
            return reports[0], None
        samples = self._run(attach(self.bench.new.model, reports.append))
        assert not reports[1].reason, reports[1].text
        return reports[1], samples

    def _dB(self, samples) -> tuple[float, float]:
        values = psnr(self.bench.new.vae, samples, self.full)
        return float(values.mean()), float(values.min())

    def _of(self, lesson: str, budget: int, report, **more) -> Row:
        of = self.sampler, self.cfg, self.steps, budget, lesson, self.adds_noise
        return Row(*of, report.evaluations, report.asked, **more)

    def _row(self, lesson: str, budget: int, attach: Callable) -> Row:
        bench, (report, samples) = self.bench, self._ours(attach)
        if samples is None:
            return self._of(lesson, budget, report, reason=report.reason)
        found = {OURS: samples}
        steps, made, found[PLAIN] = self._plain(report.evaluations)
        found[HOLD] = self._run(held(bench.new.model, report.computed, velocity=True))
        found[HOLD_DENOISED] = self._run(held(bench.new.model, report.computed))
        found = {way: self._dB(samples) for way, samples in found.items()}
        return self._of(lesson, budget, report, plain=(steps, made), found=found)

    def _plain(self, most: int):
        """(steps, evaluations, samples) of the run without us of the most steps that makes no more than `most`."""
        steps = max(most * self.steps // len(self.sigmas), 1)
        while steps < self.steps and self.plain(steps + 1)[0] <= most:
            steps += 1
        while steps > 1 and self.plain(steps)[0] > most:
            steps -= 1
        return steps, *self.plain(steps, True)

    def _in_blocks(self, lesson: str, budget: int, output: Callable, blocks: Callable) -> Row:
        (_, reused), (report, samples) = self._ours(output), self._ours(blocks)
        reason = report.reason
        found = {} if reason else {OURS: self._dB(samples), OUTPUT: self._dB(reused)}
        return self._of(lesson, budget, report, level="blocks", reason=reason, found=found)


def watched(model, sigmas: list[float]):
    """A clone of `model` that notes the noise level of each evaluation in `sigmas`."""

    def note(executor, x, timestep, *args, **kwargs):
        sigmas.append(float(timestep[0]))
        return executor(x, timestep, *args, **kwargs)

    return with_wrapper(model, note)


def held(model, computed: Iterable[bool], velocity: bool = False):
    """A clone of `model` for one run, which makes the evaluations that `computed` tells, and else gives the last result again:
    the denoised latent, or its velocity."""
    turns, last = iter(computed), []

    def again(executor, x, timestep, *args, **kwargs):
        sigma = float(timestep[0])
        if next(turns):
            denoised = executor(x, timestep, *args, **kwargs)
            last[:] = [(x - denoised) / sigma if velocity else denoised]
            return denoised
        return x - sigma * last[0] if velocity else last[0].clone()

    return with_wrapper(model, again)


def with_wrapper(model, wrapper: Callable):
    from comfy.patcher_extension import WrappersMP

    clone = model.clone()
    clone.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "benchmark", wrapper)
    return clone


_bench: Bench | None = None
_kept: Kept | None = None


def begin(base: str, form: Form, keep: Path | None = None) -> None:
    """Boot this process's ComfyUI, in a folder of its own under `base`; rows are kept in the folder `keep`."""
    global _bench, _kept
    _bench, _kept = Bench(Path(tempfile.mkdtemp(dir=base)), form), Kept(keep, form)


def sampler_names() -> list[str]:
    """The choices of KSampler: KSAMPLER_NAMES, ddim and both uni_pc."""
    import comfy.samplers

    return comfy.samplers.SAMPLER_NAMES


def measure(sampler: str, all_steps: list[int], cfgs: list[float]) -> list[Row]:
    """All rows of one sampler, each printed as soon as it is known; those that are kept are read."""
    bench, rows = _bench, []
    adds_noise = cache(lambda: bench.adds_noise(sampler))
    for cfg in cfgs:

        @cache
        def plain(steps: int, all_scenes: bool = False, cfg: float = cfg):
            sigmas: list[float] = []  # one scene tells how many they are
            case = bench.new if all_scenes else bench.one
            samples = bench.sample(case, watched(case.model, sigmas), sampler, steps, cfg)
            return len(sigmas), samples

        for steps in all_steps:
            some = _kept.read(sampler, steps, cfg)
            if not some:
                for row in Of(bench, sampler, steps, cfg, plain, adds_noise()).rows():
                    say(row.text)
                    some.append(row)
                _kept.write(some)
            rows += some
    return rows
