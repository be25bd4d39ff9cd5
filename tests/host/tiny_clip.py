"""A node pack of one node: ComfyUI's own CLIP with a tiny text model of random weights, as wide as the demo model's tokens."""

from types import SimpleNamespace

import comfy.sd
import comfy.sd1_clip
import torch

WIDTH = 64


class TinyCLIP:
    """Needs no file. Its prompts mean nothing to the demo model, but different ones give different pictures."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "make", ("CLIP",)

    @classmethod
    def INPUT_TYPES(cls):
        return {}

    def make(self):
        target = SimpleNamespace(params={}, clip=comfy.sd1_clip.SD1ClipModel, tokenizer=comfy.sd1_clip.SD1Tokenizer)
        sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": 1, "num_hidden_layers": 2}
        clip = comfy.sd.CLIP(target, model_options={"clip_l_model_config": sizes})
        generator = torch.Generator().manual_seed(1)
        for parameter in clip.cond_stage_model.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
        return (clip,)


NODE_CLASS_MAPPINGS = {"TinyCLIP": TinyCLIP}
