"""Paints batches of demo scenes, layer by layer, from signed distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from . import sdf

_SKY_TOP = {
    "clear": (0.24, 0.55, 0.93),
    "sunset": (0.38, 0.22, 0.52),
    "night": (0.03, 0.05, 0.20),
    "dawn": (0.60, 0.62, 0.92),
    "overcast": (0.50, 0.55, 0.61),
}
_SKY_BOTTOM = {
    "clear": (0.74, 0.90, 0.99),
    "sunset": (0.99, 0.60, 0.30),
    "night": (0.15, 0.20, 0.45),
    "dawn": (0.99, 0.80, 0.82),
    "overcast": (0.77, 0.80, 0.82),
}
_TINT = {  # of everything the sky lights
    "clear": (1.00, 1.00, 1.00),
    "sunset": (1.00, 0.80, 0.70),
    "night": (0.50, 0.56, 0.80),
    "dawn": (1.00, 0.90, 0.95),
    "overcast": (0.82, 0.85, 0.88),
}
_GROUND = {
    "meadow": (0.38, 0.70, 0.28),
    "sand": (0.93, 0.79, 0.48),
    "snow": (0.95, 0.97, 1.00),
    "soil": (0.58, 0.38, 0.22),
}
_COLOUR = {
    "red": (0.90, 0.16, 0.18),
    "orange": (0.98, 0.55, 0.10),
    "yellow": (0.99, 0.87, 0.18),
    "green": (0.15, 0.70, 0.28),
    "blue": (0.16, 0.38, 0.90),
    "purple": (0.58, 0.22, 0.76),
    "white": (0.97, 0.95, 0.92),
}
_TREE = {
    "leafy": (0.18, 0.55, 0.20),
    "pine": (0.07, 0.36, 0.25),
    "autumn": (0.92, 0.46, 0.10),
    "blossom": (0.98, 0.62, 0.76),
}
_TREES = {"none": 0, "one": 1, "two": 2, "three": 3}
_LIGHT = {"sun": (1.0, 0.90, 0.35), "moon": (0.96, 0.96, 0.88), "crescent": (0.99, 0.96, 0.75)}
_TREE_SPOTS = {"left": (0.52, 0.88, 0.70), "middle": (0.13, 0.87, 0.30), "right": (0.12, 0.48, 0.30)}
_PLACE = {"left": 0.2, "middle": 0.5, "right": 0.8}
_STARS = (
    *((0.08, 0.30), (0.17, 0.06), (0.33, 0.19), (0.40, 0.40)),
    *((0.63, 0.28), (0.68, 0.07), (0.90, 0.36), (0.95, 0.09)),
)
_TURN = 6.2831853
_JITTERS = 26
_EDGE = 1.7  # pixels; sharper edges cost the linear autoencoder detail it cannot keep


def paint(slots: Mapping[str, Sequence[str]], size: int, rng: np.random.Generator | None = None) -> Tensor:
    """Pictures float32 [n, 3, size, size] in [0, 1] of scenes given as one list of n values a slot.

    ``rng`` moves and scales what the slots leave open; without it everything sits at its middle place.
    """
    n = len(slots["sky"])
    jitter = np.zeros((n, _JITTERS)) if rng is None else rng.uniform(-1.0, 1.0, (n, _JITTERS))
    return _Picture(slots, torch.from_numpy(jitter).float(), size).paint()


def _rgb(r: float, g: float, b: float) -> Tensor:
    return torch.tensor((r, g, b))[:, None, None]


class _Picture:
    """A batch of scenes in the making. The order in which layers take jitter is part of the data set."""

    def __init__(self, slots: Mapping[str, Sequence[str]], jitter: Tensor, size: int):
        self.slots, self.size = slots, size
        self._jitter = iter(jitter.T[:, :, None, None])
        axis = (torch.arange(size, dtype=torch.float32) + 0.5) / size
        self.x, self.y = axis[None, None, :], axis[None, :, None]
        self.tint = self.colour("sky", _TINT)
        self.image = torch.empty(0)

    def j(self, scale: float) -> Tensor:
        """The next jitter, uniform in +-scale, [n, 1, 1]."""
        return scale * next(self._jitter)

    def colour(self, slot: str, table: dict) -> Tensor:
        """A slot's colour for each scene, [n, 3, 1, 1]."""
        return torch.tensor([table[value] for value in self.slots[slot]])[:, :, None, None]

    def number(self, slot: str, table: dict) -> Tensor:
        """A slot's number for each scene, [n, 1, 1]."""
        return torch.tensor([float(table[value]) for value in self.slots[slot]])[:, None, None]

    def is_(self, slot: str, *values: str) -> Tensor:
        """1 where the slot has one of the values, else 0, [n, 1, 1]."""
        return torch.tensor([float(value in values) for value in self.slots[slot]])[:, None, None]

    def pick(self, slot: str, figures: dict) -> Tensor:
        """The distance of the figure that each scene's slot names, [n, size, size]."""
        chosen = torch.empty(len(self.tint), self.size, self.size)
        for value, distance in figures.items():
            rows = self.is_(slot, value)[:, 0, 0].bool()
            chosen[rows] = distance.expand_as(chosen)[rows]
        return chosen

    def fill(self, distance: Tensor, colour: Tensor, alpha: Tensor | float = 1.0) -> None:
        """Paint where ``distance`` is negative, with a soft edge."""
        self.blend((0.5 - distance * (self.size / _EDGE)).clamp(0.0, 1.0) * alpha, colour)

    def blend(self, weight: Tensor, colour: Tensor) -> None:
        """Mix ``colour`` in by ``weight`` [n, size, size]."""
        weight = weight[:, None].expand_as(self.image)
        self.image = torch.lerp(self.image, colour.expand_as(self.image), weight)

    def paint(self) -> Tensor:
        """All layers, back to front, [n, 3, size, size]."""
        for layer in ("sky", "light", "clouds", "ground", "trees", "house", "shape"):
            getattr(self, f"_{layer}")()
        return self.image.clamp(0.0, 1.0)

    def _sky(self) -> None:
        top, bottom = self.colour("sky", _SKY_TOP), self.colour("sky", _SKY_BOTTOM)
        depth = (self.y / 0.66).clamp(max=1.0).expand(1, self.size, self.size)[:, None]
        self.image = top + (bottom - top) * depth
        night = 0.9 * self.is_("sky", "night")
        for x, y in _STARS:
            self.fill(sdf.circle(self.x - x, self.y - y, 0.011), _rgb(1.0, 1.0, 0.9), night)

    def _light(self) -> None:
        x = self.x - self.number("light_position", _PLACE) - self.j(0.03)
        y = self.y - 0.15 - self.j(0.02)
        colour = self.colour("light", _LIGHT)
        glow = 0.30 + 0.30 * self.is_("light", "sun")
        self.blend(glow * torch.exp(-(x.square() + y.square()) / 0.02), colour)
        disc, crescent = sdf.circle(x, y, 0.085), sdf.crescent(x, y, 0.095)
        self.fill(self.pick("light", {"sun": disc, "moon": disc, "crescent": crescent}), colour)
        upper, lower = sdf.circle(x - 0.025, y + 0.02, 0.022), sdf.circle(x + 0.03, y - 0.025, 0.018)
        self.fill(torch.minimum(upper, lower), _rgb(0.74, 0.75, 0.74), self.is_("light", "moon"))

    def _clouds(self) -> None:
        colour = 0.25 + 0.75 * self.tint.sqrt()
        one, three = 1 - self.is_("clouds", "none"), self.is_("clouds", "three")
        places = ((0.34, 0.23, 0.062, one), (0.86, 0.33, 0.05, three), (0.64, 0.09, 0.045, three))
        for x, y, r, here in places:
            figure = sdf.cloud(self.x - x - self.j(0.08), self.y - y - self.j(0.02), r)
            self.fill(figure, colour, 0.92 * here)

    def _ground(self) -> None:
        colour = self.colour("ground", _GROUND) * self.tint
        wave = torch.sin(_TURN * (0.9 * self.x + self.j(0.5)))
        hazy = 0.55 * colour + 0.45 * self.colour("sky", _SKY_BOTTOM) * 0.8
        self.fill((0.575 + self.j(0.015) + 0.035 * wave) - self.y, hazy)
        wave = torch.sin(_TURN * (0.7 * self.x + self.j(0.5)))
        shade = 1.0 - 0.35 * ((self.y - 0.66) / 0.34).clamp(0.0, 1.0)
        self.fill((0.66 + 0.015 * wave) - self.y, colour * shade[:, None])

    def _trees(self) -> None:
        colour, trunk = self.colour("tree_type", _TREE) * self.tint, _rgb(0.42, 0.27, 0.15) * self.tint
        count = self.number("trees", _TREES)
        for i in range(3):
            place = self.number("house_position", {side: spots[i] for side, spots in _TREE_SPOTS.items()})
            x = self.x - place - self.j(0.02)
            y, r = self.y - (0.775 + 0.02 * (i % 2)) - self.j(0.015), 0.082 * (1 + self.j(0.12))
            here = (count > i).float()
            self.fill(sdf.box(x, y + 0.03, 0.016, 0.05), trunk, here)
            sides = sdf.circle(x.abs() - r * 0.5, y + r * 1.25, r * 0.72)
            round_ = torch.minimum(sdf.circle(x, y + r * 1.75, r), sides)
            lower = sdf.triangle(x, y + r * 1.35, r * 1.0, r * 1.9)
            pine = torch.minimum(lower, sdf.triangle(x, y + r * 2.3, r * 0.75, r * 1.6))
            figures = {"leafy": round_, "autumn": round_, "blossom": round_, "pine": pine}
            figure = self.pick("tree_type", figures)
            self.fill(figure, colour, here)
            shine = sdf.circle(x + r * 0.3, y + r * 2.0, r * 0.35)
            self.fill(torch.maximum(shine, figure), _rgb(1.0, 1.0, 0.9), 0.22 * here)

    def _house(self) -> None:
        k = 1 + self.j(0.06)
        x = (self.x - self.number("house_position", _PLACE) - self.j(0.02)) / k
        y = (self.y - 0.72 - self.j(0.01)) / k
        wall, roof = self.colour("house", _COLOUR) * self.tint, _rgb(0.36, 0.22, 0.20) * self.tint
        lit = self.is_("sky", "night", "sunset")[:, None]
        window = lit * _rgb(1.0, 0.88, 0.42) + (1 - lit) * _rgb(0.55, 0.75, 0.88)
        self.fill(sdf.box(x - 0.075, y + 0.16, 0.02, 0.045), roof)
        self.fill(sdf.box(x, y, 0.125, 0.09), wall)
        self.fill(sdf.triangle(x, y + 0.145, 0.16, 0.13), roof)
        self.fill(sdf.box(x + 0.05, y - 0.03, 0.026, 0.06), roof)
        self.fill(sdf.box(x - 0.05, y - 0.005, 0.034, 0.034), window)

    def _shape(self) -> None:
        x, y = self.x - 0.5 - self.j(0.09), self.y - 0.39 - self.j(0.025)
        r = 0.1 * (1 + self.j(0.08))
        figures = {
            "circle": sdf.circle(x, y, r * 0.95),
            "square": sdf.box(x, y, r * 0.84, r * 0.84),
            "triangle": sdf.triangle(x, y, r * 1.08, r * 1.85),
            "star": sdf.star(x, y, r * 1.25),
            "heart": sdf.heart(x, y - r * 0.12, r * 0.95),
            "diamond": sdf.diamond(x, y, r * 1.2),
        }
        figure = self.pick("shape", figures)
        self.fill(figure - 0.02, _rgb(1.0, 1.0, 1.0))
        self.fill(figure, self.colour("shape_colour", _COLOUR))
