"""Why one picture comes out far worse than the others: python benchmarks/forks.py --budget 15

Learns from one ordinary run as OT Auto Cache does, draws scenes with that schedule, and looks at the worst beside the median
one: how much a small random kick to the full run at a step has grown by its end (a run at a fork makes much of little), how
near the picture comes when the steps up to one are all computed, or all from it on, and which further evaluations mend it.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from booted import REPOSITORY, boot_host, say

PLACES = (2, 5, 8, 12, 16, 20, 25, 30, 35, 40)  # steps, of 50
KICK = 0.01  # RMS, of a latent whose noise has one
BEST = 5  # further evaluations that are shown


def kicked(model, sigmas: np.ndarray, step: int, seed: int = 3):
    """A clone of `model` whose Euler run is moved after `step` by Gaussian noise of RMS KICK."""
    from proof_peers import step_of
    from sampler_runs import with_wrapper

    def ahead(executor, x, timestep, *args, **kwargs):
        denoised = executor(x, timestep, *args, **kwargs)
        if step_of(sigmas, float(timestep[0])) != step:
            return denoised
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)
        share = float(sigmas[step] / (sigmas[step] - sigmas[step + 1]))  # Euler: x' = x + (x - denoised) (s' - s) / s
        return denoised + KICK * noise * share

    return with_wrapper(model, ahead)


class Bench:
    """What was learnt, and some scenes with their full run."""

    def __init__(self, host, difficulty: str, scenes: int, budget: int):
        from proof_cases import SETTINGS, alone
        from proof_rows import Proof

        setting = next(each for each in SETTINGS if each.model == "flux" and each.difficulty == difficulty)
        self.proof = Proof(host, setting, scenes, 1, 0, 0)
        self.lesson, = self.proof.lessons(budget)
        self.sigmas, self.budget = np.asarray(self.lesson.sigmas), budget
        self.solving = self.proof.module("otcache_core.calibration.solving")
        self.steps = tuple(self.solving.solve([self.lesson], self.sigmas, budget).compute_steps)
        self.every = len(self.sigmas) - 1
        self._alone = alone

    def psnr(self, samples: torch.Tensor, scene: int | None = None) -> np.ndarray:
        """dB against the full run, of all scenes or one."""
        full = self.proof.pictures if scene is None else self.proof.pictures[scene : scene + 1]
        return -10 * (self.proof.new.vae.decode(samples) - full).double().square().flatten(1).mean(1).log10().numpy(force=True)

    def cached(self, steps, scene: int | None = None) -> np.ndarray:
        """dB of a run that computes `steps`, its weights fitted to them."""
        case, schedule = self.proof.new, self.solving.fitted([self.lesson], self.sigmas, sorted(steps))
        if scene is not None:
            case = self._alone(case, scene)
            case.latent["batch_index"] = [scene]  # so that its noise is that of the batch
        return self.psnr(self.proof.with_schedule(schedule, case=case)[2], scene)

    def growth(self, step: int) -> np.ndarray:
        """By how much a kick after `step` has grown at the end, [scenes]."""
        made = self.proof.run(self.proof.new, kicked(self.proof.new.model, self.sigmas, step))[2]
        return ((made - self.proof.full).square().flatten(1).mean(1).sqrt() / KICK).numpy(force=True)

    def mending(self, scene: int, steps) -> list[tuple[float, int]]:
        """(dB, step) of each further evaluation, the best first."""
        free = sorted(set(range(self.every)) - set(steps))
        return sorted(((float(self.cached({*steps, step}, scene)[0]), step) for step in free), reverse=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--difficulty", choices=("normal", "hard"), default="normal")
    parser.add_argument("--scenes", type=int, default=6, help="the first of the proof's (%(default)s)")
    parser.add_argument("--budget", type=int, default=15, help="evaluations of 50 (%(default)s)")
    parser.add_argument("--parts", nargs="+", choices=("kicks", "places", "mending"), default=("kicks", "places", "mending"))
    parser.add_argument("--places", nargs="+", type=int, default=PLACES, help="steps that are looked at (%(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        host = boot_host(Path(base))
        import comfy.utils

        comfy.utils.PROGRESS_BAR_ENABLED = False
        sys.path.append(str(REPOSITORY))  # after ComfyUI's, whose `nodes` is meant wherever that is imported
        bench = Bench(host, arguments.difficulty, arguments.scenes, arguments.budget)
        found = bench.cached(bench.steps)
        order = np.argsort(found)
        worst, middle = int(order[0]), int(order[len(order) // 2])
        say(f"B = {arguments.budget}, computed {list(bench.steps)}; dB of each scene: {np.round(found, 1).tolist()}")
        if "kicks" in arguments.parts:
            say(f"\nA kick of {KICK} after a step, grown by the end: worst scene, median scene, most and least of all others")
            for step in arguments.places:
                grown = bench.growth(step)
                others = np.delete(grown, worst)
                say(f"  {step:3}: {grown[worst]:7.2f} {grown[middle]:7.2f} {others.max():7.2f} {others.min():7.2f}")
        if "places" in arguments.parts:
            say("\ndB when all steps up to one are computed: worst scene, median scene; when all from it on are: worst, median")
            for step in arguments.places:
                ways = ({*range(step), *bench.steps}, {*range(step, bench.every), *bench.steps})
                numbers = "   ".join(f"{float(bench.cached(way, scene)[0]):6.2f}" for way in ways for scene in (worst, middle))
                say(f"  {step:3}: {numbers}")
        if "mending" in arguments.parts:
            say(f"\nFurther evaluations that help the worst scene most ({found[worst]:.2f} dB without)")
            first = bench.mending(worst, bench.steps)
            say("  one: " + ", ".join(f"{step} ({value:.1f} dB)" for value, step in first[:BEST]))
            second = bench.mending(worst, (*bench.steps, first[0][1]))
            say(f"  beside {first[0][1]}: " + ", ".join(f"{step} ({value:.1f} dB)" for value, step in second[:BEST]))
            helped = bench.cached({*bench.steps, first[0][1], second[0][1]})
            say(f"  all scenes with both: {np.round(helped, 1).tolist()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
