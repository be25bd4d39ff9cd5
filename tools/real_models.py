"""The example workflows for real models: ComfyUI's own settings for each, and OT Auto Cache before the sampler."""

from otcache_core.schedules.interpolation import budget_for_speedup

from . import model_files
from .layout import Output
from .litegraph import Workflow
from .model_files import addresses, listed

SPEEDUP = 3.0
NOTE_LINE = 17  # pixels

NOTE = """\
## {model} with OTCache

{about}

**Press Run, and Run again.**

1. The first run is made in full, and its {picture} is the one that you get without OT Auto Cache. {learns} from it and \
rehearses some short runs. That makes the first run half as long again or more, once.
2. From the second run on the model runs in {budget}. The other steps are predicted.

What was learnt is kept for later sessions, in models/otcache_schedules/learned. LoRA, prompt, size and guidance may change. \
Put LoRA nodes between the loader and OT Auto Cache.

**speedup** says how many times fewer steps run the model. Lower it to 2 where details change too much. 1 is the full run.

**Not tried yet on this model.** So far OTCache was measured only on the tiny model that comes with it (otcache_demo). To \
judge it here, set the seed to fixed and run. Then bypass OT Auto Cache (Ctrl+B) and run again. OT Compare measures how far \
apart the two {picture}s are.

**Files**, {size} in all, and where they go. ComfyUI offers to download those that are missing.

{files}
"""
LEARNS = "The model is learnt"
NARROW = 190  # pixels of a node beside another: Nodes 2.0 draws none narrower than 225
LOW = 120  # pixels of a node whose text can be scrolled
WAN_PROMPT = (
    "A paper boat drifts down a rain-wet street at night, the camera follows close to the water, lights of shops in the ripples"
)
WAN_NEGATIVE = (  # of the model's authors
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，"
    "画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)


def flux_dev(info: dict) -> Workflow:
    """FLUX.1 [dev]: guidance is built in, so CFG is 1."""
    w = _workflow(
        "flux_dev", info, "FLUX.1 [dev]", model_files.FLUX_DEV, "34 GB",
        about="20 steps at 1024 x 1024. Guidance is built into this model, so cfg stays at 1.", budget=_budget(20),
    )  # fmt: skip
    model = _cached_model(w, "flux1-dev.safetensors")
    with w.group("2  Describe", below=True):
        clip = w.add("DualCLIPLoader", clip_name1="clip_l.safetensors", clip_name2="t5xxl_fp16.safetensors", type="flux")
        w.column()
        text = w.add("CLIPTextEncode", "Prompt", clip=clip["CLIP"], text="A lighthouse on a cliff at dusk, waves below, warm "
                     "light in the windows, oil painting")  # fmt: skip
        w.column()
        positive = w.add("FluxGuidance", conditioning=text["CONDITIONING"], guidance=3.5)
        negative = w.add("ConditioningZeroOut", conditioning=text["CONDITIONING"])
        size = w.add("EmptySD3LatentImage", width=1024, height=1024)
    _sample(w, "ae.safetensors", model=model["model"], positive=positive["CONDITIONING"], negative=negative["CONDITIONING"],
            latent_image=size["LATENT"], steps=20, cfg=1.0)  # fmt: skip
    return w


def qwen_image(info: dict) -> Workflow:
    """Qwen-Image without the Lightning LoRA."""
    w = _workflow(
        "qwen_image", info, "Qwen-Image", model_files.QWEN_IMAGE, "30 GB",
        about="20 steps with cfg 4 at 1328 x 1328. The model's authors use 50 steps: with OT Auto Cache those run the model "
        f"{budget_for_speedup(50, SPEEDUP)} times. Leave Lightning LoRAs off: in 4 or 8 steps there is little to save.",
        budget=_budget(20),
    )  # fmt: skip
    model = _cached_model(w, "qwen_image_fp8_e4m3fn.safetensors", "ModelSamplingAuraFlow", shift=3.1)
    with w.group("2  Describe", below=True):
        clip = w.add("CLIPLoader", clip_name="qwen_2.5_vl_7b_fp8_scaled.safetensors", type="qwen_image")
        text = _prompts(w, clip["CLIP"], 'A small bookshop on a rainy evening, the sign above the door reads "OPEN", '
                        "reflections on the pavement")  # fmt: skip
        size = w.add("EmptySD3LatentImage", width=1328, height=1328)
    _sample(w, "qwen_image_vae.safetensors", model=model["model"], latent_image=size["LATENT"], steps=20, cfg=4.0, **text)
    return w


def z_image(info: dict) -> Workflow:
    """Z-Image base, not Turbo."""
    w = _workflow(
        "z_image", info, "Z-Image", model_files.Z_IMAGE, "21 GB",
        about="The base model: 25 steps of res_multistep with cfg 4 at 1024 x 1024. Z-Image Turbo makes a picture in 8 steps, "
        "where there is little to save.", budget=_budget(25),
    )  # fmt: skip
    model = _cached_model(w, "z_image_bf16.safetensors", "ModelSamplingAuraFlow", shift=3.0)
    with w.group("2  Describe", below=True):
        clip = w.add("CLIPLoader", clip_name="qwen_3_4b.safetensors", type="lumina2")
        text = _prompts(w, clip["CLIP"], "A market in an old harbour town at noon, baskets of lemons, fishing boats behind, "
                        "photograph, 35 mm")  # fmt: skip
        size = w.add("EmptySD3LatentImage", width=1024, height=1024)
    _sample(w, "ae.safetensors", model=model["model"], latent_image=size["LATENT"], steps=25, cfg=4.0,
            sampler_name="res_multistep", **text)  # fmt: skip
    return w


def hunyuan_video(info: dict) -> Workflow:
    """HunyuanVideo, SamplerCustomAdvanced as in the official template."""
    w = _workflow(
        "hunyuan_video", info, "HunyuanVideo", model_files.HUNYUAN_VIDEO, "35 GB", picture="video",
        about="20 steps, 73 frames of 848 x 480. Guidance is built into this model.", budget=_budget(20),
    )  # fmt: skip
    model = _cached_model(w, "hunyuan_video_t2v_720p_bf16.safetensors", "ModelSamplingSD3", shift=7.0)
    with w.group("2  Describe", below=True):
        clip = w.add("DualCLIPLoader", clip_name1="clip_l.safetensors", clip_name2="llava_llama3_fp8_scaled.safetensors",
                     type="hunyuan_video")  # fmt: skip
        w.column()
        text = w.add("CLIPTextEncode", "Prompt", clip=clip["CLIP"], text="A red kite rises over a windy beach, the camera "
                     "follows it, bright afternoon light")  # fmt: skip
        w.column()
        positive = w.add("FluxGuidance", conditioning=text["CONDITIONING"], guidance=6.0)
    with w.group("3  Sample and save"):
        noise = w.add("RandomNoise", noise_seed=1, control="randomize")
        guider = w.add("BasicGuider", model=model["model"], conditioning=positive["CONDITIONING"])
        sampler = w.add("KSamplerSelect", sampler_name="euler")
        sigmas = w.add("BasicScheduler", model=model["model"], scheduler="simple", steps=20)
        size = w.add("EmptyHunyuanLatentVideo", width=848, height=480, length=73)
        w.column(drop=300)
        latent = w.add("SamplerCustomAdvanced", noise=noise["NOISE"], guider=guider["GUIDER"], sampler=sampler["SAMPLER"],
                       sigmas=sigmas["SIGMAS"], latent_image=size["LATENT"])  # fmt: skip
        vae = w.add("VAELoader", vae_name="hunyuan_video_vae_bf16.safetensors")
        w.column(drop=300)
        frames = w.add("VAEDecodeTiled", samples=latent["output"], vae=vae["VAE"], tile_size=256)
        w.column(drop=300)
        w.add("SaveWEBM", images=frames["IMAGE"], filename_prefix="otcache/hunyuan_video", fps=24.0)
    return w


def wan_22(info: dict) -> Workflow:
    """Wan 2.2 14B text to video: an expert for the first steps and one for the others, each with its own cache."""
    steps, split = 20, 10
    w = _workflow(
        "wan2_2_t2v", info, "Wan 2.2 14B, text to video", model_files.WAN_22, "36 GB", picture="video",
        about="Two experts share 20 steps with cfg 3.5: one makes the first 10, the other the last 10. 81 frames of 640 x 640. "
        "Each expert has an OT Auto Cache of its own. Leave Lightning LoRAs off: in 4 steps there is little to save.",
        budget=f"{budget_for_speedup(split, SPEEDUP)} of each expert's {split} steps", learns="Each expert is learnt",
        start=0, note_left=2040, note_top=563, note_width=470,
    )  # fmt: skip

    def expert(noise: str) -> Output:
        model = w.add("UNETLoader", unet_name=f"wan2.2_t2v_{noise}_noise_14B_fp8_scaled.safetensors")
        w.column(width=NARROW)
        model = w.add("ModelSamplingSD3", model=model["MODEL"], shift=5.0)
        w.column()
        return w.add("OTAutoCache", f"OT Auto Cache, {noise} noise", model=model["MODEL"], speedup=SPEEDUP)["model"]

    with w.group("1  The expert for high noise, cached", width=230):
        high = expert("high")
    with w.group("2  The expert for low noise, cached", below=True, drop=78, width=230):
        low = expert("low")
    # Between the wires of the two experts.
    with w.group("3  Describe", drop=100, width=200):
        w.drop(290)
        clip = w.add("CLIPLoader", clip_name="umt5_xxl_fp8_e4m3fn_scaled.safetensors", type="wan")
        w.column(width=230)
        size = w.add("EmptyHunyuanLatentVideo", width=640, height=640, length=81)
        positive, negative = (
            w.add("CLIPTextEncode", title, above=above, tall=LOW, clip=clip["CLIP"], text=text)["CONDITIONING"]
            for title, above, text in (("Prompt", 58, WAN_PROMPT), ("Negative prompt", 0, WAN_NEGATIVE))
        )
    both = {"positive": positive, "negative": negative, "steps": steps, "cfg": 3.5, "sampler_name": "euler",
            "scheduler": "simple"}  # fmt: skip
    with w.group("4  Sample", width=230):
        early = w.add("KSamplerAdvanced", f"The first {split} steps", control="randomize", model=high,
                      add_noise="enable", noise_seed=1, latent_image=size["LATENT"], start_at_step=0, end_at_step=split,
                      return_with_leftover_noise="enable", **both)  # fmt: skip
        w.column(drop=550, width=230)
        vae = w.add("VAELoader", vae_name="wan_2.1_vae.safetensors")
        late = w.add("KSamplerAdvanced", f"The last {steps - split} steps", model=low, add_noise="disable",
                     noise_seed=0, latent_image=early["LATENT"], start_at_step=split, end_at_step=steps,
                     return_with_leftover_noise="disable", **both)  # fmt: skip
    with w.group("5  Save", width=NARROW):
        frames = w.add("VAEDecode", samples=late["LATENT"], vae=vae["VAE"])
        w.column(width=240)
        w.add("SaveWEBM", tall=400, images=frames["IMAGE"], filename_prefix="otcache/wan2_2", fps=16.0)
    return w


def _workflow(name: str, info: dict, model: str, files: dict, size: str, about: str, budget: str, picture: str = "picture",
              learns: str = LEARNS, **place) -> Workflow:  # fmt: skip
    note = NOTE.format(model=model, about=about, budget=budget, picture=picture, learns=learns, size=size, files=listed(files))
    return Workflow(f"otcache_{name}", info, note, addresses(files), NOTE_LINE, **place)


def _budget(steps: int) -> str:
    return f"{budget_for_speedup(steps, SPEEDUP)} of {steps} steps"


def _cached_model(w: Workflow, unet_name: str, sampling: str | None = None, **options) -> dict:
    """The first group: a diffusion model, the node that sets its noise levels where it has one, OT Auto Cache."""
    with w.group("1  Model, cached"):
        model = w.add("UNETLoader", unet_name=unet_name)
        w.column()
        if sampling:
            model = w.add(sampling, model=model["MODEL"], **options)
            w.column()
        return w.add("OTAutoCache", model=model["MODEL"], speedup=SPEEDUP)


def _prompts(w: Workflow, clip: Output, positive: str, negative: str = "") -> dict[str, Output]:
    w.column()
    return {
        "positive": w.add("CLIPTextEncode", "Prompt", clip=clip, text=positive)["CONDITIONING"],
        "negative": w.add("CLIPTextEncode", "Negative prompt", clip=clip, text=negative)["CONDITIONING"],
    }


def _sample(w: Workflow, vae_name: str, sampler_name: str = "euler", **sampling) -> None:
    with w.group("3  Sample and save"):
        latent = w.add("KSampler", seed=1, control="randomize", sampler_name=sampler_name, scheduler="simple", **sampling)
        vae = w.add("VAELoader", vae_name=vae_name)
        w.column()
        image = w.add("VAEDecode", samples=latent["LATENT"], vae=vae["VAE"])
        w.column()
        w.add("SaveImage", images=image["IMAGE"], filename_prefix=f"otcache/{w.name.removeprefix('otcache_')}")
