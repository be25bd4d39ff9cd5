"""Whether two models are the same: a few numbers of their full runs, compared but for rounding."""

import hashlib
import json
from collections.abc import Iterable

import numpy as np
import torch

TOLERANCE = 1e-3  # relative; on the demo model guidance 7.49 for 7.5 changes velocities half-way by 1.5e-3 to 3e-3
SAMPLES = 16
RUNS = "full runs"  # the name under which a study and a log keep the signature of their model
GOLDEN = 0.5 * (5**0.5 - 1)

Signature = list[list[list[float]]]  # [case][part][sample]


def spread(numbers: np.ndarray, size: int) -> np.ndarray:
    """Places int64 among `size` elements for consecutive `numbers`: evenly spread, however many there are."""
    return (numbers * GOLDEN % 1 * size).astype(np.int64)


def samples(tensor: torch.Tensor, count: int = SAMPLES) -> list[float]:
    """`count` elements of `tensor`, spread evenly over it, to six digits."""
    index = np.unravel_index(spread(np.arange(1, count + 1), tensor.numel()), tensor.shape)
    values = tensor[tuple(torch.from_numpy(axis).to(tensor.device) for axis in index)]
    return [float(f"{value:.6g}") for value in values.tolist()]


def signature(trajectories: Iterable, pictures: Iterable[torch.Tensor]) -> Signature:
    """Samples of every full run: its first velocity, that half-way, the final latent, and its picture.

    Of large latents they are of what is recorded.
    """
    return [
        [samples(part) for part in (run.d[0], run.d[run.steps // 2], run.x[-1], picture)]
        for run, picture in zip(trajectories, pictures, strict=True)
    ]


def alike(a: object, b: Signature) -> bool:
    """Whether every part of every run is the same but for rounding; False where `a`, read from a file, is no signature."""
    try:
        a, b = (np.asarray(value, dtype=np.float64) for value in (a, b))
    except (TypeError, ValueError, OverflowError):
        return False
    if a.shape != b.shape or a.ndim != 3:
        return False
    return bool((np.linalg.norm(a - b, axis=-1) <= TOLERANCE * np.linalg.norm(b, axis=-1)).all())


def digest(value) -> str:
    """16 hexadecimal digits that tell what JSON can hold from anything else."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def name_of_model(name: str, runs: Signature, known: Iterable[tuple[str, object]]) -> str:
    """`name` and something: under it lie the measurements of the model whose full runs these are.

    known: names that are in use, with the signature found there; that of another model, or none, is passed over.
    """
    for used, theirs in known:
        if alike(theirs, runs):
            return used
    # The name has the runs in it: two models that begin at the same moment do not get one name.
    return f"{name}-{digest(runs)}"
