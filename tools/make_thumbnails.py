"""Writes the pictures that stand beside the example workflows in ComfyUI's template browser.

    python -m tools.make_thumbnails

The models of most workflows are many gigabytes, so the embedded model draws, and says so: with that workflow's steps, noise
levels, guidance and numbers of evaluations, learnt from one run of another scene. Below the pictures stands which steps ran
the model. The page behind may be dark or light, and the frontend's badge covers a part of the sky at the top left.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from otcache_core.calibration.solving import fitted, steps_on
from otcache_core.calibration.statistics import Statistics, of_recording
from otcache_core.demo.generator import DemoCase, DemoGenerator, cases
from otcache_core.demo.scenes import Scene
from otcache_core.sampling.rehearsal import Recorder
from otcache_core.sampling.rollout import sample
from otcache_core.schedules.interpolation import budget_for_speedup

from .make_workflows import FOLDER
from .real_models import SPEEDUP

SIDE, BAND, MARGIN = 640, 132, 24  # pixels
DARK, LIGHT, GREY, HOLLOW, ORANGE = "#171a21", "#f4f5f7", "#a9b2c0", "#59616f", "#ff8a5c"
FLUX_SHIFT = float(np.exp(1.15))
SEED = 21


@dataclass(frozen=True)
class Card:
    """What is drawn for one workflow.

    budgets: evaluations of each picture, from left to right; all steps in the last one. parts: of the run, each with a cache
    of its own.
    """

    title: str
    scene: Scene
    steps: int
    shift: float
    cfg: float
    budgets: tuple[int, ...] = ()
    parts: int = 1

    @property
    def evaluations(self) -> tuple[int, ...]:
        """Of each picture."""
        first = budget_for_speedup(self.steps // self.parts, SPEEDUP) * self.parts
        return (*(self.budgets or (first,)), self.steps)


CARDS = {
    "otcache_start": Card("A first look", Scene(), 50, 1.0, 7.5),
    "otcache_demo": Card("Calibrate, slide", Scene("dawn", house="blue", shape="star", ground="sand"), 50, 1.0, 7.5,
                         (8, 10, 15)),
    "otcache_calibrate": Card("Calibrate FLUX.1", Scene("sunset", house="white", shape="circle", shape_colour="blue"), 20,
                              FLUX_SHIFT, 4.0, (4, 6, 10)),
    "otcache_flux_dev": Card("FLUX.1 [dev]", Scene("sunset", house="yellow", tree_type="pine", shape="star"), 20, FLUX_SHIFT,
                             4.0),
    "otcache_qwen_image": Card("Qwen-Image", Scene("clear", ground="snow", house="purple", tree_type="pine", shape="star",
                                                   shape_colour="orange"), 20, 3.1, 4.0),
    "otcache_z_image": Card("Z-Image", Scene("overcast", house="white", ground="soil", tree_type="autumn", shape_colour="red"),
                            25, 3.0, 4.0),
    "otcache_hunyuan_video": Card("HunyuanVideo", Scene("dawn", ground="sand", trees="one", shape="triangle",
                                                        shape_colour="red"), 20, 7.0, 4.0),
    "otcache_wan2_2_t2v": Card("Wan 2.2 14B", Scene("night", "moon", house="red", tree_type="blossom", shape="circle",
                                                    shape_colour="orange"), 20, 5.0, 4.0, parts=2),
}  # fmt: skip


def taught(generator: DemoGenerator) -> Statistics:
    """What one full Euler run of another scene teaches."""
    [case], sigmas = cases(1, 3000), generator.sigmas()
    recorder, x = Recorder(sigmas), generator.noise(case)[None]
    for step, (now, then) in enumerate(pairwise(sigmas)):
        d = generator.velocity(x, float(now), [case])
        recorder.observe(step, d, x)
        x = x + float(then - now) * d
    return of_recording(recorder.recording())


def computed(statistics: Statistics, budget: int, parts: int) -> tuple[int, ...]:
    """The steps that run the model: as many in each part."""
    length = statistics.steps // parts
    starts = range(0, statistics.steps, length)
    return tuple(
        start + step
        for start in starts
        for step in steps_on(statistics, statistics.sigmas[start : start + length + 1], budget // parts)
    )


def draw_card(card: Card) -> Image.Image:
    """The pictures as slices of one, the words and the steps below."""
    generator = DemoGenerator(shift=card.shift, steps=card.steps, cfg=card.cfg)
    statistics = taught(generator)
    image = Image.new("RGB", (SIDE, SIDE), DARK)
    draw = ImageDraw.Draw(image)
    chosen = [computed(statistics, budget, card.parts) if budget < card.steps else tuple(range(card.steps))
              for budget in card.evaluations]  # fmt: skip
    width = SIDE // len(chosen)
    for number, steps in enumerate(chosen):
        schedule = fitted([statistics], statistics.sigmas, steps)
        latent = sample(generator, [DemoCase(SEED, card.scene)], schedule)
        pixels = (generator.decode(latent)[0].movedim(0, -1).clamp(0, 1) * 255).round().byte().numpy()
        picture = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        left = number * width
        # Beside each other two wholes would be small: of a pair the same middle, of more each its own part.
        begin = (SIDE - width) // 2 if len(chosen) == 2 else left
        image.paste(picture.crop((begin, 0, begin + width, SIDE - BAND)), (left, 0))
        if number:
            draw.line((left, 0, left, SIDE - BAND), LIGHT, 4)
        name = f"{len(steps)}" if len(chosen) > 2 else f"{len(steps)} of {card.steps}"
        tag(draw, left + width // 2, SIDE - BAND - 26, "full run" if len(steps) == card.steps else name)
    draw.text((MARGIN, SIDE - BAND + 38), card.title, LIGHT, ImageFont.load_default(42), anchor="lm")
    draw.text((SIDE - MARGIN, SIDE - BAND + 40), "drawn by the demo model", GREY, ImageFont.load_default(20), anchor="rm")
    steps_below(draw, chosen[(len(chosen) - 1) // 2], card.steps)
    return image


def tag(draw: ImageDraw.ImageDraw, x: int, y: int, text: str) -> None:
    """White words on a dark pill around (x, y)."""
    font = ImageFont.load_default(26)
    half = draw.textlength(text, font) / 2 + 14
    draw.rounded_rectangle((x - half, y - 20, x + half, y + 20), 20, DARK)
    draw.text((x, y), text, LIGHT, font, anchor="mm")


def steps_below(draw: ImageDraw.ImageDraw, chosen: tuple[int, ...], steps: int) -> None:
    """A cell a step, filled where the model runs."""
    pitch = (SIDE - 2 * MARGIN) / steps
    for step in range(steps):
        left = MARGIN + step * pitch
        box = (left + 1.5, SIDE - 54, left + pitch - 1.5, SIDE - MARGIN)
        draw.rounded_rectangle(box, 3, ORANGE if step in chosen else DARK, ORANGE if step in chosen else HOLLOW, 2)


def main() -> None:
    """Write them all."""
    torch.set_num_threads(1)
    for name, card in CARDS.items():
        draw_card(card).save(FOLDER / f"{name}.jpg", quality=86, optimize=True)


if __name__ == "__main__":
    main()
