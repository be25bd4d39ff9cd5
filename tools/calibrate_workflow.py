"""The example workflow that calibrates a real model with the four named nodes."""

from . import model_files
from .litegraph import Workflow
from .model_files import addresses, listed
from .real_models import NOTE_LINE

STEPS, REFERENCE, ANCHOR, BUDGET = 20, 10, 4, 6
CASES, MOST_RUNS = 2, 28  # a case costs at most so many full runs (otcache_core.calibration.pipeline)

NOTE = f"""\
## FLUX.1 [dev], calibrated

OT Auto Cache (otcache_flux_dev) learns from one picture, at no more than half a run. A calibration costs much more, once, and \
finds better steps where very few of them run the model.

**What it costs.** At most {CASES * MOST_RUNS} full runs of {STEPS} steps, at 512 x 512. By the size of the pictures that is \
about as long as 20 pictures of 1024 x 1024; it was not measured. The nodes show how long it takes. You can cancel: it goes on \
where it stopped when you press Run again.

1. **OT Reference Schedule** records {CASES} runs in full and finds a schedule of {REFERENCE} steps.
2. **OT Anchor Search** searches {ANCHOR} steps by the finished pictures, then prepares every budget from {ANCHOR} to \
{REFERENCE}. OT Save Schedule keeps it all as flux1-dev in models/otcache_schedules.
3. **OT Budget Interpolate** is the slider: so many of the {STEPS} steps run the model.
4. **OT Cached Sampler** draws the picture. Move the slider and press Run again: only the picture is made anew. {STEPS} is the \
full run.

Use the LoRAs that you will use: put them behind the loader. Calibrate on a prompt like your own, with your guidance. The \
picture's size may differ.

In later sessions OT Load Schedule gives you flux1-dev: connect it to OT Budget Interpolate in place of OT Anchor Search. \
OT Auto Cache uses what was found, too.

**Not tried yet on this model.** So far OTCache was measured only on the tiny model that comes with it (otcache_demo).

**Files**, 34 GB in all, and where they go. ComfyUI offers to download those that are missing.

{listed(model_files.FLUX_DEV)}
"""


def calibrate(info: dict) -> Workflow:
    """The usual workflow along the top, the calibration below it; wires of the upper ones pass over the lower ones."""
    w = Workflow("otcache_calibrate", info, NOTE, addresses(model_files.FLUX_DEV), NOTE_LINE)
    grid = {"steps": STEPS, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
    with w.group("Load and describe"):
        w.drop(320)
        clip = w.add("DualCLIPLoader", clip_name1="clip_l.safetensors", clip_name2="t5xxl_fp16.safetensors", type="flux")
        w.column(drop=320)
        text = w.add("CLIPTextEncode", "Prompt", clip=clip["CLIP"], text="A lighthouse on a cliff at dusk, waves below, warm "
                     "light in the windows, oil painting")  # fmt: skip
        w.column()
        vae = w.add("VAELoader", vae_name="ae.safetensors")
        model = w.add("UNETLoader", unet_name="flux1-dev.safetensors")
        guided = w.add("FluxGuidance", conditioning=text["CONDITIONING"], guidance=3.5)
        empty = w.add("ConditioningZeroOut", conditioning=text["CONDITIONING"])
        large = w.add("EmptySD3LatentImage", "Size of the picture", width=1024, height=1024)
        small = w.add("EmptySD3LatentImage", "Size to calibrate at", width=512, height=512)
    prompts = {"positive": guided["CONDITIONING"], "negative": empty["CONDITIONING"]}
    with w.group("1  Record full runs, once", drop=690):
        reference = w.add("OTReferenceSchedule", model=model["MODEL"], latent_image=small["LATENT"], seed=100,
                          budget=REFERENCE, cases=CASES, **prompts, **grid)  # fmt: skip
    with w.group("2  Search, once", drop=570):
        anchor = w.add("OTAnchorSearch", model=model["MODEL"], vae=vae["VAE"], calibration=reference["calibration"],
                       reference=reference["reference"], budget=ANCHOR)  # fmt: skip
    with w.group("3  Choose a budget, keep it", drop=570):
        chosen = w.add("OTBudgetInterpolate", anchor=anchor["anchor"], budget=BUDGET)
        w.add("OTSaveSchedule", schedule=anchor["anchor"], name="flux1-dev")
        w.add("PreviewAny", "What was found", source=anchor["summary"])
    with w.group("4  Draw"):
        w.drop(148)
        latent = w.add("OTCachedSampler", model=model["MODEL"], latent_image=large["LATENT"], schedule=chosen["schedule"],
                       seed=1, **prompts, **grid)  # fmt: skip
        w.column()
        image = w.add("VAEDecode", samples=latent["latent"], vae=vae["VAE"])
        w.column()
        w.add("SaveImage", images=image["IMAGE"], filename_prefix="otcache/calibrate")
    return w
