"""The example workflow that calibrates a real model with the four named nodes."""

from . import model_files
from .litegraph import Workflow
from .model_files import addresses, listed
from .real_models import LOW, NARROW

STEPS, REFERENCE, ANCHOR, BUDGET = 20, 10, 4, 6
CASES, MOST_RUNS = 2, 28  # a case costs at most so many full runs (otcache_core.calibration.settings)

NOTE = f"""\
## FLUX.1 [dev], calibrated

OT Auto Cache (otcache_flux_dev) learns from one picture, at no more than half a run. A calibration costs much more, once, and \
finds better steps where very few of them run the model.

**What it costs.** At most {CASES * MOST_RUNS} full runs of {STEPS} steps, at 512 x 512: by their size about 20 pictures of \
1024 x 1024; it was not measured. The nodes show how long it takes. Cancelled, it goes on where it stopped when you press Run.

1. **OT Reference Schedule** records {CASES} runs in full and finds a schedule of {REFERENCE} steps.
2. **OT Anchor Search** searches {ANCHOR} steps by the finished pictures and prepares every budget from {ANCHOR} to \
{REFERENCE}. OT Save Schedule keeps it all as flux1-dev.
3. **OT Budget Interpolate** is the slider: so many of the {STEPS} steps run the model.
4. **OT Cached Sampler** draws the picture. Move the slider and press Run again: only the picture is made anew.

Put your LoRAs behind the loader, and calibrate with your guidance on a prompt like your own. The picture's size may differ. \
In later sessions connect OT Load Schedule, which gives you flux1-dev, to OT Budget Interpolate in place of OT Anchor Search. \
OT Auto Cache uses what was found, too.

**Not tried yet on this model**, only on the tiny one that comes with OTCache (otcache_demo). **Files**, 34 GB in all; ComfyUI \
offers to download those that are missing:

{listed(model_files.FLUX_DEV)}
"""


def calibrate(info: dict) -> Workflow:
    """The usual workflow along the top, the calibration below it; wires of the upper ones pass over the lower ones."""
    w = Workflow("otcache_calibrate", info, NOTE, addresses(model_files.FLUX_DEV), note_line=14, start=0,
                 note_left=30, note_top=790, note_width=655)  # fmt: skip
    grid = {"steps": STEPS, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
    with w.group("Load and describe", width=205):
        w.drop(200)
        clip = w.add("DualCLIPLoader", clip_name1="clip_l.safetensors", clip_name2="t5xxl_fp16.safetensors", type="flux")
        w.column(drop=200, width=205)
        text = w.add("CLIPTextEncode", "Prompt", clip=clip["CLIP"], text="A lighthouse on a cliff at dusk, waves below, warm "
                     "light in the windows, oil painting")  # fmt: skip
        small = w.add("EmptySD3LatentImage", "Size to calibrate at", above=100, tall=LOW, width=512, height=512)
        w.column(width=NARROW)
        vae = w.add("VAELoader", vae_name="ae.safetensors")
        model = w.add("UNETLoader", unet_name="flux1-dev.safetensors")
        guided = w.add("FluxGuidance", conditioning=text["CONDITIONING"], guidance=3.5)
        empty = w.add("ConditioningZeroOut", conditioning=text["CONDITIONING"])
    prompts = {"positive": guided["CONDITIONING"], "negative": empty["CONDITIONING"]}
    with w.group("1, 2  Calibrate, once", drop=580):
        w.drop(95)
        reference = w.add("OTReferenceSchedule", model=model["MODEL"], latent_image=small["LATENT"], seed=100,
                          budget=REFERENCE, cases=CASES, **prompts, **grid)  # fmt: skip
        w.column()
        anchor = w.add("OTAnchorSearch", model=model["MODEL"], vae=vae["VAE"], calibration=reference["calibration"],
                       reference=reference["reference"], budget=ANCHOR)  # fmt: skip
    with w.group("3  Choose size and budget", drop=255):
        large = w.add("EmptySD3LatentImage", "Size of the picture", tall=LOW, width=1024, height=1024)
        w.add("PreviewAny", "What was found", tall=LOW, source=anchor["summary"])
        chosen = w.add("OTBudgetInterpolate", anchor=anchor["anchor"], above=59, budget=BUDGET)
    with w.group("4  Draw, and keep what was found"):
        w.drop(66)
        latent = w.add("OTCachedSampler", tall=514, model=model["MODEL"], latent_image=large["LATENT"],
                       schedule=chosen["schedule"], seed=1, **prompts, **grid)  # fmt: skip
        w.add("OTSaveSchedule", schedule=anchor["anchor"], name="flux1-dev")
        w.column(width=NARROW)
        image = w.add("VAEDecode", samples=latent["latent"], vae=vae["VAE"])
        w.column(width=200)
        w.add("SaveImage", images=image["IMAGE"], filename_prefix="otcache/calibrate")
    return w
