"""Reusing transformer blocks beside reusing the output, by sampler and guidance: python benchmarks/block_reuse.py

The embedded demo model learns from one ordinary run, then draws other scenes at both levels with the same schedules. Exits
with 1 when a contract is missed: on Euler at most 3 dB below output level at every budget, on samplers that add noise not
below it by more than a mean over so many scenes can tell.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from booted import say
from first_run import Bench
from quality import CALIBRATION_SCENES, ours, psnr

STEPS = 50
BUDGETS = (8, 10, 15)
GUIDANCE = (7.5, 4.0)
SAMPLERS = {"euler": 3.0, "euler_ancestral": 0.0, "er_sde": 0.0}  # and how many dB blocks may be below the output
TWO_ERRORS = 2  # of the mean difference, in standard errors


def held(run, sigma: float, steps):
    """The newest evaluation alone; in place of `HostRun._block_weights`."""
    return [[1.0]]


def ways(bench: Bench, schedule, options: dict) -> dict:
    """Samples at output level, at blocks level, and there with the newest evaluation held."""
    run = bench.host.module("nodes.host.run").HostRun
    samples = {level: ours(bench.host, bench.new, options, schedule, level)[1] for level in ("output", "blocks")}
    weights = run._block_weights
    run._block_weights = held
    try:
        return samples | {"held": ours(bench.host, bench.new, options, schedule, "blocks")[1]}
    finally:
        run._block_weights = weights


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--held-out", type=int, default=24, help="scenes to measure on (%(default)s)")
    parser.add_argument("--samplers", nargs="+", choices=tuple(SAMPLERS), default=tuple(SAMPLERS), help="(all)")
    arguments = parser.parse_args()
    kept = True
    with tempfile.TemporaryDirectory() as base:
        bench = Bench(Path(base), CALIBRATION_SCENES, 1, arguments.held_out)
        bench.learn(STEPS)
        known = bench.learnt()
        solve = bench.host.module("otcache_core.calibration.solving").solve
        say(f"\nMean dB against the full run, {STEPS} steps, {arguments.held_out} other scenes; difference: blocks less output")
        say(f"\n  {'':16} CFG {'evaluations':>11} {'output':>8} {'blocks':>8} {'newest held':>12} {'difference':>15}")
        for sampler in arguments.samplers:
            for cfg in GUIDANCE:
                options = {"steps": STEPS, "cfg": cfg, "seed": 77, "sampler_name": sampler}
                full = bench.sample(bench.new, **options)
                for budget in BUDGETS:
                    schedule = solve(known, known[0].sigmas, budget)
                    found = {name: psnr(bench.new.vae, samples, full)
                             for name, samples in ways(bench, schedule, options).items()}  # fmt: skip
                    apart = found["blocks"] - found["output"]
                    error = float(apart.std()) / len(apart) ** 0.5
                    met = float(apart.mean()) >= -(SAMPLERS[sampler] or TWO_ERRORS * error)
                    kept &= met
                    means = "{output:8.2f} {blocks:8.2f} {held:12.2f}".format(**{n: float(v.mean()) for n, v in found.items()})
                    difference = f"{float(apart.mean()):+8.2f} +- {error:.2f}"
                    say(f"  {sampler:16} {cfg:3g} {budget:11} {means} {difference}{'' if met else '  MISSED'}")
    say(f"\nContracts: {'kept' if kept else 'MISSED'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
