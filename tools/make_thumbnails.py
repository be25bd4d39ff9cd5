"""Writes the pictures that stand beside the example workflows in ComfyUI's template browser.

    python -m tools.make_thumbnails CACHED.png FULL.png

CACHED.png and FULL.png: what running otcache_demo saved (otcache/cached_*.png and otcache/full_*.png). The other workflows
need models of many gigabytes, so theirs is a drawing of the schedule that they load.
"""

import json
import sys

from PIL import Image, ImageDraw, ImageFont

from otcache_core.schedules.presets import preset
from otcache_core.schedules.schedule import Schedule

from .make_workflows import FOLDER

SIDE, MARGIN, COLUMNS = 640, 40, 10
PAPER, INK, FILLED, HOLLOW = "#ffffff", "#1d2430", "#2166ac", "#c3c9d2"


def schedule_card(title: str, schedule: Schedule) -> Image.Image:
    """One cell a step, in reading order: filled where the model runs."""
    image, draw = _card(title, f"the model runs in {schedule.budget} of {schedule.steps} steps")
    cell = (SIDE - 2 * MARGIN) // COLUMNS
    rows = -(-schedule.steps // COLUMNS)
    top = 170 + (SIDE - MARGIN - 170 - rows * cell) // 2
    for step in range(schedule.steps):
        x, y = MARGIN + step % COLUMNS * cell, top + step // COLUMNS * cell
        chosen = step in schedule.compute_steps
        draw.rounded_rectangle((x + 4, y + 4, x + cell - 4, y + cell - 4), 8, FILLED if chosen else PAPER,
                               FILLED if chosen else HOLLOW, 3)  # fmt: skip
    return image


def pictures_card(title: str, pictures: dict[str, Image.Image], line: str) -> Image.Image:
    """Pictures beside each other under their names."""
    image, draw = _card(title, line)
    side = (SIDE - 2 * MARGIN - 20 * (len(pictures) - 1)) // len(pictures)
    for number, (name, picture) in enumerate(pictures.items()):
        x = MARGIN + number * (side + 20)
        image.paste(picture.resize((side, side), Image.Resampling.NEAREST), (x, 250))
        draw.text((x + side / 2, 225), name, INK, ImageFont.load_default(24), anchor="mm")
    return image


def _card(title: str, line: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, 50), title, INK, ImageFont.load_default(48))
    draw.text((MARGIN, 118), line, INK, ImageFont.load_default(26))
    return image, draw


def _preset_of(name: str) -> Schedule:
    nodes = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["nodes"]
    return preset(next(node["widgets_values"][0] for node in nodes if node["type"] == "OTLoadSchedule"))


def main(cached: str, full: str) -> None:
    """Write all four."""
    pictures = {"10 evaluations": Image.open(cached).convert("RGB"), "full run: 50": Image.open(full).convert("RGB")}
    cards = {"otcache_demo": pictures_card("OTCache demo", pictures, "runs at once, on a CPU, without a download")}
    for name, title in (("flux_dev", "FLUX.1 dev"), ("qwen_image", "Qwen-Image"), ("hunyuan_video", "HunyuanVideo")):
        cards[f"otcache_{name}"] = schedule_card(title, _preset_of(f"otcache_{name}"))
    for name, card in cards.items():
        card.save(FOLDER / f"{name}.jpg", quality=88, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
