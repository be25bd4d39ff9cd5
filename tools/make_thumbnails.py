"""Writes the pictures that stand beside the example workflows in ComfyUI's template browser.

    python -m tools.make_thumbnails [CACHED.png FULL.png]

CACHED.png and FULL.png: what running otcache_demo saved (otcache/cached_*.png and otcache/full_*.png); without them its
picture stays. The other workflows need models of many gigabytes, so theirs is a drawing: the noise levels of that workflow,
and the steps that are computed on them as the embedded model taught it with the same guidance.
"""

import sys
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from otcache_core.calibration.solving import steps_on
from otcache_core.calibration.statistics import Statistics, of_recording
from otcache_core.demo.generator import DemoGenerator, cases
from otcache_core.sampling.rehearsal import Recorder
from otcache_core.schedules.interpolation import budget_for_speedup

from .make_workflows import FOLDER
from .real_models import SPEEDUP

SIDE, MARGIN, TITLE_TOP = 640, 40, 124  # the frontend's badge covers what is above the title
PAPER, INK, GREY, HOLLOW = "#ffffff", "#1d2430", "#5b6675", "#c3c9d2"
BLUE, TEAL, PURPLE, ORANGE, GREEN = "#2166ac", "#0b7a75", "#6a4c93", "#c8553d", "#3f7d20"
FLUX_SHIFT = float(np.exp(1.15))
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Card:
    """What is drawn for one workflow. colours: of each part of the run that has a cache of its own."""

    title: str
    steps: int
    shift: float
    cfg: float
    colours: tuple[str, ...]


CARDS = {
    "otcache_flux_dev": Card("FLUX.1 [dev]", 20, FLUX_SHIFT, 1.0, (BLUE,)),
    "otcache_qwen_image": Card("Qwen-Image", 20, 3.1, 4.0, (PURPLE,)),
    "otcache_z_image": Card("Z-Image", 25, 3.0, 4.0, (GREEN,)),
    "otcache_hunyuan_video": Card("HunyuanVideo", 20, 7.0, 1.0, (TEAL,)),
    "otcache_wan2_2_t2v": Card("Wan 2.2 14B", 20, 5.0, 3.5, (BLUE, ORANGE)),
}


def taught(steps: int, shift: float, cfg: float) -> Statistics:
    """What one full Euler run of the embedded model teaches on such a grid."""
    generator, [case] = DemoGenerator(shift=shift, steps=steps, cfg=cfg), cases(1, 3000)
    sigmas = generator.sigmas()
    recorder, x = Recorder(sigmas), generator.noise(case)[None]
    for step, (now, then) in enumerate(pairwise(sigmas)):
        d = generator.velocity(x, float(now), [case])
        recorder.observe(step, d, x)
        x = x + float(then - now) * d
    return of_recording(recorder.recording())


def auto_card(card: Card) -> Image.Image:
    """Above the first run, in which every step is computed; below the later ones, as high as the noise is at each step."""
    statistics, parts = taught(card.steps, card.shift, card.cfg), len(card.colours)
    length = card.steps // parts
    budget = budget_for_speedup(length, SPEEDUP)
    each = f"{budget} of {card.steps} steps" if parts == 1 else f"{budget} + {budget} of {card.steps} steps"
    image, draw = _card(card.title, "first run: every step", GREY)
    pitch = (SIDE - 2 * MARGIN) / card.steps
    for step in range(card.steps):
        _cell(draw, (MARGIN + step * pitch, 228, MARGIN + (step + 1) * pitch, 256), card.colours[step // length])
    draw.text((MARGIN, 312), f"then: {each}", INK, ImageFont.load_default(34), anchor="ls")
    for part, colour in enumerate(card.colours):
        grid = statistics.sigmas[part * length : (part + 1) * length + 1]
        chosen = steps_on(statistics, grid, budget)
        for step in range(length):
            x = MARGIN + (part * length + step) * pitch
            top = 600 - 30 - 220 * float(grid[step])
            _cell(draw, (x, top, x + pitch, 600), colour if step in chosen else None)
    return image


def calibrate_card(budgets: range, chosen: int, steps: int) -> Image.Image:
    """A row for each budget, and the slider at one of them."""
    statistics = taught(steps, FLUX_SHIFT, 1.0)
    image, draw = _card("Calibrate FLUX.1", f"a slider from {budgets[0]} to {budgets[-1]} of {steps} steps", GREY)
    left, height = MARGIN + 84, 52
    pitch, rail = (SIDE - MARGIN - left) / steps, MARGIN + 22
    rows = {budget: 244 + row * height for row, budget in enumerate(budgets)}
    draw.line((rail, 244 + 16, rail, rows[budgets[-1]] + 16), HOLLOW, 8)
    for budget, top in rows.items():
        at = steps_on(statistics, statistics.sigmas, budget)
        strong = budget == chosen
        for step in range(steps):
            x = left + step * pitch
            _cell(draw, (x, top, x + pitch, top + 34), (ORANGE if strong else BLUE) if step in at else None)
        font = ImageFont.load_default(30 if strong else 22)
        draw.text((left - 14, top + 17), str(budget), ORANGE if strong else GREY, font, anchor="rm")
    knob = rows[chosen] + 17
    draw.ellipse((rail - 17, knob - 17, rail + 17, knob + 17), ORANGE)
    return image


def pictures_card(title: str, pictures: dict[str, Image.Image], line: str) -> Image.Image:
    """Pictures beside each other under their names."""
    image, draw = _card(title, line, INK)
    side = (SIDE - 2 * MARGIN - 20 * (len(pictures) - 1)) // len(pictures)
    for number, (name, picture) in enumerate(pictures.items()):
        x = MARGIN + number * (side + 20)
        image.paste(picture.resize((side, side), Image.Resampling.NEAREST), (x, 290))
        draw.text((x + side / 2, 265), name, INK, ImageFont.load_default(24), anchor="mm")
    return image


def _card(title: str, line: str, colour: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, TITLE_TOP), title, INK, ImageFont.load_default(54), anchor="lm")
    draw.text((MARGIN, TITLE_TOP + 56), line, colour, ImageFont.load_default(28), anchor="lm")
    return image, draw


def _cell(draw: ImageDraw.ImageDraw, box: Box, colour: str | None) -> None:
    """A step: filled where the model runs, else hollow."""
    left, top, right, bottom = box
    inside = (left + 2, top, right - 2, bottom)
    draw.rounded_rectangle(inside, 4, colour or PAPER, colour or HOLLOW, 2)


def main(*pictures: str) -> None:
    """Write them all."""
    torch.set_num_threads(1)
    cards = {name: auto_card(card) for name, card in CARDS.items()}
    cards["otcache_calibrate"] = calibrate_card(range(4, 11), 6, 20)
    if pictures:
        cached, full = (Image.open(path).convert("RGB") for path in pictures)
        named = {"10 evaluations": cached, "full run: 50": full}
        cards["otcache_demo"] = pictures_card("OTCache demo", named, "runs at once, on a CPU, without a download")
    for name, card in cards.items():
        card.save(FOLDER / f"{name}.jpg", quality=88, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
