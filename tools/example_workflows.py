"""What the shipped example workflows contain."""

from .calibrate_workflow import calibrate
from .litegraph import Workflow
from .real_models import flux_dev, hunyuan_video, qwen_image, wan_22, z_image

STEPS = 50
CALIBRATION_SCENES = 4

DEMO_NOTE = """\
## OTCache in five minutes, on a CPU

Press **Run**: nothing has to be downloaded. The first run takes about a minute, later ones a second.

1. **OT Demo Model** is a FLUX-style model of 2.3 million parameters that draws 64 x 64 landscapes.
2. **OT Reference Schedule** records a few full runs of other scenes and finds a conservative schedule.
3. **OT Anchor Search** finds the best steps for a tiny budget, then prepares every budget between the two.
4. Move **budget** in OT Budget Interpolate and run again: calibration is not repeated, only the picture is drawn anew.
5. **OT Compare** shows how far the cached picture is from the full one.

With your own model, connect its loader in place of OT Demo Model. Calibrate once and keep the result with OT Save Schedule.
"""


def demo(info: dict) -> Workflow:
    """Calibrate, search, slide, sample, compare, with the embedded model."""
    w = Workflow("otcache_demo", info, DEMO_NOTE)
    grid = {"steps": STEPS, "cfg": 7.5, "sampler_name": "euler", "scheduler": "simple"}
    with w.group("1  The model"):
        scenes = w.add("OTDemoModel", "Scenes to calibrate on", random_scenes=1000, batch_size=CALIBRATION_SCENES)
    with w.group("2  Calibrate, once"):
        reference = w.add("OTReferenceSchedule", model=scenes["model"], positive=scenes["positive"],
                          negative=scenes["negative"], latent_image=scenes["latent"], seed=100, **grid,
                          cases=CALIBRATION_SCENES)  # fmt: skip
        w.column()
        anchor = w.add("OTAnchorSearch", model=scenes["model"], vae=scenes["vae"], calibration=reference["calibration"],
                       reference=reference["reference"])  # fmt: skip
        w.add("PreviewAny", "What was found", source=anchor["summary"])
        w.column()
        w.add("PreviewImage", "Reference", images=reference["plot"])
        w.add("PreviewImage", "All budgets", images=anchor["plot"])
    w.row()
    with w.group("3  Choose a budget"):
        chosen = w.add("OTBudgetInterpolate", reference=reference["reference"], anchor=anchor["anchor"], budget=10)
        w.add("PreviewImage", "Schedule", images=chosen["plot"])
    with w.group("4  Draw: cached, and in full"):
        picture = w.add("OTDemoModel", "The picture to draw")
        w.column()
        sampling = {"model": picture["model"], "positive": picture["positive"], "negative": picture["negative"],
                    "latent_image": picture["latent"], "seed": 4, **grid}  # fmt: skip
        cached = w.add("OTCachedSampler", schedule=chosen["schedule"], **sampling)
        full = w.add("KSampler", "Full run", **sampling)
        w.column()
        cached_image = w.add("VAEDecode", "Cached picture", samples=cached["latent"], vae=picture["vae"])
        full_image = w.add("VAEDecode", "Full picture", samples=full["LATENT"], vae=picture["vae"])
        w.add("PreviewAny", "What was saved", source=cached["report"])
    with w.group("5  Compare"):
        compared = w.add("OTCompare", cached=cached_image["IMAGE"], full=full_image["IMAGE"])
        w.add("PreviewAny", "Distance", source=compared["metrics"])
        w.column()
        w.add("SaveImage", "Cached, full, difference", images=compared["side by side"], filename_prefix="otcache/compare")
        w.column()
        w.add("SaveImage", "Cached picture", images=cached_image["IMAGE"], filename_prefix="otcache/cached")
        w.add("SaveImage", "Full picture", images=full_image["IMAGE"], filename_prefix="otcache/full")
    return w


ALL = (demo, flux_dev, qwen_image, z_image, hunyuan_video, wan_22, calibrate)
