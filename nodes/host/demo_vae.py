"""The demo's autoencoder with the methods by which ComfyUI's nodes use a VAE."""

import comfy.model_management
import torch

from ...otcache_core.demo.autoencoder import BLOCK, CHANNELS, LinearAutoencoder
from ...otcache_core.errors import OTCacheError


class DemoVAE:
    """Pictures [b, H, W, 3] in [0, 1] <-> latents [b, 16, H / 4, W / 4], both float32 on ComfyUI's intermediate device."""

    latent_channels = CHANNELS
    latent_dim = 2
    downscale_ratio = upscale_ratio = BLOCK

    def __init__(self, autoencoder: LinearAutoencoder):
        self._autoencoder = autoencoder

    def decode(self, latents: torch.Tensor, **_options) -> torch.Tensor:
        """Raises `OTCacheError` for latents of another model."""
        if latents.ndim != 4 or latents.shape[1] != CHANNELS:
            raise OTCacheError(
                f"The demo VAE cannot decode latents of shape {tuple(latents.shape)}; give it [batch, {CHANNELS}, height, "
                "width] from the demo model."
            )
        images = self._autoencoder.decode(latents.to("cpu", torch.float32))
        return images.movedim(1, -1).to(comfy.model_management.intermediate_device())

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Sides are cropped to multiples of 4, as ComfyUI's VAE does. Raises `OTCacheError` for smaller pictures."""
        height, width = (side // BLOCK * BLOCK for side in images.shape[1:3])
        if not (height and width):
            raise OTCacheError(
                f"Pictures of {images.shape[2]} x {images.shape[1]} are too small; use {BLOCK} x {BLOCK} or more."
            )
        top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
        pixels = images[:, top : top + height, left : left + width, :3].movedim(-1, 1).to("cpu", torch.float32)
        return self._autoencoder.encode(pixels).to(comfy.model_management.intermediate_device())

    # A linear map block by block: tiles would give the same numbers.
    def decode_tiled(self, latents: torch.Tensor, **_options) -> torch.Tensor:
        """As `decode`."""
        return self.decode(latents)

    def encode_tiled(self, images: torch.Tensor, **_options) -> torch.Tensor:
        """As `encode`."""
        return self.encode(images)

    def spacial_compression_encode(self) -> int:
        """Pixels a latent's side."""
        return BLOCK

    spacial_compression_decode = spacial_compression_encode

    def temporal_compression_decode(self) -> None:
        """None: no video."""
