"""What learning costs at real latent sizes: memory, time, and the file: python benchmarks/learning_cost.py

The real ComfyUI on one CPU thread samples with its own model classes, whose networks are replaced by random maps that cost
nothing, once plainly and once with OT Auto Cache. Memory is what torch allocates, to the byte, by its profiler. Exits with 1
when a limit is missed.
"""

import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import thread_time
from types import SimpleNamespace

from booted import boot_host, say

STEPS, STEP_MS = 50, 100
SIZES = {
    "FLUX, 1024 x 1024": ("FLUX.1", (1, 16, 128, 128)),
    "HunyuanVideo, 720p, 129 frames": ("HunyuanVideo", (1, 16, 33, 90, 160)),
}
BUDGETS = (8, 15, 25)
LIMIT_MIB, LIMIT_SHARE, LIMIT_SOLVE = 64, 0.01, 0.3
MIB = 2**20


def random_map(shape: tuple[int, ...]):
    """A DIFFUSION_MODEL wrapper in place of the network: each channel by a random factor that turns with the noise level."""
    import torch

    wide = (1, shape[1], *[1] * (len(shape) - 2))
    gain, speed = torch.randn(2, *wide, generator=torch.Generator().manual_seed(1)).unbind()

    def forward(executor, x, timestep, *args, **kwargs):
        return x * (gain * (1 + timestep.flatten()[0] * speed).sin())

    return forward


def case_of(model: str, shape: tuple[int, ...]) -> SimpleNamespace:
    """Model, conditionings and an empty latent of `shape`."""
    import torch
    from comfy.patcher_extension import WrappersMP
    from matrix_models import MODELS, build

    case = build(replace(MODELS[model], latent=(1,) * len(shape)))
    case.model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "random", random_map(shape))
    case.latent = torch.zeros(shape)
    return case


class Clock:
    """CPU seconds: when each step ended, when each rehearsal began, and what a lesson spent at each evaluation of its own."""

    def __init__(self):
        self.steps, self.rehearsals, self.own = [], [], []

    def step(self, *_):
        """The step callback."""
        mark("step")
        self.steps.append(thread_time())

    def say(self, _text: str):
        """For what a lesson says before each rehearsal."""
        mark("rehearsal")
        self.rehearsals.append(thread_time())

    @contextmanager
    def watching(self, lesson: type):
        """Fills `own`."""
        method = lesson.predict_noise

        def predict_noise(run, executor, *args, **kwargs):
            begin, inside = thread_time(), []

            def timed(*args, **kwargs):
                before = thread_time()
                output = executor(*args, **kwargs)
                inside.append(thread_time() - before)
                return output

            output = method(run, timed, *args, **kwargs)
            self.own.append(thread_time() - begin - sum(inside))
            return output

        lesson.predict_noise = predict_noise
        try:
            yield
        finally:
            lesson.predict_noise = method

    @property
    def recording_ms(self) -> float:
        """A median over the recorded steps."""
        return 1e3 * median(self.own[:STEPS])


def mark(name: str) -> None:
    import torch

    with torch.profiler.record_function(f"mark {name}"):
        pass


def sample(case, model, clock: Clock):
    import comfy.sample
    import torch

    with torch.inference_mode():
        noise = torch.randn(case.latent.shape, generator=torch.Generator().manual_seed(2))
        return comfy.sample.sample(model, noise, STEPS, 1.0, "euler", "simple", case.positive, case.negative, case.latent,
                                   callback=clock.step, disable_pbar=True, seed=1)  # fmt: skip


@contextmanager
def allocations(peaks: dict[str, float]):
    """Fills `peaks` with the most that torch held at once beyond what it held before, in MiB, in each part of a run.

    "sampling" lasts to the last step, "closing" to the first rehearsal, "rehearsing" to the end.
    """
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        yield
    events = profiler.profiler.kineto_results.events()
    last = max(event.start_ns() for event in events if event.name() == "mark step")
    begins = min((event.start_ns() for event in events if event.name() == "mark rehearsal"), default=None)
    held = 0
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        held += event.nbytes()
        at = event.start_ns()
        part = "sampling" if at <= last else "closing" if begins is None or at < begins else "rehearsing"
        peaks[part] = max(peaks.get(part, 0.0), held / MIB)


def memory(case, model) -> dict[str, float]:
    """`allocations` of a run of `model`, after one to warm up."""
    for _ in range(2):
        with allocations(peaks := {}):
            sample(case, model, Clock())
    return peaks


def learning(host, name: str) -> bool:
    """Prints what one lesson costs at the size `name`; returns whether the limits are kept."""
    auto, attach = host.module("nodes.host.auto"), host.module("nodes.host.attach")
    case = case_of(*SIZES[name])
    target, reports = auto.Target(auto.BY_BUDGET, budget=BUDGETS[0]), []

    def learns(clock):
        return auto.with_auto_cache(case.model, target, learn=auto.ANEW, on_report=reports.append, say=clock.say)

    plain, peaks = memory(case, case.model), memory(case, learns(Clock()))
    with (clock := Clock()).watching(host.module("nodes.host.lesson").Lesson):
        sample(case, learns(clock), clock)
    learned = host.module("nodes.host.learned")
    key = learned.model_key(case.model)
    file, = learned.folder(key).iterdir()
    statistics, = learned.recall(key)
    most = max(statistics.rehearsals, key=len)
    schedule = host.module("otcache_core.calibration.solving").fitted([statistics], statistics.sigmas, most)
    cached = memory(case, attach.with_cache(case.model, schedule))
    assert "learnt from this run" in reports[-1].text, reports[-1].text

    extra = max(peaks["sampling"], peaks["closing"]) - max(plain.values())
    beyond = peaks["rehearsing"] - max(cached.values())
    slower = clock.recording_ms
    say(f"\n{name}, latent {list(case.latent.shape)} of {case.latent.nbytes / MIB:.0f} MiB, {STEPS} steps, euler")
    say(f"  peak of a plain run {max(plain.values()):8.1f} MiB, of a cached one {max(cached.values()):.1f} MiB")
    say(f"  recording           {peaks['sampling']:8.1f} MiB at its peak, closing the lesson {peaks['closing']:.1f} MiB")
    say(f"  rehearsing          {peaks['rehearsing']:8.1f} MiB at its peak")
    say(f"  closing the lesson  {clock.rehearsals[0] - clock.steps[-1]:8.3f} s (statistics and the graph)")
    say(f"  the file            {file.stat().st_size / 1024:8.1f} KiB")
    return all([
        judged(extra <= LIMIT_MIB, f"recording and closing: {extra:+.1f} MiB over a plain run, limit {LIMIT_MIB}"),
        judged(beyond <= LIMIT_MIB, f"rehearsing: {beyond:+.1f} MiB over a cached run, limit {LIMIT_MIB}"),
        judged(slower <= LIMIT_SHARE * STEP_MS, f"recording: {slower:.3f} ms a step, {slower / STEP_MS:.2%} of {STEP_MS} ms, "
               f"limit {LIMIT_SHARE:.0%}"),
    ])  # fmt: skip


def solving(host) -> bool:
    """Prints what a schedule costs, from the demo model's lesson; returns whether the limit is kept."""
    from quality import CALIBRATION_SCENES, CFG, demo
    from sampling import ksampler

    auto, learned = host.module("nodes.host.auto"), host.module("nodes.host.learned")
    solve = host.module("otcache_core.calibration.solving").solve
    case = demo(host, CALIBRATION_SCENES, 1)
    ksampler(host, case, auto.with_auto_cache(case.model, auto.Target(auto.BY_BUDGET)), steps=STEPS, cfg=CFG)
    most = 0.0
    say(f"\nSolving a schedule for {STEPS} steps, embedded model, what was learnt just read from its file:")
    for budget in BUDGETS:
        learned._read.clear()
        known = learned.recall(learned.model_key(case.model))
        begin = thread_time()
        solve(known, known[0].sigmas, budget)
        taken = thread_time() - begin
        most = max(most, taken)
        say(f"  B = {budget:2}: {taken:.3f} s")
    return judged(most <= LIMIT_SOLVE, f"solving: {most:.3f} s, limit {LIMIT_SOLVE:g} s")


def judged(kept: bool, text: str) -> bool:
    say(f"  {'kept  ' if kept else 'MISSED'}  {text}")
    return kept


def main() -> int:
    with tempfile.TemporaryDirectory() as base:
        host = boot_host(Path(base))
        kept = [learning(host, name) for name in SIZES]
        return 0 if all([*kept, solving(host)]) else 1


if __name__ == "__main__":
    sys.exit(main())
