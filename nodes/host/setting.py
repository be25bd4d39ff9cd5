"""What a calibration runs with, but for the model: the inputs of a KSampler, read once and told apart by a fingerprint."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.sample
import comfy.samplers
import torch

from ...otcache_core.errors import OTCacheError
from ...otcache_core.sampling.layout import Layout
from .identity import fingerprint

SEEDS = 2**64  # so many there are in ComfyUI


@dataclass(frozen=True)
class Case:
    """One picture of a calibration: which conditioning, and the seed of its noise. `mark` tells prompts apart."""

    prompt: int
    seed: int
    mark: str

    def __str__(self) -> str:
        return f"prompt {self.mark}, seed {self.seed}"


@dataclass(frozen=True)
class Setting:
    """What a calibration runs with, but for the model: all that a KSampler is given.

    positives: one conditioning a prompt. latent: one latent dict of batch 1, nested where it is of picture and sound. sigmas:
    float32 [N + 1] on the CPU.
    """

    positives: tuple[list, ...]
    negative: list
    latent: dict[str, Any]
    sigmas: torch.Tensor
    cfg: float
    cases: tuple[Case, ...]
    sampler: str
    scheduler: str

    @property
    def shapes(self) -> list[torch.Size]:
        """Of the latent's parts, one unless it is nested."""
        samples = self.latent["samples"]
        return [part.shape for part in samples.unbind()] if samples.is_nested else [samples.shape]

    @property
    def layout(self) -> Layout:
        """Of the latent as samplers are handed it."""
        return Layout(self.shapes)

    def fingerprint(self) -> str:
        """Equal for equal settings, in this process and others."""
        cases = [(case.prompt, case.seed) for case in self.cases]
        return fingerprint(self.sigmas, self.latent, self.positives, self.negative, self.cfg, cases)


def prompts(conditionings: Sequence[list]) -> tuple[list, ...]:
    """One conditioning a prompt, from a list of conditionings in which one may hold a batch of prompts [b, tokens, width]."""
    found = []
    for conditioning in conditionings:
        batch = max(entry[0].shape[0] for entry in conditioning)
        for row in range(batch):
            found.append([_row(entry, row, batch) for entry in conditioning])
    return tuple(found)


def _row(entry: list, row: int, batch: int) -> list:
    def one(value):
        return value[row : row + 1] if isinstance(value, torch.Tensor) and value.ndim and value.shape[0] == batch else value

    return [one(entry[0]), {name: one(value) for name, value in entry[1].items()}] if batch > 1 else entry


def make_setting(
    model, positives: Sequence[list], negative: list, latent: dict, seed: int, count: int, steps: int, cfg: float,
    sampler: str, scheduler: str, denoise: float,
) -> Setting:  # fmt: skip
    """The setting for at least `count` cases: every prompt once, further ones with further seeds, which wrap at 2**64.

    Raises `OTCacheError` for what cannot be calibrated on.
    """
    samples = latent["samples"]
    # Core's empty latents say what size they mean; older versions do not know these words.
    known = inspect.signature(comfy.sample.fix_empty_latent_channels).parameters
    meant = {name: latent[name] for name in known if name.startswith("downscale_ratio") and name in latent}
    samples = comfy.sample.fix_empty_latent_channels(model, samples[:1].cpu(), **meant)
    found = prompts(positives)
    grid = comfy.samplers.KSampler(model, steps, torch.device("cpu"), sampler, scheduler, denoise).sigmas.float().cpu()
    if len(grid) < 3:
        raise OTCacheError(f"steps {steps} and denoise {denoise} leave {max(len(grid) - 1, 0)} steps; calibrate on more steps.")
    cases = tuple(
        Case(i % len(found), (seed + i) % SEEDS, fingerprint(found[i % len(found)])[:8]) for i in range(max(count, len(found)))
    )
    mask = {"noise_mask": latent["noise_mask"][:1]} if latent.get("noise_mask") is not None else {}
    return Setting(found, negative, {"samples": samples, **mask}, grid, cfg, cases, sampler, scheduler)
