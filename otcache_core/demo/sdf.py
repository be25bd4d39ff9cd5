"""Signed distances of the few figures that the drawn scenes are made of.

Points ``x`` (right) and ``y`` (down) are float32 tensors that broadcast to [n, size, size], in picture widths
and relative to the figure's centre; sizes are floats or [n, 1, 1] tensors. Negative inside.
"""

from __future__ import annotations

import torch
from torch import Tensor


def circle(x: Tensor, y: Tensor, r) -> Tensor:
    """Disc of radius ``r``."""
    return torch.hypot(x, y) - r


def box(x: Tensor, y: Tensor, w, h) -> Tensor:
    """Rectangle with half sides ``w`` and ``h``."""
    return torch.maximum(x.abs() - w, y.abs() - h)


def diamond(x: Tensor, y: Tensor, r) -> Tensor:
    """Square on its tip with half diagonal ``r``."""
    return (x.abs() + y.abs() - r) * 0.70710678


def triangle(x: Tensor, y: Tensor, w, h) -> Tensor:
    """Isosceles triangle, tip up, half base ``w``, height ``h``, centred on half its height."""
    side = (x.abs() * h - (y + h / 2) * w) / (w * w + h * h) ** 0.5
    return torch.maximum(side, y - h / 2)


def heart(x: Tensor, y: Tensor, r) -> Tensor:
    """Heart: a square on its tip with two half discs on its upper sides."""
    lobes = torch.hypot(x.abs() - r / 2, y + r / 2) - r * 0.70710678
    return torch.minimum(lobes, diamond(x, y, r))


def star(x: Tensor, y: Tensor, r) -> Tensor:
    """Five-pointed star of outer radius ``r`` (after I. Quilez)."""
    kx, ky = 0.80901699, -0.58778525
    x, y = x.abs(), -y
    for sign in (1.0, -1.0):
        fold = 2.0 * (sign * kx * x + ky * y).clamp(min=0.0)
        x, y = x - fold * sign * kx, y - fold * ky
    x, y = x.abs(), y - r
    bx, by = -0.5 * ky, 0.5 * kx - 1.0
    h = torch.minimum(((x * bx + y * by) / (bx * bx + by * by)).clamp(min=0.0), torch.as_tensor(r))
    return torch.hypot(x - bx * h, y - by * h) * torch.sign(y * bx - x * by)


def cloud(x: Tensor, y: Tensor, r) -> Tensor:
    """Three puffs on a flat base; about ``4 * r`` wide."""
    puffs = torch.minimum(circle(x, y + r * 0.5, r), circle(x - r * 1.1, y, r * 0.7))
    return torch.maximum(torch.minimum(puffs, circle(x + r * 1.1, y, r * 0.75)), y - r * 0.45)


def crescent(x: Tensor, y: Tensor, r) -> Tensor:
    """Waning moon of outer radius ``r``."""
    return torch.maximum(circle(x, y, r), -circle(x - r * 0.55, y + r * 0.25, r * 0.9))
