"""What judging a picture costs: seconds of each metric beside torchmetrics' MS-SSIM, in one run.

Run: python -m benchmarks.judging [--sizes 512 1024]   (needs requirements-dev.txt)
"""

import argparse
import sys
import time
from collections.abc import Callable

import torch
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from otcache_core.calibration.metrics import DEFAULT, distance, rmse

REPEATS = 2
ERRORS = {"usual": 0.05, "nearly equal": 1e-3}


def pair(size: int, error: float, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A soft picture [1, 3, size, size] with a little noise, and itself."""
    random = torch.Generator().manual_seed(0)
    soft = torch.nn.functional.interpolate(torch.rand(1, 3, 32, 32, generator=random), size, mode="bicubic").clamp(0, 1)
    noisy = (soft + error * torch.randn(soft.shape, generator=random)).clamp(0, 1)
    return noisy.to(device), soft.to(device)


def published(images: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """What gives 1 - MS-SSIM to three digits with torchmetrics: float32, and float64 where pictures are nearly equal."""
    options = {"data_range": 1.0, "reduction": "none", "normalize": "relu"}
    value = multiscale_structural_similarity_index_measure(images, references, **options)
    if (1 - value).min() < 1e-3:
        value = multiscale_structural_similarity_index_measure(images.double(), references.double(), **options)
    return value


def seconds(function: Callable, *arguments) -> float:
    """The least of `REPEATS` runs: processor time of one thread, whatever else runs there, or a GPU's."""
    clock = time.process_time if arguments[0].device.type == "cpu" else time.perf_counter
    taken = []
    for _ in range(REPEATS):
        begin = clock()
        value = function(*arguments)
        if torch.is_tensor(value):
            value.cpu()
        taken.append(clock() - begin)
    return min(taken)


def write(line: str) -> None:
    """To the terminal at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024], help="sides in pixels (%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    write(f"Seconds a picture on {device}, one thread.\n")
    write("| pictures | side | " + DEFAULT + " | rmse | torchmetrics MS-SSIM | ratio |")
    write("|---|---:|---:|---:|---:|---:|")
    for name, error in ERRORS.items():
        for size in options.sizes:
            both = pair(size, error, device)
            ours, plain, theirs = (seconds(function, *both) for function in (distance(DEFAULT), rmse, published))
            write(f"| {name} | {size} | {ours:.3f} | {plain:.4f} | {theirs:.2f} | {theirs / ours:.0f} |")


if __name__ == "__main__":
    sys.exit(main())
