"""Reading the demo's weights, which may be missing, damaged or another model's."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import OTCacheError
from .autoencoder import LinearAutoencoder
from .model import FluxTransformer

WEIGHTS = Path(__file__).parent / "weights"
TRANSFORMER_FILE = "transformer.safetensors"
VAE_FILE = "vae.safetensors"


def read_weights(folder: str | Path = WEIGHTS) -> tuple[dict[str, Tensor], LinearAutoencoder]:
    """The transformer's tensors, which are `FluxTransformer`'s and finite, and the autoencoder.

    Raises `OTCacheError` for a file that is missing, damaged or of another model.
    """
    folder = Path(folder)
    try:
        tensors = load_file(folder / TRANSFORMER_FILE)
        autoencoder = LinearAutoencoder.load(folder / VAE_FILE)
        with torch.device("meta"):
            wanted = {name: value.shape for name, value in FluxTransformer().state_dict().items()}
        if {name: value.shape for name, value in tensors.items()} != wanted:
            raise ValueError(f"{TRANSFORMER_FILE} is another model's")
        for tensor in (*tensors.values(), autoencoder.mean, autoencoder.basis, autoencoder.scale):
            if not torch.isfinite(tensor).all():
                raise ValueError("they are not finite")
    except (OSError, SafetensorError, TypeError, ValueError, RuntimeError) as error:
        reason = "".join(c if c.isprintable() else " " for c in str(error).split("\n")[0][:200])
        raise OTCacheError(
            f"The demo's weights in {folder} cannot be read ({reason}); restore that folder from the repository."
        ) from None
    return tensors, autoencoder
