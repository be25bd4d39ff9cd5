"""How near cached pictures are to the full run's, through the nodes in the real ComfyUI: python benchmarks/quality.py

Calibrates with the nodes on scenes of the embedded demo model, then samples others. Every row makes the same number of model
evaluations; core EasyCache and LazyCache get the threshold that comes nearest to it from above, and the best of three start
percents. Exits with 1 when OTCache is not 8 dB better than LazyCache and dpmpp_2m.
"""

import argparse
import sys
import tempfile
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

from booted import boot_host, say

STEPS, CFG = 50, 7.5
BUDGETS = (8, 10, 12, 15)
JUDGED = (8, 10, 15)
AHEAD = 8.0  # dB
CALIBRATION_SCENES, HELD_OUT_SCENES = 1000, 3000
OURS = "OTCache, output"
PLAIN = ("dpmpp_2m", "euler")


def demo(host, number: int, count: int) -> SimpleNamespace:
    """`count` random scenes of the demo model."""
    names = ("model", "positive", "negative", "vae", "latent")
    return SimpleNamespace(**dict(zip(names, host.run("OTDemoModel", random_scenes=number, batch_size=count), strict=True)))


def psnr(vae, samples, full):
    """dB of each picture, [n]."""
    return -10 * (vae.decode(samples) - vae.decode(full)).square().flatten(1).mean(1).log10()


def calibrated(host, old, reference: dict, anchor: dict, cfg: float = CFG):
    """Calibrates on the cases `old` with the nodes; returns (schedule of a budget, the anchor's summary).

    reference, anchor: widgets of OT Reference Schedule and OT Anchor Search that differ from their defaults.
    """
    first, calibration, _ = host.run("OTReferenceSchedule", model=old.model, positive=old.positive, negative=old.negative,
                                     latent_image=old.latent, seed=100, cfg=cfg, **reference)  # fmt: skip
    last, _, summary = host.run("OTAnchorSearch", model=old.model, vae=old.vae, calibration=calibration, reference=first,
                                **anchor)  # fmt: skip
    return lambda budget: host.run("OTBudgetInterpolate", reference=first, anchor=last, budget=budget)[0], summary


def ours(host, new, options: dict, schedule, level: str = "output"):
    """(evaluations, samples) under `schedule`."""
    from sampling import Cached, ksampler

    cached = Cached(host, new.model, schedule, level)
    samples = ksampler(host, new, cached.model, **options)
    return cached.reports[0].evaluations, samples


def rivals(host, new, options: dict, budget: int, full, seen: dict | None):
    """(name, evaluations, samples) of every other way to sample with `budget` evaluations.

    seen: of `core_cache`; None leaves ComfyUI's own caches out.
    """
    from sampling import core_cache, ksampler

    for node in () if seen is None else ("EasyCache", "LazyCache"):
        found = core_cache(host, new, node, budget, options, seen=seen)
        evaluations, samples = max(found, key=lambda pair: float(psnr(new.vae, pair[1], full).mean()))
        yield f"core {node}", evaluations, samples
    for name in PLAIN:
        samples = ksampler(host, new, **options | {"steps": budget, "sampler_name": name})
        yield plain_steps(name, budget), budget, samples


def plain_steps(sampler: str, budget: int) -> str:
    """The row of a sampler without a cache."""
    return f"{sampler}, {budget} steps"


def table(new, full, budget: int, rows) -> dict[str, float]:
    """Prints `rows` of (name, evaluations, samples) beside the samples `full`; returns the mean dB of each.

    samples: of one run, or a list of those of several alike, whose means are printed too.
    """
    means = {}
    say(f"\n  {f'{budget} evaluations':34} evaluations      mean     worst")
    for name, evaluations, samples in rows:
        values = [psnr(new.vae, run, full) for run in (samples if isinstance(samples, list) else [samples])]
        each = [float(value.mean()) for value in values]
        means[name] = sum(each) / len(each)
        worst = min(float(value.min()) for value in values)
        apart = "   means of each: " + ", ".join(f"{mean:.2f}" for mean in sorted(each)) if len(each) > 1 else ""
        say(f"  {name:34} {evaluations:11} {means[name]:9.2f} {worst:9.2f}{apart}")
    return means


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=8, help="calibration scenes (%(default)s)")
    parser.add_argument("--held-out", type=int, default=16, help="scenes to measure on (%(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        host = boot_host(Path(base))
        from sampling import ksampler

        old, new = demo(host, CALIBRATION_SCENES, arguments.cases), demo(host, HELD_OUT_SCENES, arguments.held_out)
        schedule_of, summary = calibrated(host, old, {}, {})
        say(summary)
        options = {"steps": STEPS, "cfg": CFG, "seed": 77}
        full = ksampler(host, new, **options)
        say(f"\nPSNR in dB against the full run, {arguments.held_out} other scenes, {STEPS} euler steps, CFG {CFG:g}")
        kept, seen = True, {}
        for budget in BUDGETS:
            schedule = schedule_of(budget)
            cached = ((OURS, "output"), ("OTCache, transformer blocks", "blocks"))
            rows = ((name, *ours(host, new, options, schedule, level)) for name, level in cached)
            means = table(new, full, budget, chain(rows, rivals(host, new, options, budget, full, seen)))
            if budget in JUDGED:
                kept &= means[OURS] >= max(means["core LazyCache"], means[plain_steps("dpmpp_2m", budget)]) + AHEAD
        say(f"\nContract, {AHEAD:g} dB above LazyCache and dpmpp_2m at {JUDGED} evaluations: {'kept' if kept else 'MISSED'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
