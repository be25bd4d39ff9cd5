"""What the shipped example workflows contain."""

from .layout import Node
from .litegraph import Workflow

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

PRESET_NOTE = """\
## {model} with OTCache

{about}

**Files**, in ComfyUI's usual folders:

{files}

OT Load Schedule holds a published schedule: the last number of its name is how often the model runs in {steps} steps. It
was made by other authors with their own code and has not been measured here. To judge it, bypass OT Apply Cache
(Ctrl+B) for the full run with the same seed and put both pictures into OT Compare.

A schedule calibrated on your model, size and guidance is better: open the workflow `otcache_demo` and connect these
loaders there.
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


def _files(**folders: str) -> str:
    return "\n".join(f"- {folder}: {names}" for folder, names in folders.items())


def flux_dev(info: dict) -> Workflow:
    """FLUX.1 dev, KSampler with CFG 1."""
    note = PRESET_NOTE.format(
        model="FLUX.1 dev",
        about="50 steps with the model run 15 times. Guidance is built into this model, so CFG stays at 1.",
        files=_files(diffusion_models="flux1-dev.safetensors", text_encoders="clip_l.safetensors, t5xxl_fp16.safetensors",
                     vae="ae.safetensors"),
        steps=STEPS,
    )  # fmt: skip
    w = Workflow("otcache_flux_dev", info, note)
    with w.group("1  Load"):
        model = w.add("UNETLoader", unet_name="flux1-dev.safetensors")
        clip = w.add("DualCLIPLoader", clip_name1="clip_l.safetensors", clip_name2="t5xxl_fp16.safetensors", type="flux")
        vae = w.add("VAELoader", vae_name="ae.safetensors")
    with w.group("2  Describe"):
        text = w.add("CLIPTextEncode", clip=clip["CLIP"], text="A lighthouse on a cliff at dusk, waves below, warm light in "
                     "the windows, oil painting")  # fmt: skip
        positive = w.add("FluxGuidance", conditioning=text["CONDITIONING"], guidance=3.5)
        negative = w.add("ConditioningZeroOut", conditioning=text["CONDITIONING"])
        size = w.add("EmptySD3LatentImage", width=1024, height=1024)
    with w.group("3  Cache"):
        shifted = w.add("ModelSamplingFlux", model=model["MODEL"])
        model = _with_preset(w, shifted, "lemica-flux1-dev-15")
    _sample(w, model, vae, positive=positive["CONDITIONING"], negative=negative["CONDITIONING"], latent_image=size["LATENT"],
            cfg=1.0)  # fmt: skip
    return w


def qwen_image(info: dict) -> Workflow:
    """Qwen-Image, KSampler with CFG 4."""
    note = PRESET_NOTE.format(
        model="Qwen-Image",
        about="50 steps with the model run 17 times. Leave the Lightning LoRA off: with 4 or 8 steps there is little to save.",
        files=_files(diffusion_models="qwen_image_fp8_e4m3fn.safetensors",
                     text_encoders="qwen_2.5_vl_7b_fp8_scaled.safetensors", vae="qwen_image_vae.safetensors"),
        steps=STEPS,
    )  # fmt: skip
    w = Workflow("otcache_qwen_image", info, note)
    with w.group("1  Load"):
        model = w.add("UNETLoader", unet_name="qwen_image_fp8_e4m3fn.safetensors")
        clip = w.add("CLIPLoader", clip_name="qwen_2.5_vl_7b_fp8_scaled.safetensors", type="qwen_image")
        vae = w.add("VAELoader", vae_name="qwen_image_vae.safetensors")
    with w.group("2  Describe"):
        positive = w.add("CLIPTextEncode", "Prompt", clip=clip["CLIP"], text="A small bookshop on a rainy evening, the sign "
                         'above the door reads "OPEN", reflections on the pavement')  # fmt: skip
        negative = w.add("CLIPTextEncode", "Negative prompt", clip=clip["CLIP"], text="")
        size = w.add("EmptySD3LatentImage", width=1328, height=1328)
    with w.group("3  Cache"):
        shifted = w.add("ModelSamplingAuraFlow", model=model["MODEL"], shift=3.1)
        model = _with_preset(w, shifted, "meancache-qwen-image-17")
    _sample(w, model, vae, positive=positive["CONDITIONING"], negative=negative["CONDITIONING"], latent_image=size["LATENT"],
            cfg=4.0)  # fmt: skip
    return w


def hunyuan_video(info: dict) -> Workflow:
    """HunyuanVideo, SamplerCustomAdvanced as in the official template."""
    note = PRESET_NOTE.format(
        model="HunyuanVideo",
        about="No schedule has been published for this model. The preset is one of Wan 2.1's, fitted to this model's noise "
        "levels: 50 steps with the model run 20 times. Treat it as a first try and calibrate.",
        files=_files(diffusion_models="hunyuan_video_t2v_720p_bf16.safetensors",
                     text_encoders="clip_l.safetensors, llava_llama3_fp8_scaled.safetensors",
                     vae="hunyuan_video_vae_bf16.safetensors"),
        steps=STEPS,
    )  # fmt: skip
    w = Workflow("otcache_hunyuan_video", info, note)
    with w.group("1  Load"):
        model = w.add("UNETLoader", unet_name="hunyuan_video_t2v_720p_bf16.safetensors")
        clip = w.add("DualCLIPLoader", clip_name1="clip_l.safetensors", clip_name2="llava_llama3_fp8_scaled.safetensors",
                     type="hunyuan_video")  # fmt: skip
        vae = w.add("VAELoader", vae_name="hunyuan_video_vae_bf16.safetensors")
    with w.group("2  Describe"):
        text = w.add("CLIPTextEncode", clip=clip["CLIP"], text="A red kite rises over a windy beach, the camera follows it, "
                     "bright afternoon light")  # fmt: skip
        positive = w.add("FluxGuidance", conditioning=text["CONDITIONING"], guidance=6.0)
        size = w.add("EmptyHunyuanLatentVideo", width=848, height=480, length=73)
    with w.group("3  Cache"):
        shifted = w.add("ModelSamplingSD3", model=model["MODEL"], shift=7.0)
        model = _with_preset(w, shifted, "lemica-wan2.1-t2v-14b-20")
    with w.group("4  Sample"):
        noise = w.add("RandomNoise", noise_seed=1)
        guider = w.add("BasicGuider", model=model["model"], conditioning=positive["CONDITIONING"])
        sampler = w.add("KSamplerSelect", sampler_name="euler")
        sigmas = w.add("BasicScheduler", model=model["model"], scheduler="simple", steps=STEPS)
        w.column()
        latent = w.add("SamplerCustomAdvanced", noise=noise["NOISE"], guider=guider["GUIDER"], sampler=sampler["SAMPLER"],
                       sigmas=sigmas["SIGMAS"], latent_image=size["LATENT"])  # fmt: skip
        frames = w.add("VAEDecodeTiled", samples=latent["output"], vae=vae["VAE"], tile_size=256)
        w.add("SaveWEBM", images=frames["IMAGE"], filename_prefix="otcache/hunyuan_video", fps=24.0)
    return w


def _with_preset(w: Workflow, model: Node, preset: str) -> Node:
    schedule = w.add("OTLoadSchedule", schedule=preset)
    return w.add("OTApplyCache", model=model["MODEL"], schedule=schedule["schedule"])


def _sample(w: Workflow, model: Node, vae: Node, **sampling) -> None:
    with w.group("4  Sample"):
        latent = w.add("KSampler", model=model["model"], seed=1, steps=STEPS, sampler_name="euler", scheduler="simple",
                       **sampling)  # fmt: skip
        image = w.add("VAEDecode", samples=latent["LATENT"], vae=vae["VAE"])
        w.column()
        w.add("SaveImage", images=image["IMAGE"], filename_prefix=f"otcache/{w.name.removeprefix('otcache_')}")


ALL = (demo, flux_dev, qwen_image, hunyuan_video)
