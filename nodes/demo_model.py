"""OT Demo Model: the embedded tiny model with everything that a sampler needs."""

from functools import cache

import comfy.model_management
import torch
from comfy_api.latest import io

from ..otcache_core.demo import conditioning
from ..otcache_core.demo.generator import LATENT_SHAPE, cases
from ..otcache_core.demo.model import FluxConfig
from ..otcache_core.demo.scenes import SLOTS, Scene
from ..otcache_core.demo.stored import read_weights
from .host.demo_flux import build_model
from .host.demo_vae import DemoVAE
from .schema import field, schema

_TOOLTIPS = {
    "sky": "The sky's colours.",
    "light": "What shines in the sky.",
    "light_position": "Where it stands.",
    "clouds": "How many clouds there are.",
    "ground": "What the ground is.",
    "house": "The house's colour.",
    "house_position": "Where the house stands.",
    "trees": "How many trees there are.",
    "tree_type": "Their kind.",
    "shape": "What floats in the air.",
    "shape_colour": "Its colour.",
}


class OTDemoModel(io.ComfyNode):
    """A FLUX-style transformer of 2.3 million parameters that draws 64 x 64 landscapes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        default = Scene()
        attributes = [
            field(io.Combo.Input, slot, options=list(values), default=getattr(default, slot), tooltip=_TOOLTIPS[slot])
            for slot, values in SLOTS.items()
        ]
        return schema(
            node_id="OTDemoModel",
            display_name="OT Demo Model",
            description="An embedded FLUX-style model (2.3 million parameters) that draws 64 x 64 landscapes in seconds, on a "
            "CPU too: try OTCache without downloading anything. Connect its outputs to a KSampler: euler, simple, CFG 7.5.",
            inputs=[
                *attributes,
                field(io.Int.Input, "random_scenes", default=-1, min=-1, max=99_999, tooltip="-1: draw the scene described "
                      "above. Any other number: draw random scenes instead, one for each picture of the batch; the number "
                      "chooses which."),  # fmt: skip
                field(io.Int.Input, "batch_size", default=1, min=1, max=64, tooltip="Pictures in a batch."),
            ],
            outputs=[
                field(io.Model.Output, "model", display_name="model", tooltip="The embedded flow model (shift 1)."),
                field(io.Conditioning.Output, "positive", display_name="positive", tooltip="The scene to draw."),
                field(io.Conditioning.Output, "negative", display_name="negative", tooltip="The empty description, for CFG."),
                field(io.Vae.Output, "vae", display_name="vae", tooltip="Decodes and encodes the model's pictures."),
                field(io.Latent.Output, "latent", display_name="latent", tooltip="Empty latents for 64 x 64 pictures."),
            ],
        )

    @classmethod
    def execute(cls, random_scenes: int = -1, batch_size: int = 1, **attributes) -> io.NodeOutput:
        if random_scenes < 0:
            scenes = [Scene(**attributes)]
        else:
            scenes = [case.scene for case in cases(batch_size, random_scenes)]
        model, vae = _load()
        latent = torch.zeros(batch_size, *LATENT_SHAPE, device=comfy.model_management.intermediate_device())
        positive, negative = _conditioning(conditioning.encode(scenes)), _conditioning(conditioning.encode_null(1))
        return io.NodeOutput(model.clone(), positive, negative, vae, {"samples": latent})


def _conditioning(encoded: tuple[torch.Tensor, torch.Tensor]) -> list:
    context, pooled = encoded
    return [[context, {"pooled_output": pooled}]]


@cache
def _load():
    # Once a process; runs get clones, which share the weights and nothing else.
    with torch.inference_mode(False):  # parameters made in inference mode could not be patched outside it
        weights, autoencoder = read_weights()
        return build_model(FluxConfig(), weights, autoencoder), DemoVAE(autoencoder)
