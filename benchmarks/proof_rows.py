"""Every way to sample one model under one setting, measured on the same scenes and noise in one process."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from itertools import chain
from types import SimpleNamespace

import numpy as np
import torch
from booted import say
from proof_cases import STEPS, Setting, alone, cases, first
from proof_grids import on_levels, on_lists
from proof_metrics import Row, measured
from quality import calibrated

CALIBRATION_SCENES, HELD_OUT_SCENES = 1000, 3000
PLAIN = ("euler", "dpmpp_2m", "uni_pc", "ipndm", "deis", "res_multistep")
CORE, STARTS, BISECTIONS, FEW = ("EasyCache", "LazyCache"), (0.0, 0.15), 8, 2
ONE_RUN, BLOCKS, FULLY = "OTCache, one ordinary run", "OTCache, one run, blocks", "OTCache, calibrated"
ANCHOR, REFERENCE = 6, 25  # budgets of the calibration
TARGET = 10  # what is wanted of the runs after a lesson, where the budget does not ask for another one
Made = tuple[int, float, torch.Tensor]  # evaluations, seconds, samples


class Proof:
    """One setting: scenes to learn from, others to measure on, and their full run.

    learners: ordinary runs, each of which teaches alone. calibration: scenes of OT Reference Schedule, and of the peers that
    need recorded runs. calls: of BudCache's objective. without: names of peers to leave out.
    """

    def __init__(
        self, host, setting: Setting, held_out: int, learners: int, calibration: int, calls: int, without: Sequence[str] = ()
    ):
        self.host, self.setting, self.calls, self.without = host, setting, calls, without
        self.old = cases(host, setting, CALIBRATION_SCENES, max(calibration, learners))
        self.new = cases(host, setting, HELD_OUT_SCENES, held_out)
        self.learners = [alone(self.old, number) for number in range(learners)]
        self.calibration = calibration
        self.options = {"steps": STEPS, "cfg": setting.cfg, "sampler_name": setting.sampler, "scheduler": setting.scheduler}
        self._lessons: dict[tuple, list] = {}
        self._core: dict[tuple, Made] = {}
        self.forget()
        _, self.full_seconds, self.full = self.run(self.new)
        self.pictures = self.new.vae.decode(self.full)

    def run(self, case: SimpleNamespace, model=None, seed: int = 77, **options) -> Made:
        """One KSampler run, with the number of steps in which the network itself was called."""
        from sampling import ksampler

        steps, before = [], time.perf_counter()
        counted = executing(model or case.model, steps)
        samples = ksampler(self.host, case, counted, **self.options | {"seed": seed} | options)
        return len(steps), time.perf_counter() - before, samples

    def module(self, name: str):
        return self.host.module(name)

    @property
    def key(self) -> str:
        return self.module("nodes.host.learned").model_key(self.new.model)

    def forget(self) -> None:
        self.module("nodes.host.learned").forget(self.key)

    def auto(self, model, budget: int, level: str, reports: list):
        """`model` as OT Auto Cache gives it."""
        auto = self.module("nodes.host.auto")
        return auto.with_auto_cache(model, auto.Target(auto.BY_BUDGET, budget=budget), level, on_report=reports.append)

    def rehearsed(self, budget: int) -> tuple[int, ...]:
        """Budgets that a lesson for `budget` tries after its full run."""
        return tuple(self.module("otcache_core.calibration.ladder").rehearsed_budgets(STEPS, budget))

    def lesson_cost(self, budget: int) -> float:
        """Of one lesson, in full runs."""
        return 1 + sum(self.rehearsed(budget)) / STEPS

    def lessons(self, budget: int) -> list:
        """What each learner teaches by one ordinary run whose next ones should make `budget` evaluations."""
        learned = self.module("nodes.host.learned")
        place = self.rehearsed(budget)
        if place not in self._lessons:
            found = []
            for number, learner in enumerate(self.learners):
                self.forget()
                self.run(learner, self.auto(learner.model, budget, "output", []), seed=100 + number)
                found.append(learned.recall(self.key)[0])
            self.forget()
            self._lessons[place] = found
        return self._lessons[place]

    def one_run(self, budget: int, level: str) -> Iterator[Made]:
        """Runs that know one lesson each; none where this level cannot be had."""
        for lesson in self.lessons(budget):
            self.forget()
            self.module("nodes.host.learned").remember(self.key, lesson)
            reports: list = []
            _, seconds, samples = self.run(self.new, self.auto(self.new.model, budget, level, reports))
            self.forget()
            said = reports[0]
            if said.reason or said.level != level:
                return
            yield said.evaluations, seconds, samples

    @cached_property
    def fully(self) -> Callable[[int], object]:
        """The schedule of a budget, of a full calibration with the nodes."""
        self.forget()
        options = {"steps": STEPS, "scheduler": self.setting.scheduler, "budget": REFERENCE, "cases": self.calibration}
        found, summary = calibrated(self.host, self.old, options, {"budget": ANCHOR}, cfg=self.setting.cfg)
        self.calibration_cost = float(re.search(r"([\d.]+) full runs", summary)[1]) * self.calibration
        say(f"  {summary.splitlines()[1]}")
        self.forget()
        return found

    def with_schedule(self, schedule, level: str = "output", case: SimpleNamespace | None = None) -> Made:
        """The scenes, or others, under one schedule, as OT Apply Cache draws them."""
        reports: list = []
        model = self.module("nodes.host.attach").with_cache(self.new.model, schedule, level, reports.append)
        _, seconds, samples = self.run(case or self.new, model)
        return reports[0].evaluations, seconds, samples

    def core(self, node: str, budget: int) -> Made | None:
        """ComfyUI's own cache: for each start percent the threshold that makes the fewest evaluations from `budget` on, found
        on a few scenes; the best of these. None where it never skips."""
        few, found = first(self.new, FEW), []
        for start in STARTS:
            low, high, chosen = 0.0, 3.0, None
            for _ in range(BISECTIONS):
                middle = (low + high) / 2
                made = self._core_run(few, node, start, middle)[0]
                low, high, chosen = (middle, high, middle) if made >= budget else (low, middle, chosen)
            if chosen is not None:
                found.append(self._core_run(self.new, node, start, chosen))
        if not found or min(made for made, _, _ in found) == STEPS > budget:
            return None
        return max(found, key=lambda made: self.measure(made[2])["psnr"].mean())

    def _core_run(self, case: SimpleNamespace, node: str, start: float, threshold: float) -> Made:
        place = len(case.latent["samples"]), node, start, threshold
        if place not in self._core:
            model, = self.host.run(node, model=case.model, reuse_threshold=threshold, start_percent=start, end_percent=1.0)
            self._core[place] = self.run(case, model)
        return self._core[place]

    @cached_property
    def peers(self):
        from proof_peers import Peers, recording, trajectories, with_velocities

        seen: list = []
        old = first(self.old, max(self.calibration, 1))
        self.run(old, recording(old.model, seen), seed=100, sampler_name="euler")
        one = alone(self.old, 0)
        ask = partial(with_velocities, self.host, one, self.setting.cfg)
        return Peers(trajectories(seen), ask, self.calls, self.without)

    def measure(self, samples: torch.Tensor) -> dict[str, np.ndarray]:
        metrics = self.module("otcache_core.calibration.metrics")
        return measured(metrics, self.new.vae.decode(samples), self.pictures)

    def row(self, method: str, family: str, budget: int, *runs: Made, beforehand: float = 0.0) -> Row:
        """Of one run, or of several alike: all their pictures count. beforehand: what it needs to know, in full runs."""
        found = [self.measure(samples) for _, _, samples in runs]
        values = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
        seconds = float(np.mean([seconds for _, seconds, _ in runs]))
        return Row(self.setting.name, method, family, budget, max(made for made, _, _ in runs), seconds, values, beforehand)

    def rows(self, budget: int, families: tuple[str, ...]) -> Iterator[Row]:
        """Every method of `families` at `budget`."""
        makers = {"ours": self._ours, "core": self._core_rows, "plain": self._plain, "peer": self._peers,
                  "grids": self._grids}  # fmt: skip
        return chain.from_iterable(makers[family](budget) for family in families)

    def _ours(self, budget: int) -> Iterator[Row]:
        for name, level in ((ONE_RUN, "output"), (BLOCKS, "blocks")):
            if runs := list(self.one_run(budget, level)):
                yield self.row(name, "ours", budget, *runs, beforehand=self.lesson_cost(budget))
        if self.calibration:
            made = self.with_schedule(self.fully(budget))
            yield self.row(FULLY, "ours", budget, made, beforehand=self.calibration_cost)

    def _core_rows(self, budget: int) -> Iterator[Row]:
        for node in CORE:
            if made := self.core(node, budget):
                yield self.row(f"core {node}", "core", budget, made)

    def _plain(self, budget: int) -> Iterator[Row]:
        for sampler in PLAIN:
            yield self.row(f"{sampler}, so many steps", "plain", budget, self.run(self.new, steps=budget, sampler_name=sampler))

    def _peers(self, budget: int) -> Iterator[Row]:
        from proof_peers import following

        for name, (begin, denoised) in self.peers.at(budget).items():
            made = self.run(self.new, following(self.new.model, begin(), denoised))
            yield self.row(name, "peer", budget, made, beforehand=self.peers.beforehand(name))

    def _grids(self, budget: int) -> Iterator[Row]:
        for name, made, beforehand in on_lists(self, budget):
            yield self.row(name, "peer", budget, made, beforehand=beforehand)
        for sampler in PLAIN:
            name, made = on_levels(self, sampler, budget)
            yield self.row(name, "plain", budget, made)


def executing(model, steps: list):
    """A clone of `model` that adds to `steps` each evaluation in which its network was called, guidance counting once."""
    from comfy.patcher_extension import WrappersMP

    network, sigmas = model.model.diffusion_model, []
    inside = next(getattr(network, name) for name in ("time_in", "time_embedding", "time_embed") if hasattr(network, name))

    def watch(executor, x, timestep, *args, **kwargs):
        called = []
        handle = inside.register_forward_pre_hook(lambda *_: called.append(1))
        try:
            return executor(x, timestep, *args, **kwargs)
        finally:
            handle.remove()
            sigma = float(timestep[0])
            if called and sigma not in sigmas:
                sigmas.append(sigma)
                steps.append(sigma)

    clone = model.clone()
    clone.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "executing", watch)
    return clone
