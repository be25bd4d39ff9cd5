"""How near cached pictures are to the full run's, through the nodes in the real ComfyUI: python benchmarks/quality.py

Calibrates with the nodes on scenes of the embedded demo model, then samples others. Every row makes the same number of model
evaluations; core EasyCache and LazyCache get the threshold that comes nearest to it from above, and the best of three start
percents. Exits with 1 when OTCache is not 8 dB better than LazyCache and dpmpp_2m.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

from booted import boot_host, say

STEPS, CFG = 50, 7.5
BUDGETS = (8, 10, 12, 15)
JUDGED = (8, 10, 15)
MARGIN = 8.0  # dB
CALIBRATION_SCENES, HELD_OUT_SCENES = 1000, 3000
OURS = "OTCache, output"


def demo(host, number: int, count: int) -> SimpleNamespace:
    """`count` random scenes of the demo model."""
    names = ("model", "positive", "negative", "vae", "latent")
    return SimpleNamespace(**dict(zip(names, host.run("OTDemoModel", random_scenes=number, batch_size=count), strict=True)))


def psnr(vae, samples, full):
    """dB of each picture, [n]."""
    return -10 * (vae.decode(samples) - vae.decode(full)).square().flatten(1).mean(1).log10()


def rows(host, new, options: dict, budget: int, schedule):
    """(name, evaluations, samples) of every way to sample with `budget` evaluations."""
    from sampling import Cached, core_cache, ksampler

    for name, level in ((OURS, "output"), ("OTCache, transformer blocks", "blocks")):
        cached = Cached(host, new.model, schedule, level)
        samples = ksampler(host, new, cached.model, **options)
        yield name, cached.reports[0].evaluations, samples
    full = ksampler(host, new, **options)
    for node in ("EasyCache", "LazyCache"):
        found = core_cache(host, new, node, budget, options)
        evaluations, samples = max(found, key=lambda pair: float(psnr(new.vae, pair[1], full).mean()))
        yield f"core {node}", evaluations, samples
    for name in ("dpmpp_2m", "euler"):
        yield f"{name}, {budget} steps", budget, ksampler(host, new, **options | {"steps": budget, "sampler_name": name})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=8, help="calibration scenes (%(default)s)")
    parser.add_argument("--held-out", type=int, default=16, help="scenes to measure on (%(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        host = boot_host(Path(base))
        from sampling import ksampler

        old, new = demo(host, CALIBRATION_SCENES, arguments.cases), demo(host, HELD_OUT_SCENES, arguments.held_out)
        reference, calibration, _ = host.run("OTReferenceSchedule", model=old.model, positive=old.positive,
                                             negative=old.negative, latent_image=old.latent, seed=100)  # fmt: skip
        anchor, _, summary = host.run("OTAnchorSearch", model=old.model, vae=old.vae, calibration=calibration,
                                      reference=reference)  # fmt: skip
        say(summary)
        options = {"steps": STEPS, "cfg": CFG, "seed": 77}
        full = ksampler(host, new, **options)
        say(f"\nPSNR in dB against the full run, {arguments.held_out} other scenes, {STEPS} euler steps, CFG {CFG:g}")
        kept = True
        for budget in BUDGETS:
            schedule, _ = host.run("OTBudgetInterpolate", reference=reference, anchor=anchor, budget=budget)
            means = {}
            say(f"\n  {budget} evaluations{'':20} evaluations      mean     worst")
            for name, evaluations, samples in rows(host, new, options, budget, schedule):
                values = psnr(new.vae, samples, full)
                means[name] = float(values.mean())
                say(f"  {name:34} {evaluations:9} {means[name]:9.2f} {float(values.min()):9.2f}")
            if budget in JUDGED:
                kept &= means[OURS] >= max(means["core LazyCache"], means[f"dpmpp_2m, {budget} steps"]) + MARGIN
        say(f"\nContract, {MARGIN:g} dB above LazyCache and dpmpp_2m at {JUDGED} evaluations: {'kept' if kept else 'MISSED'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
