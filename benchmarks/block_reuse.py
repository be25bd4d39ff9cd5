"""What weighing the last evaluations gains when transformer blocks are reused: python benchmarks/block_reuse.py

The embedded demo model learns from one ordinary Euler run, then draws other scenes at both levels with the same schedules, and
with the newest residuals held. Exits with 1 where blocks are more than 3 dB below the output. (Where a sampler adds noise
blocks give way to the output: benchmarks/samplers.py.)
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
BELOW = 3.0  # dB that blocks may be below the output


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
    arguments = parser.parse_args()
    kept = True
    with tempfile.TemporaryDirectory() as base:
        bench = Bench(Path(base), CALIBRATION_SCENES, learners=1, cases=1, held_out=arguments.held_out)
        known = bench.learn(STEPS, max(BUDGETS))
        solve = bench.host.module("otcache_core.calibration.solving").solve
        say(f"\nMean dB against the full run, {STEPS} steps, {arguments.held_out} other scenes; difference: blocks less output")
        say(f"\n  CFG {'evaluations':>11} {'output':>8} {'blocks':>8} {'newest held':>12} {'difference':>15}")
        for cfg in GUIDANCE:
            options = {"steps": STEPS, "cfg": cfg, "seed": 77}
            full = bench.sample(bench.new, **options)
            for budget in BUDGETS:
                schedule = solve(known, known[0].sigmas, budget)
                found = {name: psnr(bench.new.vae, samples, full) for name, samples in ways(bench, schedule, options).items()}
                apart = found["blocks"] - found["output"]
                met = float(apart.mean()) >= -BELOW
                kept &= met
                means = "{output:8.2f} {blocks:8.2f} {held:12.2f}".format(**{n: float(v.mean()) for n, v in found.items()})
                difference = f"{float(apart.mean()):+8.2f} +- {float(apart.std()) / len(apart) ** 0.5:.2f}"
                say(f"  {cfg:3g} {budget:11} {means} {difference}{'' if met else '  MISSED'}")
    say(f"\nContracts: {'kept' if kept else 'MISSED'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
