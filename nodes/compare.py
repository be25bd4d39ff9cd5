"""OT Compare: how far a cached picture is from the full run's."""

from collections.abc import Callable

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..otcache_core.calibration import metrics
from ..otcache_core.drawing.image_grid import ERROR_FULL_SCALE, error_map
from ..otcache_core.errors import OTCacheError
from .host.lpips_folders import lpips_folders
from .made_with import differing
from .pictures import colours
from .schema import field, schema

SHOWN = 8  # pictures of a batch on the node, the worst first
GUTTER = 8  # white pixels between the pictures beside each other
APART = {35: "hard to tell apart", 25: "differs in details", -np.inf: "differs at a glance"}  # dB of the worst


class OTCompare(io.ComfyNode):
    """Metrics, a map of the differences, and the pictures beside each other; for batches and video frames too."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="OTCompare",
            display_name="OT Compare",
            description="Measures how far pictures made with a cache are from those of the full run with the same seed.",
            is_output_node=True,
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            inputs=[
                field(io.Image.Input, "cached", tooltip="The picture, batch or video frames made with fewer evaluations."),
                field(io.Image.Input, "full", tooltip="The same from the full run: same seed, steps, prompt and size."),
                field(io.Boolean.Input, "lpips", default=False, advanced=True, tooltip="Also measure LPIPS, "
                      "which needs its network: see download."),  # fmt: skip
                field(io.Float.Input, "full_scale", default=ERROR_FULL_SCALE, min=0.01, max=1.0, step=0.01, advanced=True,
                      tooltip="The difference, as a share of the picture's range, that the map draws brightest."),  # fmt: skip
                field(io.Boolean.Input, "download", default=False, optional=True, advanced=True, tooltip="Whether LPIPS may "
                      "download its network (about 240 MB, once) into models/lpips where no model folder has it."),  # fmt: skip
            ],
            outputs=[
                field(io.String.Output, "metrics", display_name="metrics", tooltip="The numbers as text."),
                field(io.Image.Output, "difference", display_name="difference", tooltip="Where the pictures differ: black is "
                      "equal, brighter is worse."),  # fmt: skip
                field(io.Image.Output, "side_by_side", display_name="side by side", tooltip="Cached, full and difference from "
                      "left to right."),  # fmt: skip
            ],
        )

    @classmethod
    def execute(cls, cached: torch.Tensor, full: torch.Tensor, lpips: bool = False,
                full_scale: float = ERROR_FULL_SCALE, download: bool = False) -> io.NodeOutput:  # fmt: skip
        cached, full = colours(cached, "cached"), colours(full, "full")
        if cached.shape != full.shape:
            raise OTCacheError(f"cached is {_size(cached)} and full is {_size(full)}; compare pictures of one size and number.")
        seeds, settings = differing(cls.hidden.prompt, cls.hidden.unique_id, "cached", "full") if cls.hidden else ("", "")
        if torch.equal(cached, full):
            numbers = "equal to the last bit"
        else:
            numbers = describe(cached, full, lpips, download)
            numbers = numbers if seeds else f"{judged(cached, full)}\n{numbers}"
        text = "\n".join(filter(None, [seeds, settings, numbers]))
        maps = [error_map(a.numpy(), b.numpy(), full_scale) for a, b in zip(cached, full, strict=True)]
        difference = torch.from_numpy(np.stack(maps))
        gap = torch.ones(*cached.shape[:2], GUTTER, 3)
        beside = torch.cat((cached, gap, full, gap, difference), dim=2)
        worst = np.argsort([-float((a - b).square().mean()) for a, b in zip(cached, full, strict=True)], kind="stable")
        shown = ui.PreviewImage(beside[worst[:SHOWN].copy()]).as_dict() | ui.PreviewText(text).as_dict()
        return io.NodeOutput(text, difference, beside, ui=shown | {"otcache": [{"kind": "compared", "text": text}]})


def judged(cached: torch.Tensor, full: torch.Tensor) -> str:
    """How near the worst of the pictures is, in words; [n, H, W, 3] both."""
    least = min(metrics.psnr(*(x[k : k + 1].movedim(-1, 1) for x in (cached, full)))[0] for k in range(len(cached)))
    return next(words for db, words in APART.items() if least >= db)


def describe(cached: torch.Tensor, full: torch.Tensor, lpips: bool = False, download: bool = False) -> str:
    """One line a metric; [n, H, W, 3] both. A metric that cannot be computed says why and how to mend it."""
    rows: list[tuple[str, metrics.Metric, Callable, str]] = [
        ("PSNR", metrics.psnr, min, "{:.2f} dB"),
        ("RMSE", metrics.rmse, max, "{:.5f}"),
        ("SSIM", metrics.ssim, min, "{:.4f}"),
        ("MS-SSIM", metrics.ms_ssim, min, "{:.4f}"),
    ]
    if lpips:

        def measure(a, b):
            metrics.prepare_lpips(lpips_folders(), download)
            return metrics.lpips(a, b)

        rows.append(("LPIPS", measure, max, "{:.4f}"))
    lines = [f"{name}: {_measured(metric, worst, form, cached, full)}" for name, metric, worst, form in rows]
    return "\n".join(lines)


def _measured(metric: metrics.Metric, worst: Callable, form: str, cached: torch.Tensor, full: torch.Tensor) -> str:
    try:
        # One at a time: the metrics' intermediate results for a whole video would not fit into memory.
        values = np.concatenate([metric(*(x[k : k + 1].movedim(-1, 1) for x in (cached, full))) for k in range(len(cached))])
    except OTCacheError as error:
        return f"not measured. {error}"
    if len(values) == 1:
        return form.format(values[0])
    number = values.tolist().index(worst(values))
    return f"{form.format(values.mean())} (mean), {form.format(values[number])} (worst, picture {number + 1} of {len(values)})"


def _size(image: torch.Tensor) -> str:
    count, height, width, _ = image.shape
    return f"{count} of {width} x {height}"
