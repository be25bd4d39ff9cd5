"""The three models that proof.py measures on, each with a normal and a hard setting, as cases for ComfyUI's nodes."""

import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from booted import REPOSITORY
from quality import demo

STEPS = 50


@dataclass(frozen=True)
class Setting:
    """How a model is sampled. shift: of its noise levels, None for its own. reads: the ComfyUI class of its network."""

    model: str
    difficulty: str
    reads: str
    cfg: float
    scheduler: str = "simple"
    sampler: str = "euler"
    shift: float | None = None

    @property
    def name(self) -> str:
        return f"{self.model}, {self.difficulty}"

    @property
    def text(self) -> str:
        shift = "" if self.shift is None else f", shift {self.shift:g}"
        return f"{self.reads}, {STEPS} {self.sampler} steps, {self.scheduler}, CFG {self.cfg:g}{shift}"


SETTINGS = (
    Setting("flux", "normal", "Flux, flow", 7.5),
    Setting("flux", "hard", "Flux, flow", 18.0),
    Setting("unet", "normal", "SD 1.5's U-Net, noise", 5.0, "karras"),
    Setting("unet", "hard", "SD 1.5's U-Net, noise", 32.0, "karras"),
    Setting("video", "normal", "Wan 2.1, flow", 4.0, shift=3.0),
    Setting("video", "hard", "Wan 2.1, flow", 20.0, shift=3.0),
)


class DrawnVAE:
    """The linear autoencoder with the method by which ComfyUI's nodes decode: pictures [n, H, W, 3], clips [n, T, H, W, 3]."""

    def __init__(self, autoencoder):
        self._autoencoder = autoencoder

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [n, 16, h, w], or of clips [n, 16, T, h, w]."""
        if latents.ndim == 4:
            return self._autoencoder.decode(latents.float()).movedim(1, -1)
        frames = latents.movedim(2, 1)
        return self._autoencoder.decode(frames.flatten(0, 1).float()).unflatten(0, frames.shape[:2]).movedim(2, -1)


def cases(host, setting: Setting, number: int, count: int) -> SimpleNamespace:
    """`count` random scenes of the set `number`: model, positive, negative, vae and latent, as nodes take them."""
    found = demo(host, number, count) if setting.model == "flux" else drawn(setting.model, number, count)
    if setting.shift is not None:
        node = "ModelSamplingAuraFlow" if setting.model == "flux" else "ModelSamplingSD3"  # whether time is sigma or 1000 of it
        found.model, = host.run(node, model=found.model, shift=setting.shift)
    return found


_loaded: dict = {}  # one model a process, as a loader node keeps it


def drawn(kind: str, number: int, count: int) -> SimpleNamespace:
    """Cases of a model of `trained`."""
    if str(REPOSITORY) not in sys.path:  # after ComfyUI's folders, whose `nodes` is meant wherever that is imported
        sys.path.append(str(REPOSITORY))
    from trained import drawings
    from trained.models import MODELS, load

    if kind not in _loaded:
        _loaded[kind] = load(kind)
    scenes, drifts = drawings.sample_scenes(count, np.random.default_rng(number))
    prompts = drawings.tokens(scenes, drifts if kind == "video" else None)
    return SimpleNamespace(
        model=_loaded[kind].clone(), positive=[[prompts, {}]], negative=[[torch.zeros_like(prompts[:1]), {}]],
        vae=DrawnVAE(drawings.autoencoder()), latent={"samples": torch.zeros(count, *MODELS[kind].latent)},
    )  # fmt: skip


def picked(cases: SimpleNamespace, numbers: slice) -> SimpleNamespace:
    """Some scenes of a batch as a batch of their own."""
    (context, options), = cases.positive
    some = {name: value[numbers] if torch.is_tensor(value) else value for name, value in options.items()}
    latent = {"samples": cases.latent["samples"][numbers]}
    return SimpleNamespace(**vars(cases) | {"positive": [[context[numbers], some]], "latent": latent})


def alone(cases: SimpleNamespace, number: int) -> SimpleNamespace:
    """The scene `number` of a batch as a batch of one."""
    return picked(cases, slice(number, number + 1))


def first(cases: SimpleNamespace, count: int) -> SimpleNamespace:
    """The first `count` scenes of a batch."""
    return picked(cases, slice(count))
