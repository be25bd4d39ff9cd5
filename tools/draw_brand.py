"""Draws docs/brand/icon.svg, icon.png (400 x 400) and banner.png (1344 x 576). Run: python -m tools.draw_brand

The picture is the strip that the nodes show: filled cells run the model, hollow ones are predicted, below the noise that falls.
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "brand"
NIGHT, INK, ACCENT = "#14181f", "#f2f4f8", "#3b8eea"
STEPS = (1, 1, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 1, 1)  # dense at the ends, as calibrated schedules are
SCALE = 4  # drawn larger, then reduced, for smooth edges


def sigma(t: float) -> float:
    """A shifted flow schedule at time t in [0, 1]."""
    return 3 * (1 - t) / (1 + 2 * (1 - t))


def strip(left: float, top: float, width: float, height: float, steps=STEPS) -> tuple[list, list, list]:
    """Filled boxes, hollow boxes (left, top, right, bottom) and the curve's points for a picture in that frame."""
    pitch, cell = width / len(steps), height * 0.38
    filled, hollow, curve = [], [], []
    for i, runs in enumerate(steps):
        x, y = left + i * pitch, top + height - cell
        inset = 0 if runs else cell * 0.24
        (filled if runs else hollow).append((x + pitch * 0.12, y + inset, x + pitch * 0.88, y + cell - inset))
        curve.append((x + pitch / 2, top + (1 - sigma(i / (len(steps) - 1))) * height * 0.46))
    return filled, hollow, curve


def paint(draw: ImageDraw.ImageDraw, frame: tuple, line: float, steps=STEPS) -> None:
    filled, hollow, curve = strip(*frame, steps)
    draw.line(curve, fill=ACCENT, width=round(line * 1.4), joint="curve")
    for (x, y), runs in zip(curve, steps, strict=True):
        if runs:
            draw.ellipse((x - 1.6 * line, y - 1.6 * line, x + 1.6 * line, y + 1.6 * line), fill=INK)
    for box in filled:
        draw.rectangle(box, fill=INK)
    for box in hollow:
        draw.rectangle(box, outline=INK, width=max(round(line * 0.6), 1))


def svg(size: int, frame: tuple, line: float, steps) -> str:
    filled, hollow, curve = strip(*frame, steps)

    def rect(box, style):
        x, y, right, bottom = box
        return f'<rect x="{x:.1f}" y="{y:.1f}" width="{right - x:.1f}" height="{bottom - y:.1f}" {style}/>'

    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in curve)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}">',
        f'<rect width="{size}" height="{size}" rx="{size * 0.18:.0f}" fill="{NIGHT}"/>',
        f'<polyline points="{points}" fill="none" stroke="{ACCENT}" stroke-width="{line * 1.4:.1f}"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{line * 1.6:.1f}" fill="{INK}"/>'
          for (x, y), runs in zip(curve, steps, strict=True) if runs),
        *(rect(box, f'fill="{INK}"') for box in filled),
        *(rect(box, f'fill="none" stroke="{INK}" stroke-width="{line * 0.6:.1f}"') for box in hollow),
        "</svg>",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def canvas(width: int, height: int, radius: float) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGBA", (width * SCALE, height * SCALE), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((0, 0, width * SCALE - 1, height * SCALE - 1), radius * SCALE, fill=NIGHT)
    return image, draw


def enlarged(*numbers: float) -> tuple:
    return tuple(number * SCALE for number in numbers)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    few = (1, 1, 0, 1, 0, 0, 0, 1)
    frame = (52, 84, 296, 232)
    (FOLDER / "icon.svg").write_text(svg(400, frame, 8, few), encoding="utf-8")
    image, draw = canvas(400, 400, 72)
    paint(draw, enlarged(*frame), 8 * SCALE, few)
    image.resize((400, 400), Image.LANCZOS).save(FOLDER / "icon.png", optimize=True)
    image, draw = canvas(1344, 576, 0)
    paint(draw, enlarged(96, 300, 1152, 190), 6 * SCALE)
    draw.text(enlarged(96, 72), "OTCache", INK, ImageFont.load_default(110 * SCALE))
    words = "Run the model where it matters. Predict the rest."
    draw.text(enlarged(100, 212), words, INK, ImageFont.load_default(38 * SCALE))
    image.convert("RGB").resize((1344, 576), Image.LANCZOS).quantize(64).save(FOLDER / "banner.png", optimize=True)


if __name__ == "__main__":
    main()
