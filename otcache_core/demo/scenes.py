"""What the tiny model draws: landscapes described by eleven attributes, their captions and their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .painting import paint

SLOTS: dict[str, tuple[str, ...]] = {
    "sky": ("clear", "sunset", "night", "dawn", "overcast"),
    "light": ("sun", "moon", "crescent"),
    "light_position": ("left", "middle", "right"),
    "clouds": ("none", "one", "three"),
    "ground": ("meadow", "sand", "snow", "soil"),
    "house": ("red", "blue", "yellow", "white", "purple"),
    "house_position": ("left", "middle", "right"),
    "trees": ("none", "one", "two", "three"),
    "tree_type": ("leafy", "pine", "autumn", "blossom"),
    "shape": ("circle", "square", "triangle", "star", "heart", "diamond"),
    "shape_colour": ("red", "orange", "yellow", "green", "blue", "purple"),
}
"""Attribute name -> its values. Names, values and their order are part of the trained model."""

_SENTENCE = (
    "A {house} house {house_position} of {ground} with {trees}, under {sky} with {light} {light_position} "
    "and {clouds}; {shape} floats in the air."
)
_PHRASES = {
    "sky": {"overcast": "an overcast sky"},
    "light": {"sun": "the sun", "moon": "a full moon", "crescent": "a crescent moon"},
    "clouds": {"none": "no clouds", "one": "one cloud", "three": "three clouds"},
    "ground": {"meadow": "a green meadow", "sand": "yellow sand", "soil": "brown soil"},
}
_SIDES = {"left": "on the left", "middle": "in the middle", "right": "on the right"}


@dataclass(frozen=True)
class Scene:
    """One value per slot. Raises ValueError, naming the slot, for a value that ``SLOTS`` does not list."""

    sky: str = "clear"
    light: str = "sun"
    light_position: str = "right"
    clouds: str = "one"
    ground: str = "meadow"
    house: str = "red"
    house_position: str = "left"
    trees: str = "two"
    tree_type: str = "leafy"
    shape: str = "heart"
    shape_colour: str = "yellow"

    def __post_init__(self):
        for slot, value in zip(SLOTS, self.values(), strict=True):
            if value not in SLOTS[slot]:
                raise ValueError(f"{slot}: {value!r} is not one of {', '.join(SLOTS[slot])}")

    def values(self) -> tuple[str, ...]:
        """The eleven values in the order of ``SLOTS``."""
        return tuple(getattr(self, slot) for slot in SLOTS)


def sample_scene(rng: np.random.Generator) -> Scene:
    """Every slot drawn evenly and independently."""
    return Scene(**{slot: values[int(rng.integers(len(values)))] for slot, values in SLOTS.items()})


def caption(scene: Scene) -> str:
    """The scene as one English sentence, for people: the model reads the slots."""
    values = zip(SLOTS, scene.values(), strict=True)
    words = {slot: _PHRASES.get(slot, {}).get(value, value) for slot, value in values}
    if scene.sky != "overcast":
        words["sky"] = f"a {scene.sky} sky"
    for slot in ("house_position", "light_position"):
        words[slot] = _SIDES[words[slot]]
    kind = "blossoming" if scene.tree_type == "blossom" else scene.tree_type
    count = "no" if scene.trees == "none" else scene.trees
    words["trees"] = f"{count} {kind} {'tree' if scene.trees == 'one' else 'trees'}"
    article = "an" if scene.shape_colour == "orange" else "a"
    words["shape"] = f"{article} {scene.shape_colour} {scene.shape}"
    return _SENTENCE.format(**words)


def draw(scenes: Sequence[Scene], size: int = 64, rng: np.random.Generator | None = None) -> Tensor:
    """Anti-aliased pictures, float32 [n, 3, size, size] in [0, 1]; raises ValueError for no scenes.

    ``rng`` moves and scales what the caption leaves open; without it everything sits at its middle place.
    """
    if not scenes:
        raise ValueError("no scenes to draw")
    columns = zip(*(scene.values() for scene in scenes), strict=True)
    return paint(dict(zip(SLOTS, columns, strict=True)), size, rng)
