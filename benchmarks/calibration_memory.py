"""What a calibration holds in memory beside the model, at real latent sizes: python -m benchmarks.calibration_memory

A stand-in whose velocities cost nothing is calibrated on 4 cases of 50 steps, each size in a fresh process: the most resident
memory of each stage above what the process holds before it, mapped files included (Linux). Exits with 1 above the limit.

Of the video 1000 MB is wanted. Measured: 461, 519, 541, 469, 809 (search), 808 (guard), 547 MB; of images 773, 616, 796, 696,
697, 870 and 1147.
"""

import argparse
import subprocess
import sys
import threading
import time
from pathlib import Path

STEPS, CASES, REFERENCE, ANCHOR, TRIALS = 50, 4, 8, 4, 3
SIZES = {  # latents, and the pictures that are judged: of videos some frames one below the other
    "FLUX, 1024 x 1024": ((16, 128, 128), (1024, 1024)),
    "HunyuanVideo, 720p, 129 frames": ((16, 33, 90, 160), (8 * 720, 1280)),
}
LIMITS_MB = {"FLUX, 1024 x 1024": 1200, "HunyuanVideo, 720p, 129 frames": 1000}  # wanted; see above
STATUS = Path("/proc/self/status")


class StandIn:
    """A generator that turns each channel of its latents with the noise level, and paints their means."""

    def __init__(self, shape: tuple[int, ...], picture: tuple[int, int]):
        import torch

        self.shape, self.picture = shape, picture
        wide = (shape[0], *[1] * (len(shape) - 1))
        self.gain, self.speed = torch.randn(2, *wide, generator=torch.Generator().manual_seed(1)).unbind()

    def noise(self, case):
        import torch

        return torch.randn(self.shape, generator=torch.Generator().manual_seed(case))

    def velocity(self, x, sigma, cases):
        return x * (self.gain * (1 + sigma * self.speed).sin())

    def decode(self, x):
        import torch

        small = x.flatten(2).mean(2)[:, :3, None, None].sigmoid() * torch.linspace(0, 1, 64).view(1, 1, 8, 8)
        return torch.nn.functional.interpolate(small, self.picture, mode="nearest")


class Peak:
    """The most resident memory, in MB, since it was last asked for; looked at every few milliseconds."""

    def __init__(self):
        self.base = self._most = self.now()
        self.stages: dict[str, float] = {}
        threading.Thread(target=self._watch, daemon=True).start()

    @staticmethod
    def now() -> float:
        """Resident memory in MB."""
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024 / 1e6

    def _watch(self) -> None:
        while True:
            self._most = max(self._most, self.now())
            time.sleep(0.005)

    def lap(self, stage: str) -> None:
        """What has been reached since the last call is `stage`'s."""
        self.stages[stage] = max(self.stages.get(stage, 0.0), self._most - self.base)
        self._most = self.now()


def measure(name: str) -> None:
    """Calibrates a stand-in of the size `name` and prints a row; exits with 1 above the limit."""
    import numpy as np
    import optuna  # noqa: F401  what is imported counts as the process
    import torch

    from otcache_core.calibration.pipeline import Settings, prepare, reference_schedule
    from otcache_core.calibration.recording import analyse

    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings = Settings(budgets=(ANCHOR, REFERENCE), reference_budget=REFERENCE, anchor_budget=ANCHOR, trials=TRIALS)
    settings.check(STEPS)  # loads what judging needs
    generator, cases, grid = StandIn(*SIZES[name]), list(range(CASES)), np.linspace(1, 0, STEPS + 1)
    peak = Peak()

    def progress(stage, done, _total, _note):
        if stage != "graphs":
            peak.lap(stage)
        elif done == 1:
            peak.lap("error growth")

    observed = analyse(generator, cases, grid, 4.0, progress, most=REFERENCE)
    peak.lap("error growth")
    reference = reference_schedule(generator, observed, settings)
    peak.lap("reference")
    prepare(generator, observed, reference, settings, progress)
    stages = ("record", "error growth", "reference", "pictures", "search", "guard", "final weights")
    most = max(peak.stages.values())
    say(f"| {name} | " + " | ".join(f"{peak.stages[stage]:.0f}" for stage in stages) + f" | **{most:.0f}** |")
    sys.exit(most > LIMITS_MB[name])


def say(line: str) -> None:
    """To the terminal at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, help="only this one, in this process")
    chosen = parser.parse_args().size
    if chosen:
        measure(chosen)
    say(f"Peak in MB above the model, {CASES} cases, {STEPS} steps; limits {list(LIMITS_MB.values())}.\n")
    say("| latents | record | error growth | reference | pictures | search | guard | final weights | most |")
    say("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    command = [sys.executable, "-m", "benchmarks.calibration_memory", "--size"]
    return max([subprocess.run([*command, name]).returncode for name in SIZES])


if __name__ == "__main__":
    sys.exit(main())
