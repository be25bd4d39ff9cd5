"""What the shipped subgraph blueprints contain."""

from .subgraph import Subgraph

DESCRIPTION = (
    "Text to image with a schedule that says which steps run the model. Connect OT Load Schedule, or OT Budget Interpolate for "
    "the slider, and use the guidance and the number of steps that the schedule was made for (CFG 1 for FLUX)."
)
PROMPT = "A lighthouse on a cliff at dusk, waves below, warm light in the windows, oil painting"


def text_to_image(info: dict) -> Subgraph:
    """Prompt to picture through OT Cached Sampler; loaders and the schedule stay outside."""
    s = Subgraph("OTCache text to image", info, DESCRIPTION, "Image generation and editing/Text to image")
    model, clip, vae = s.input("model", "MODEL"), s.input("clip", "CLIP"), s.input("vae", "VAE")
    schedule = s.input("schedule", "OT_SCHEDULE")
    with s.group("1  Describe"):
        positive = s.add("CLIPTextEncode", "Prompt", clip=clip, text=s.input("prompt", "STRING", PROMPT))
        negative = s.add("CLIPTextEncode", "Negative prompt", clip=clip, text=s.input("negative_prompt", "STRING", ""))
        # Of all empty latents the one that KSampler fits to any model's channels and size.
        size = s.add("EmptyLatentImage", width=s.input("width", "INT", 1024), height=s.input("height", "INT", 1024))
    with s.group("2  Sample"):
        latent = s.add("OTCachedSampler", control="randomize", model=model, positive=positive["CONDITIONING"],
                       negative=negative["CONDITIONING"], latent_image=size["LATENT"], schedule=schedule,
                       seed=s.input("seed", "INT"), steps=s.input("steps", "INT"),
                       cfg=s.input("cfg", "FLOAT", 4.0))  # fmt: skip
        s.column()
        image = s.add("VAEDecode", samples=latent["latent"], vae=vae)
    s.output("image", image["IMAGE"])
    s.output("report", latent["report"])
    return s


ALL = (text_to_image,)
