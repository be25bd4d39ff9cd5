"""Pictures between ComfyUI ([n, H, W, 3] in [0, 1]) and the library (figures, and [n, 3, H, W])."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..otcache_core.errors import OTCacheError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_image(figure: Figure) -> torch.Tensor:
    """A matplotlib figure as an IMAGE [1, H, W, 3], float32 on the CPU."""
    from ..otcache_core.drawing.style import to_image

    return array_image(to_image(figure))


def array_image(array: np.ndarray) -> torch.Tensor:
    """A picture [H, W, 3], uint8 or floats in [0, 1], as an IMAGE [1, H, W, 3], float32 on the CPU."""
    picture = np.ascontiguousarray(array[..., :3])
    scale = 255 if picture.dtype == np.uint8 else 1
    return torch.from_numpy(picture.astype(np.float32) / scale)[None]


def colours(image: torch.Tensor, name: str) -> torch.Tensor:
    """An IMAGE's three colour channels [n, H, W, 3], float32 on the CPU; `name` stands in error messages.

    A single channel is repeated, alpha is dropped. Raises `OTCacheError` for anything else, and for values that are no numbers.
    """
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or not image.numel():
        raise OTCacheError(f"{name} has the shape {tuple(image.shape)}, but must be pictures [batch, height, width, 3].")
    image = image.detach().to("cpu", torch.float32)
    if not image.isfinite().all():
        raise OTCacheError(f"{name} holds values that are not numbers (NaN or infinity); look for the cause where it was made.")
    return image.expand(-1, -1, -1, 3) if image.shape[-1] == 1 else image[..., :3]
