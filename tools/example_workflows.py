"""What the shipped example workflows contain."""

from otcache_core.schedules.interpolation import budget_for_speedup

from .calibrate_workflow import calibrate
from .litegraph import Workflow
from .real_models import SPEEDUP, flux_dev, hunyuan_video, qwen_image, wan_22, z_image

STEPS = 50
CALIBRATION_SCENES = 4

START_NOTE = """\
## A first look

Press **Run**. The first run is made in full, and **OT Auto Cache** learns the model from it.

Choose another **sky** and run again: now {budget} of {steps} steps run the model.

With your own model: put OT Auto Cache between loader and sampler.
"""
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


def start(info: dict) -> Workflow:
    """Load, apply, compare, with the embedded model; the wires of the full run pass above, those of the cached one below."""
    note = START_NOTE.format(budget=budget_for_speedup(STEPS, SPEEDUP), steps=STEPS)
    w = Workflow("otcache_start", info, note, note_line=16, note_width=310, start=0, note_top=50)
    grid = {"steps": STEPS, "cfg": 7.5, "sampler_name": "euler", "scheduler": "simple", "seed": 4}
    with w.group("1  Load", drop=320):
        loaded = w.add("OTDemoModel", "OT Demo Model: the scene")
    given = {"positive": loaded["positive"], "negative": loaded["negative"], "latent_image": loaded["latent"], **grid}
    with w.group("2  Apply", drop=625):
        cached = w.add("OTAutoCache", model=loaded["model"])
    with w.group("The full run"):
        full = w.add("KSampler", "KSampler, in full", model=loaded["model"], **given)
    with w.group("The cached run", below=True, drop=72):
        quick = w.add("KSampler", "KSampler, cached", model=cached["model"], **given)
    with w.group("3  Compare", drop=312):
        full_image = w.add("VAEDecode", samples=full["LATENT"], vae=loaded["vae"])
        quick_image = w.add("VAEDecode", samples=quick["LATENT"], vae=loaded["vae"])
        w.column(width=420)
        # Not core's ImageCompare, which shows nothing in the classic canvas.
        w.add("OTCompare", cached=quick_image["IMAGE"], full=full_image["IMAGE"])
    return w


def demo(info: dict) -> Workflow:
    """Calibrate, search, slide, sample, compare, with the embedded model; later columns' wires pass above or below."""
    w = Workflow("otcache_demo", info, DEMO_NOTE, note_line=12, note_width=700, start=0, note_top=755)
    grid = {"steps": STEPS, "cfg": 7.5, "sampler_name": "euler", "scheduler": "simple"}
    with w.group("1  The model"):
        scenes = w.add("OTDemoModel", "Scenes to calibrate on", random_scenes=1000, batch_size=CALIBRATION_SCENES)
    with w.group("2  Calibrate, once"):
        w.drop(130)
        reference = w.add("OTReferenceSchedule", model=scenes["model"], positive=scenes["positive"],
                          negative=scenes["negative"], latent_image=scenes["latent"], seed=100, **grid,
                          cases=CALIBRATION_SCENES)  # fmt: skip
        w.column()
        anchor = w.add("OTAnchorSearch", model=scenes["model"], vae=scenes["vae"], calibration=reference["calibration"],
                       reference=reference["reference"])  # fmt: skip
    with w.group("3  Choose a budget"):
        chosen = w.add("OTBudgetInterpolate", anchor=anchor["anchor"], budget=10)
    with w.group("4  Describe", below=True, drop=20):
        picture = w.add("OTDemoModel", "The picture to draw")
    sampling = {"model": picture["model"], "positive": picture["positive"], "negative": picture["negative"],
                "latent_image": picture["latent"], "seed": 4, **grid}  # fmt: skip
    with w.group("5  Draw, cached", left=60):
        cached = w.add("OTCachedSampler", schedule=chosen["schedule"], **sampling)
    with w.group("... and in full", below=True, drop=125):
        full = w.add("KSampler", "Full run", **sampling)
    with w.group("6  Compare", left=60, drop=480):
        cached_image = w.add("VAEDecode", "Cached picture", samples=cached["latent"], vae=picture["vae"])
        full_image = w.add("VAEDecode", "Full picture", samples=full["LATENT"], vae=picture["vae"])
        w.column(width=340)
        w.add("OTCompare", cached=cached_image["IMAGE"], full=full_image["IMAGE"])
    return w


ALL = (start, demo, flux_dev, qwen_image, z_image, hunyuan_video, wan_22, calibrate)
