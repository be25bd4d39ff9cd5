"""The trained models as ComfyUI's own classes: SD 1.5's U-Net, and Wan 2.1's transformer for video.

Both work on latents of the embedded model's linear autoencoder: of drawings of 48 x 48 pixels, and of clips of four frames of
32 x 32. ComfyUI must be importable.
"""

from dataclasses import dataclass
from pathlib import Path

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch
from safetensors.torch import load_file

CHANNELS, BLOCK = 16, 4
FOLDER = Path(__file__).parent / "weights"
TOKEN_DIM = 64


@dataclass(frozen=True)
class Trained:
    """cls: in comfy.supported_models. config: of its network. latent: shape of one. head: its last layer, by name."""

    cls: str
    config: dict
    latent: tuple[int, ...]
    head: str

    @property
    def side(self) -> int:
        """Pixels of a picture's side."""
        return self.latent[-1] * BLOCK


MODELS = {
    "unet": Trained(
        "SD15",
        {"image_size": 32, "in_channels": CHANNELS, "out_channels": CHANNELS, "model_channels": 64,
         "num_res_blocks": [1, 1], "channel_mult": [1, 2], "transformer_depth": [0, 1],
         "transformer_depth_output": [0, 0, 1, 1], "transformer_depth_middle": 1, "context_dim": TOKEN_DIM,
         "use_spatial_transformer": True, "use_linear_in_transformer": False, "adm_in_channels": None,
         "use_temporal_attention": False, "legacy": False, "num_heads": 4, "num_head_channels": -1},
        (CHANNELS, 12, 12),
        "out.2",
    ),
    "video": Trained(
        "WAN21_T2V",
        {"image_model": "wan2.1", "model_type": "t2v", "dim": 128, "ffn_dim": 512, "freq_dim": 256, "text_dim": TOKEN_DIM,
         "num_heads": 2, "num_layers": 4, "in_dim": CHANNELS, "out_dim": CHANNELS, "text_len": 32},
        (CHANNELS, 4, 8, 8),
        "head.head",
    ),
}  # fmt: skip


class DrawnLatent(comfy.latent_formats.LatentFormat):
    """The autoencoder's latents, neither scaled nor shifted."""

    scale_factor = 1.0
    latent_channels = CHANNELS
    spacial_downscale_ratio = BLOCK


def build(kind: str):
    """ComfyUI's model `kind` of MODELS (BaseModel), float32 on the CPU, its weights not set. Raises KeyError."""
    chosen = MODELS[kind]
    settings = getattr(comfy.supported_models, chosen.cls)(chosen.config)
    settings.unet_config |= chosen.config  # SD15 has a number of heads of its own
    settings.latent_format = DrawnLatent()
    settings.latent_format.latent_dimensions = len(chosen.latent) - 1
    settings.set_inference_dtype(torch.float32, None)
    settings.inpaint_model = lambda: False  # which ComfyUI takes a U-Net of more than four channels for
    return settings.get_model({}, "", device=torch.device("cpu"))


def load(kind: str, path: Path | None = None) -> comfy.model_patcher.ModelPatcher:
    """The trained model, ready for ComfyUI's nodes. Raises FileNotFoundError, or RuntimeError for other weights."""
    model = build(kind)
    weights = {name: tensor.float() for name, tensor in load_file(path or FOLDER / f"{kind}.safetensors").items()}
    model.diffusion_model.load_state_dict(weights)
    model.eval().requires_grad_(False)
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher(model, comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device())
