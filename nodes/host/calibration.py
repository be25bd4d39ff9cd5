"""Recording and rolling out on the user's own model: the library's `Generator`, driven from inside one ComfyUI sampling.

A calibration is one long sampling run whose sampler is the work itself: the model is loaded, patched and hooked exactly as
for a KSampler, and stays so while the work asks for velocities.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import torch

from ...otcache_core.calibration.full_runs import repeats
from ...otcache_core.calibration.recording import Observed
from ...otcache_core.errors import OTCacheError
from ...otcache_core.sampling.rollout import Counted
from .attach import refuse_other_caches, without_cache
from .setting import Case, Setting

Result = TypeVar("Result")
FRAMES = 8  # of a video that are judged
GLIMPSE = 2  # frames of a video's latent at its beginning, in its middle and at its end, which alone are decoded


@dataclass(frozen=True)
class Calibration:
    """The value of an OT_CALIBRATION link: what was recorded, and with what.

    seconds: of one evaluation, on average. model, conditions: fingerprints of the model and the setting before the run.
    """

    setting: Setting
    observed: Observed
    seconds: float
    model: str
    conditions: str

    def check(self, generator, model: str) -> None:
        """Raise `OTCacheError` if a model whose fingerprint is `model`, run by `generator`, is not the one recorded.

        Another fingerprint alone does not tell: what objects on the model hold may have changed while it ran. Then one
        evaluation does.
        """
        if model != self.model and not repeats(generator, self.setting.cases[0], self.observed.trajectories[0]):
            raise OTCacheError(
                "The model is not the one that was recorded (another checkpoint, LoRA, strength, shift or patch); connect the "
                "recorded one, or calibrate this one with OT Reference Schedule."
            )


def run_on_model(
    model, setting: Setting, work: Callable[[Counted], Result], vae=None, tick: Callable[[int], None] | None = None
) -> Result:
    """`work(generator)` on `model` in one sampling run; returns what it returns. `tick(evaluations)` after each of them.

    A cache of ours on the model is left out. Raises `OTCacheError` when another cache is on it, and what `work` raises.
    """
    model = without_cache(model)
    refuse_other_caches(model.model_options)
    guider = CasesGuider(model, setting)
    sampler = Work(setting, vae, lambda generator: work(Counted(generator, tick)))
    samples = setting.latent["samples"]
    noise = comfy.sample.prepare_noise(samples, setting.cases[0].seed)
    guider.sample(
        noise, samples, sampler, setting.sigmas, denoise_mask=setting.latent.get("noise_mask"), seed=setting.cases[0].seed,
        disable_pbar=True,
    )  # fmt: skip
    return sampler.result


class CasesGuider(comfy.samplers.CFGGuider):
    """Classifier-free guidance whose prompt can be changed from one evaluation to the next."""

    def __init__(self, model, setting: Setting):
        super().__init__(model)
        self.set_cfg(setting.cfg)
        further = {f"positive {i}": positive for i, positive in enumerate(setting.positives) if i}
        self.inner_set_conds({"positive": setting.positives[0], "negative": setting.negative, **further})

    def inner_sample(self, *args, **kwargs):
        # The shapes of packed parts; older versions know of none.
        self.shapes = {name: kwargs[name] for name in ("latent_shapes",) if name in kwargs}
        # Each prompt must meet the negative as if it were alone; ComfyUI's own processing mixes whatever lies in conds.
        everything = self.conds
        self.further = [everything[name] for name in everything if name not in ("positive", "negative")]
        self.negative = [dict(entry) for entry in everything["negative"]]
        self.conds = {"positive": everything["positive"], "negative": everything["negative"]}
        try:
            return super().inner_sample(*args, **kwargs)
        finally:
            self.conds = everything  # for the clean-up of what was loaded for them
            del self.further, self.negative, self.shapes

    def pairs(self, *args) -> list[dict]:
        """Processed conds of every prompt; `args` as `process_conds` takes them after the conds."""
        rest = []
        for positive in self.further:
            conds = {"positive": positive, "negative": [dict(entry) for entry in self.negative]}
            rest.append(comfy.samplers.process_conds(self.inner_model, args[0], conds, *args[1:], **self.shapes))
        return [self.conds, *rest]


class Work(comfy.samplers.Sampler):
    """A sampler that runs `work` on a generator instead of sampling, and keeps what it returns."""

    def __init__(self, setting: Setting, vae, work: Callable):
        self.setting, self.vae, self.work = setting, vae, work
        self.result = None

    def sample(self, guider, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False):
        inner = comfy.samplers.KSamplerX0Inpaint(guider, sigmas)
        inner.latent_image = latent_image
        pairs = guider.pairs(noise, noise.device, latent_image, denoise_mask, extra_args["seed"])
        self.result = self.work(
            ModelGenerator(self, guider, inner, pairs, sigmas, {**extra_args, "denoise_mask": denoise_mask})
        )
        return noise


class ModelGenerator:
    """`otcache_core.sampling.generator.Generator` on a loaded model. Latents go in and out on the CPU in float32.

    Those of picture and sound are packed as one, [1, everything], as samplers are handed them; `layout` tells the parts. Every
    evaluation is a check for interruption. swaps: whether decoding has pushed the model out of the device's memory.
    """

    def __init__(self, work: Work, guider: CasesGuider, inner, pairs: list[dict], sigmas: torch.Tensor, extra_args: dict):
        self._work, self._guider, self._inner, self._pairs = work, guider, inner, pairs
        self._sigmas, self._extra_args = sigmas, extra_args
        self.layout = work.setting.layout
        self._elsewhere = self.swaps = False

    @property
    def _sampling(self):
        return self._guider.inner_model.model_sampling

    def _raw_noise(self, case: Case) -> torch.Tensor:
        noise = comfy.sample.prepare_noise(self._work.setting.latent["samples"], case.seed)
        return (comfy.utils.pack_latents(noise.unbind())[0] if noise.is_nested else noise).float()

    def noise(self, case: Case) -> torch.Tensor:
        """The scaled latent [*latent] that the sampler would start from."""
        raw = self._raw_noise(case).to(self._sigmas.device)
        start = self._work.max_denoise(self._guider, self._sigmas)
        return self._sampling.noise_scaling(self._sigmas[0], raw, self._inner.latent_image, start)[0].float().cpu()

    def velocity(self, x: torch.Tensor, sigma: float, cases: Sequence[Case]) -> torch.Tensor:
        """(x - denoised) / sigma [n, *latent], one case after the other."""
        self._bring_model_back()
        found = []
        for latent, case in zip(x, cases, strict=True):
            comfy.model_management.throw_exception_if_processing_interrupted()
            self._guider.conds = self._pairs[case.prompt]
            if self._extra_args["denoise_mask"] is not None:
                self._inner.noise = self._raw_noise(case).to(self._sigmas.device)
            there = latent[None].to(self._sigmas.device, torch.float32)
            denoised = self._inner(there, there.new_full([1], sigma), **self._extra_args)
            found.append(((there - denoised) / sigma)[0].to("cpu", torch.float32))
        return torch.stack(found)

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures [n, 3, H, W] in [0, 1]; of a video, up to `FRAMES` frames one below the other, of parts packed the first.

        The latent of a long video is decoded in part only, all in one: see `glimpses`.

        Raises `OTCacheError` without a VAE.
        """
        if self._work.vae is None:
            raise OTCacheError("Judging pictures needs a VAE; connect one.")
        shapes, model = self._work.setting.shapes, self._guider.model_patcher
        self._elsewhere, loaded = True, model.loaded_size()  # decoding may push the model out of the device's memory
        pictures = []
        for latent in x:
            latent = self._sampling.inverse_noise_scaling(self._sigmas[-1], latent[None].to(self._sigmas.device))
            latent = self._guider.inner_model.process_latent_out(latent.float()).cpu()
            latent = comfy.utils.unpack_latents(latent, shapes)[0] if len(shapes) > 1 else latent
            decoded = self._work.vae.decode(glimpses(latent))
            frames = decoded.reshape(-1, *decoded.shape[-3:])
            chosen = torch.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().long()
            # To the device, where they are judged a hundred times as fast.
            judged = frames[chosen].to(comfy.model_management.get_torch_device(), torch.float32)
            pictures.append(judged.flatten(0, 1)[..., :3].movedim(-1, 0).clamp(0, 1))
        self.swaps = self.swaps or model.loaded_size() < loaded
        return torch.stack(pictures)

    def _bring_model_back(self) -> None:
        if self._elsewhere:
            comfy.model_management.load_models_gpu([self._guider.model_patcher, *self._guider.loaded_models])
            self._elsewhere = False


def glimpses(latent: torch.Tensor) -> torch.Tensor:
    """`GLIMPSE` frames each from the beginning, middle and end of a long video's latent [1, C, T, H, W]; others whole."""
    frames = latent.shape[2] if latent.ndim == 5 else 0
    if frames <= 3 * GLIMPSE:
        return latent
    chosen = [start + number for start in (0, (frames - GLIMPSE) // 2, frames - GLIMPSE) for number in range(GLIMPSE)]
    return latent[:, :, chosen]
