"""The library's small FLUX transformer as a ComfyUI model, built directly: ComfyUI's own detection asks for larger sizes."""

import comfy.latent_formats
import comfy.ldm.flux.model
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch

from ...otcache_core.demo.autoencoder import BLOCK, CHANNELS, LinearAutoencoder
from ...otcache_core.demo.model import FluxConfig

# CoreModelPatcher is what ComfyUI's loaders use since 0.25; with dynamic VRAM it is another class than ModelPatcher.
_Patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)


class DemoLatent(comfy.latent_formats.LatentFormat):
    """16 channels at a quarter of the picture's side, neither scaled nor shifted."""

    scale_factor = 1.0
    latent_channels = CHANNELS
    spacial_downscale_ratio = BLOCK


def build_model(config: FluxConfig, weights: dict[str, torch.Tensor], autoencoder: LinearAutoencoder | None = None,
                disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:  # fmt: skip
    """A float32 flow model of shift 1 with ComfyUI's `Flux` as its network.

    weights: the keys of the library's `FluxTransformer`. autoencoder: for previews while sampling.
    """
    known = comfy.ldm.flux.model.FluxParams.__annotations__  # older versions have fewer fields
    params = {name: value for name, value in config.comfy_params().items() if name in known}
    # FluxSchnell is the class without guidance embedding; its sigmas are an even grid.
    model_config = comfy.supported_models.FluxSchnell({"image_model": "flux", **params})
    model_config.latent_format = _latent_format(autoencoder)
    model_config.set_inference_dtype(torch.float32, None)
    offload = comfy.model_management.unet_offload_device()
    model = model_config.get_model({}, "", device=offload)
    model.load_model_weights(dict(weights), "")
    model.eval()
    cls = comfy.model_patcher.ModelPatcher if disable_dynamic else _Patcher
    patcher = cls(model, load_device=comfy.model_management.get_torch_device(), offload_device=offload)
    # How ComfyUI builds the model anew for torch.compile under dynamic VRAM and for several GPUs; unused before 0.25.
    patcher.cached_patcher_init = (build_model, (config, weights, autoencoder))
    return patcher


def _latent_format(autoencoder: LinearAutoencoder | None) -> DemoLatent:
    form = DemoLatent()
    if autoencoder is not None:
        # The mean colour of a decoded block; previews expect [-1, 1].
        basis = (autoencoder.basis / autoencoder.scale[:, None]).unflatten(1, (3, -1)).mean(-1)
        form.latent_rgb_factors = (basis * 2).tolist()
        form.latent_rgb_factors_bias = (autoencoder.mean.unflatten(0, (3, -1)).mean(-1) * 2 - 1).tolist()
    return form
