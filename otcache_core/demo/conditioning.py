"""Text conditioning without a text encoder: one fixed token per attribute value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .scenes import SLOTS, Scene

TOKEN_DIM = 64
_SEED = 20260517


def _table() -> Tensor:
    """One sign vector per (slot, value), float32 [values of all slots, 64].

    Each is the 64 bits of one raw PCG64 word, which NumPy guarantees for ever, unlike its distributions.
    """
    words = np.random.PCG64(_SEED).random_raw(sum(len(values) for values in SLOTS.values()))
    bits = (words[:, None] >> np.arange(TOKEN_DIM, dtype=np.uint64)) & np.uint64(1)
    return torch.from_numpy(bits.astype(np.float32) * 2 - 1)


_TABLE = _table()
_ROW = {pair: i for i, pair in enumerate((slot, value) for slot, values in SLOTS.items() for value in values)}


def encode(scenes: Sequence[Scene]) -> tuple[Tensor, Tensor]:
    """Context tokens [n, 11, 64] and pooled vectors [n, 64] (their sum over sqrt(11)), float32."""
    rows = [[_ROW[pair] for pair in zip(SLOTS, scene.values(), strict=True)] for scene in scenes]
    context = _TABLE[torch.tensor(rows, dtype=torch.long).view(-1, len(SLOTS))]
    return context, context.sum(1) / len(SLOTS) ** 0.5


def encode_null(n: int) -> tuple[Tensor, Tensor]:
    """The empty caption: zeros in the same shapes."""
    return torch.zeros(n, len(SLOTS), TOKEN_DIM), torch.zeros(n, TOKEN_DIM)
