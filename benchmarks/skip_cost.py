"""What a skipped step costs, and how much of the ideal speed-up is reached: python benchmarks/skip_cost.py

One process, the real ComfyUI on one CPU thread, the embedded demo model. Finds ComfyUI as the tests do (tools/find_host.py)
and exits with 1 when the contract is missed: a skipped step at output level within a fifth of core EasyCache's, and at least
97 % of the ideal speed-up on a model whose step takes 100 ms.
"""

import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter, sleep, thread_time

from booted import boot_host, say

STEPS = 50
RUNS = 12  # of 50 steps, for the cost of a step
REPEATS = 3  # of each timed run
STEP_SECONDS = 0.1
BUDGETS = (8, 10, 15, 25)
SHARE_OF_EASYCACHE = 1 / 5
SHARE_OF_IDEAL = 0.97


class Bench:
    """The booted host with the demo model, and runs of it."""

    def __init__(self, base: Path):
        self.host = boot_host(base)
        self.model, self.positive, self.negative, _, latent = self.host.run("OTDemoModel")
        self.latent = latent["samples"]
        self.blocks_ran = False
        self.model.model.diffusion_model.double_blocks[0].register_forward_pre_hook(self._note)

    def _note(self, *_):
        self.blocks_ran = True

    def schedule(self, budget: int, kind: str = "fitted"):
        """`budget` of 50 even steps; fitted weights are for two bands, as calibration makes them."""
        import numpy as np

        library = self.host.module("otcache_core.schedules.schedule")
        return library.make_schedule(
            sigmas=tuple(np.linspace(1, 0, STEPS + 1)),
            compute_steps=library.uniform_steps(budget, STEPS),
            predictor=library.Predictor(kind=kind, bands=2 if kind == "fitted" else 1),
            weights=tuple(((1.2, -0.3, 0.1)[: k + 1]) * 2 for k in range(budget)) if kind == "fitted" else None,
            spans=(4,) * budget,
        )

    def cached(self, model, schedule, level: str = "output"):
        return self.host.module("nodes.host.attach").with_cache(model, schedule, level)

    def sample(self, model, cfg: float, callback=None) -> None:
        import comfy.sample
        import torch

        with torch.inference_mode():
            noise = comfy.sample.prepare_noise(self.latent, 1)
            comfy.sample.sample(model, noise, STEPS, cfg, "euler", "simple", self.positive, self.negative, self.latent,
                                callback=callback, disable_pbar=True, seed=1)  # fmt: skip

    def skipped(self, model, cfg: float) -> list[float]:
        """CPU seconds of every sampler step in which no transformer block ran, of `RUNS` runs after one to warm up."""
        seconds = []

        def callback(*_):
            now = thread_time()
            if self.last is not None and not self.blocks_ran:
                seconds.append(now - self.last)
            self.blocks_ran = False
            self.last = thread_time()

        for run in range(RUNS + 1):
            self.last, self.blocks_ran = None, False
            self.sample(model, cfg, callback)
            if run == 0:
                seconds.clear()
        return seconds

    def bare(self):
        """The model replaced by identity where the sampler calls it."""
        from comfy.patcher_extension import WrappersMP

        model = self.model.clone()
        model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "bare", lambda executor, x, *args: x)
        return model

    def other(self, name: str):
        """Core EasyCache or LazyCache, set to skip as often as it can."""
        return self.host.run(name, model=self.model, reuse_threshold=3.0, start_percent=0.0, end_percent=1.0)[0]

    def slow(self):
        """The demo model with forward passes that take `STEP_SECONDS`, its own work included."""
        from comfy.patcher_extension import WrappersMP

        def forward(executor, *args, **kwargs):
            end = perf_counter() + STEP_SECONDS
            out = executor(*args, **kwargs)
            sleep(max(end - perf_counter() - 0.002, 0))
            while perf_counter() < end:
                pass
            return out

        model = self.model.clone()
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "slow", forward)
        return model

    def wall(self, model) -> float:
        """Median wall seconds of `REPEATS` runs."""
        seconds = []
        for _ in range(REPEATS):
            start = perf_counter()
            self.sample(model, 1.0)
            seconds.append(perf_counter() - start)
        return median(seconds)


def skipped_steps(bench: Bench) -> bool:
    say("Cost of one skipped step: median CPU time of a whole sampler step in which no transformer block ran (thread clock,")
    say(f"from one step callback to the next), euler, {STEPS} steps, {RUNS} runs, latent {list(bench.latent.shape)}.")
    few = bench.schedule(8)
    rows = [
        ("bare sampler loop (model replaced by identity)", bench.bare()),
        ("OTCache, output, fitted weights of two bands", bench.cached(bench.model, few)),
        ("OTCache, output, linear extrapolation", bench.cached(bench.model, bench.schedule(8, "linear"))),
        ("OTCache, output, mean velocity of 4 steps", bench.cached(bench.model, bench.schedule(8, "mean_velocity"))),
        ("OTCache, transformer blocks", bench.cached(bench.model, few, "blocks")),
        ("core LazyCache", bench.other("LazyCache")),
        ("core EasyCache", bench.other("EasyCache")),
    ]
    kept = True
    for cfg in (1.0, 4.0):
        costs = {}
        say(f"\n  CFG {cfg:g}{'':43} median ms   mean ms    steps  of EasyCache")
        measured = {name: bench.skipped(model, cfg) for name, model in rows}
        easy = median(measured["core EasyCache"])
        for name, seconds in measured.items():
            costs[name] = median(seconds)
            mean = sum(seconds) / len(seconds)
            say(f"  {name:48} {1e3 * costs[name]:10.4f} {1e3 * mean:9.4f} {len(seconds):8} {costs[name] / easy:12.1%}")
        kept &= all(cost <= easy * SHARE_OF_EASYCACHE for name, cost in costs.items() if name.startswith("OTCache, output"))
    say(f"\n  Contract, output level at most {SHARE_OF_EASYCACHE:.0%} of EasyCache: {'kept' if kept else 'MISSED'}")
    return kept


def share_of_ideal(bench: Bench) -> bool:
    say(f"\nShare of the ideal speed-up {STEPS}/B on a model whose forward pass takes {1e3 * STEP_SECONDS:.0f} ms: median")
    say(f"wall time of {REPEATS} whole runs (preparation included), euler, {STEPS} steps, CFG 1, output level, fitted weights.")
    slow = bench.slow()
    bench.sample(bench.cached(bench.model, bench.schedule(8)), 1.0)
    full = bench.wall(slow)
    say(f"\n  full run: {full:.3f} s\n     B   seconds   speed-up     ideal    share")
    kept = True
    for budget in BUDGETS:
        taken = bench.wall(bench.cached(slow, bench.schedule(budget)))
        share = full / taken * budget / STEPS
        kept &= share >= SHARE_OF_IDEAL
        say(f"  {budget:4} {taken:9.3f} {full / taken:9.3f}x {STEPS / budget:8.3f}x {share:8.2%}")
    say(f"\n  Contract, at least {SHARE_OF_IDEAL:.0%} of the ideal: {'kept' if kept else 'MISSED'}")
    return kept


def main() -> int:
    with tempfile.TemporaryDirectory() as base:
        bench = Bench(Path(base))
        return 0 if all([skipped_steps(bench), share_of_ideal(bench)]) else 1


if __name__ == "__main__":
    sys.exit(main())
