"""ComfyUI's own model classes in miniature, with random weights: a table of settings, and one way to build them all.

Detection from a file asks for full-size layers, so the classes of `comfy.supported_models` are given their settings here.
"""

import importlib
from dataclasses import dataclass, field, fields
from types import SimpleNamespace

TOKENS = 5  # of every prompt here
NONE = "this model offers no replaceable transformer blocks"
BETWEEN = "networks between its blocks (VACE, a ControlNet, ...) would have to run on every skipped step"
BROKEN = "this model's blocks cannot be replaced: ComfyUI's own call of them fails"


@dataclass(frozen=True)
class Tiny:
    """One model.

    cls: in comfy.supported_models. config: settings of its network. latent: shape; audio: of a second one beside it.
    context: width of the prompt. pooled: of pooled_output, or 0. conds: further tensors of the conditioning, by name their
    shape. mask: length of a prompt's attention mask, or 0. params: "module:class" whose fields the settings must be among, as
    older versions have fewer. blocks: lists of blocks. no_blocks: why they cannot be reused, or "". since: the ComfyUI
    version whose network has these settings. gain: of the random weights. tokens: of a prompt.
    """

    cls: str
    config: dict
    latent: tuple[int, ...]
    context: int = 16
    pooled: int = 0
    conds: dict = field(default_factory=dict)
    mask: int = 0
    audio: tuple[int, ...] = ()
    params: str = ""
    blocks: tuple[str, ...] = ("double_blocks", "single_blocks")
    no_blocks: str = ""
    since: tuple[int, ...] = ()
    gain: float = 1.0
    tokens: int = TOKENS


FLUX = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 16, "context_in_dim": 16, "hidden_size": 64,
    "mlp_ratio": 2.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 2, "axes_dim": [8, 12, 12], "theta": 10000,
    "patch_size": 2, "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
}  # fmt: skip
WAN = {
    "image_model": "wan2.1", "model_type": "t2v", "dim": 64, "ffn_dim": 128, "freq_dim": 32, "text_dim": 16, "num_heads": 2,
    "num_layers": 2, "in_dim": 16, "out_dim": 16, "text_len": 32,
}  # fmt: skip
LUMINA = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 72, "n_layers": 2, "n_refiner_layers": 1,
    "n_heads": 2, "n_kv_heads": 1, "multiple_of": 32, "ffn_dim_multiplier": 1.0, "qk_norm": True, "cap_feat_dim": 16,
    "axes_dims": [12, 12, 12], "axes_lens": [64, 64, 64],
}  # fmt: skip
UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
    "channel_mult": [1, 2], "transformer_depth": [1, 1], "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1, "context_dim": 16, "use_spatial_transformer": True,
    "use_linear_in_transformer": False, "adm_in_channels": None, "use_temporal_attention": False, "legacy": False,
}  # fmt: skip

MODELS = {
    "FLUX.1": Tiny("Flux", FLUX, (1, 16, 8, 8), pooled=16, params="comfy.ldm.flux.model:FluxParams"),
    "FLUX.2": Tiny(
        "Flux2",
        FLUX | {"image_model": "flux2", "in_channels": 128, "out_channels": 128, "axes_dim": [8, 8, 8, 8], "theta": 2000,
                "patch_size": 1, "qkv_bias": False, "global_modulation": True, "mlp_silu_act": True, "ops_bias": False,
                "txt_ids_dims": [3], "vec_in_dim": None, "default_ref_method": "index", "ref_index_scale": 10.0},
        (1, 128, 4, 4),
        pooled=16,
        params="comfy.ldm.flux.model:FluxParams",
    ),
    "Chroma": Tiny(
        "Chroma",
        FLUX | {"image_model": "chroma", "in_channels": 64, "out_channels": 64, "in_dim": 64, "out_dim": 64,
                "hidden_dim": 64, "n_layers": 1, "guidance_embed": False},
        (1, 16, 8, 8),
        pooled=16,
        params="comfy.ldm.chroma.model:ChromaParams",
    ),
    "Chroma Radiance": Tiny(
        "ChromaRadiance",
        FLUX | {"image_model": "chroma_radiance", "in_channels": 3, "out_channels": 3, "in_dim": 64, "out_dim": 64,
                "hidden_dim": 64, "n_layers": 1, "guidance_embed": False, "patch_size": 8, "nerf_hidden_size": 16,
                "nerf_mlp_ratio": 2, "nerf_depth": 1, "nerf_max_freqs": 4, "nerf_tile_size": 0,
                "nerf_final_head_type": "conv", "nerf_embedder_dtype": None, "use_x0": False, "use_sequential_txt_ids": True},
        (1, 3, 32, 32),
        pooled=16,
        params="comfy.ldm.chroma_radiance.model:ChromaRadianceParams",
    ),
    "Qwen-Image": Tiny(
        "QwenImage",
        {"image_model": "qwen_image", "in_channels": 64, "out_channels": 16, "num_layers": 2, "attention_head_dim": 32,
         "num_attention_heads": 2, "joint_attention_dim": 16, "axes_dims_rope": (8, 12, 12)},
        (1, 16, 1, 8, 8),
        blocks=("transformer_blocks",),
    ),
    "HunyuanVideo": Tiny(
        "HunyuanVideo",
        FLUX | {"image_model": "hunyuan_video", "patch_size": [1, 2, 2], "theta": 256, "byt5": False, "meanflow": False,
                "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False},
        (1, 16, 3, 8, 8),
        pooled=16,
        params="comfy.ldm.hunyuan_video.model:HunyuanVideoParams",
    ),
    "Wan 2.1 t2v": Tiny("WAN21_T2V", WAN, (1, 16, 3, 8, 8), blocks=("blocks",)),
    "Wan 2.1 causal": Tiny("WAN21_CausalAR_T2V", WAN, (1, 16, 3, 8, 8), blocks=("blocks",)),
    "Wan 2.1 i2v": Tiny(
        "WAN21_I2V",
        WAN | {"model_type": "i2v", "in_dim": 36},
        (1, 16, 3, 8, 8),
        conds={"concat_latent_image": (1, 16, 3, 8, 8), "concat_mask": (1, 1, 3, 8, 8)},
        blocks=("blocks",),
    ),
    "Wan 2.1 VACE": Tiny(
        "WAN21_Vace",
        WAN | {"model_type": "vace", "vace_layers": 1, "vace_in_dim": 96},
        (1, 16, 3, 8, 8),
        blocks=("blocks",),
        no_blocks=BETWEEN,
    ),
    "Z-Image": Tiny(
        "ZImage",
        LUMINA | {"dim": 256, "n_heads": 8, "n_kv_heads": 8, "axes_dims": [8, 12, 12], "z_image_modulation": True,
                  "n_layers": 1, "time_scale": 1000.0, "pad_tokens_multiple": 32},
        (1, 16, 8, 8),
        mask=TOKENS,
        blocks=("layers",),
        no_blocks=NONE,
    ),
    "Lumina 2": Tiny("Lumina2", LUMINA, (1, 16, 8, 8), mask=TOKENS, blocks=("layers",), no_blocks=NONE),
    "SD 3.5": Tiny(
        "SD3",
        {"input_size": None, "patch_size": 2, "in_channels": 16, "out_channels": 16, "depth": 2, "adm_in_channels": 16,
         "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 16, "out_features": 128}},
         "qk_norm": "rms", "pos_embed_scaling_factor": None, "pos_embed_max_size": 16, "num_patches": 256},
        (1, 16, 8, 8),
        pooled=16,
        blocks=("joint_blocks",),
    ),
    "LTX-Video": Tiny(
        "LTXV",
        {"image_model": "ltxv", "in_channels": 128, "cross_attention_dim": 64, "attention_head_dim": 32,
         "num_attention_heads": 2, "caption_channels": 16, "num_layers": 2},
        (1, 128, 2, 4, 4),
        mask=TOKENS,
        blocks=("transformer_blocks",),
    ),
    "LTX-2 (video, audio)": Tiny(
        "LTXAV",
        {"image_model": "ltxav", "in_channels": 128, "cross_attention_dim": 64, "attention_head_dim": 32,
         "num_attention_heads": 2, "caption_channels": 16, "num_layers": 2, "audio_in_channels": 128,
         "audio_cross_attention_dim": 32, "audio_attention_head_dim": 16, "audio_num_attention_heads": 2,
         "connector_attention_head_dim": 8, "connector_num_attention_heads": 2, "connector_num_layers": 1},
        (1, 128, 2, 4, 4),
        audio=(1, 8, 8, 16),
        mask=1024,
        blocks=("transformer_blocks",),
        since=(0, 25),
        no_blocks="the blocks' output \"img\" has no input like it",  # it is a pair
    ),
    "MiniMax H3 (video, audio)": Tiny(
        "MiniMaxH3",
        {"image_model": "minimax_h3", "hidden_size": 64, "num_layers": 2, "token_refiner_num_layers": 1,
         "num_attention_heads": 2, "attention_head_dim": 32, "ffn_hidden_size": 128, "text_dim": 16, "timestep_input_dim": 32,
         "time_embed_hidden_size": 64, "time_embed_dim": 32, "rope_inv_freq_len": 5},
        (1, 24, 2, 4, 4),
        audio=(1, 32, 2, 8),
        blocks=("blocks",),
        since=(0, 33),
    ),
    "HunyuanVideo 1.5": Tiny(
        "HunyuanVideo15",
        FLUX | {"image_model": "hunyuan_video", "in_channels": 65, "out_channels": 32, "patch_size": [1, 1, 1], "theta": 256,
                "byt5": False, "meanflow": False, "use_cond_type_embedding": True, "vision_in_dim": 16, "meanflow_sum": True,
                "vec_in_dim": None, "guidance_embed": False},
        (1, 32, 3, 4, 4),
        pooled=16,
        params="comfy.ldm.hunyuan_video.model:HunyuanVideoParams",
        since=(0, 8),
    ),
    "Kandinsky 5": Tiny(
        "Kandinsky5",
        {"image_model": "kandinsky5", "in_text_dim": 16, "in_text_dim2": 16, "time_dim": 32, "model_dim": 64, "ff_dim": 128,
         "num_text_blocks": 1, "num_visual_blocks": 2, "axes_dims": (8, 12, 12)},
        (1, 16, 3, 8, 8),
        pooled=16,
        blocks=("visual_transformer_blocks",),
        gain=0.8,
        no_blocks=BROKEN,
    ),
    "Krea 2": Tiny(
        "Krea2",
        {"image_model": "krea2", "features": 64, "tdim": 32, "txtdim": 16, "heads": 2, "kvheads": 1, "multiplier": 2,
         "layers": 2, "txtlayers": 2, "txtheads": 2, "txtkvheads": 2},
        (1, 16, 1, 8, 8),
        context=32,
        blocks=("blocks",),
        gain=0.8,
        no_blocks=NONE,
    ),
    "MageFlow": Tiny(
        "MageFlow",
        {"image_model": "mage_flow", "num_layers": 2, "attention_head_dim": 32, "num_attention_heads": 2,
         "joint_attention_dim": 16, "axes_dims_rope": (8, 12, 12)},
        (1, 128, 4, 4),
        blocks=("transformer_blocks",),
    ),
    "JoyImage": Tiny(
        "JoyImage",
        {"image_model": "joyimage", "hidden_size": 64, "num_attention_heads": 2, "text_dim": 16, "mlp_width_ratio": 2.0,
         "num_layers": 2, "rope_dim_list": [8, 12, 12]},
        (1, 16, 1, 8, 8),
        blocks=("double_blocks",),
    ),
    "Lens": Tiny(
        "Lens",
        {"image_model": "lens", "num_layers": 2, "attention_head_dim": 32, "num_attention_heads": 2, "enc_hidden_dim": 16,
         "axes_dims_rope": (8, 12, 12), "selected_layer_index": (0, 1)},
        (1, 128, 4, 4),
        context=32,
        blocks=("transformer_blocks",),
    ),
    "ERNIE-Image": Tiny(
        "ErnieImage",
        {"image_model": "ernie", "hidden_size": 64, "num_attention_heads": 2, "num_layers": 2, "ffn_hidden_size": 128,
         "text_in_dim": 16, "rope_axes_dim": (8, 12, 12)},
        (1, 128, 4, 4),
        blocks=("layers",),
        no_blocks=NONE,
    ),
    "Ideogram 4": Tiny(
        "Ideogram4",
        {"image_model": "ideogram4", "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 32,
         "intermediate_size": 128, "adaln_dim": 32, "llm_features_dim": 16, "mrope_section": (6, 5, 5)},
        (1, 128, 4, 4),
        blocks=("layers",),
        no_blocks=NONE,
    ),
    "LongCat-Image": Tiny(
        "LongCatImage",
        FLUX | {"guidance_embed": False, "vec_in_dim": None, "txt_ids_dims": [1, 2]},
        (1, 16, 8, 8),
        params="comfy.ldm.flux.model:FluxParams",
    ),
    "HiDream": Tiny(
        "HiDream",
        {"image_model": "hidream", "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 1,
         "num_single_layers": 1, "attention_head_dim": 32, "num_attention_heads": 2, "caption_channels": [16, 16],
         "text_emb_dim": 16, "axes_dims_rope": (16, 8, 8), "max_resolution": [16, 16], "llama_layers": [0, 1]},
        (1, 16, 8, 8),
        pooled=16,
        conds={"conditioning_llama3": (1, 2, TOKENS, 16)},
        blocks=("double_stream_blocks", "single_stream_blocks"),
        no_blocks=NONE,
    ),
    "Cosmos Predict 2": Tiny(
        "CosmosT2IPredict2",
        {"image_model": "cosmos_predict2", "max_img_h": 32, "max_img_w": 32, "max_frames": 8, "in_channels": 16,
         "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 64, "num_blocks": 2, "num_heads": 2,
         "crossattn_emb_channels": 16, "pos_emb_cls": "rope3d", "pos_emb_learnable": True, "use_adaln_lora": True,
         "adaln_lora_dim": 16},
        (1, 16, 1, 8, 8),
        blocks=("blocks",),
        no_blocks=NONE,
    ),
    "AuraFlow": Tiny(
        "AuraFlow",
        {"dim": 64, "n_layers": 2, "n_double_layers": 1, "n_heads": 2, "global_conddim": 64, "cond_seq_dim": 16,
         "max_seq": 256},
        (1, 4, 8, 8),
        blocks=("double_layers", "single_layers"),
    ),
    "SD 1.5": Tiny("SD15", UNET, (1, 4, 8, 8), blocks=("input_blocks",), no_blocks=NONE),
    "SDXL": Tiny(
        "SDXL",
        UNET | {"adm_in_channels": 16 + 6 * 256, "num_classes": "sequential", "use_linear_in_transformer": True,
                "model_channels": 64, "channel_mult": [1, 1]},
        (1, 4, 8, 8),
        pooled=16,
        blocks=("input_blocks",),
        no_blocks=NONE,
    ),
}  # fmt: skip


def version() -> tuple[int, ...]:
    """Of the running ComfyUI."""
    from comfyui_version import __version__

    return tuple(map(int, __version__.split(".")[:3]))


def make(tiny: Tiny, dtype: str = "float32", device: str = "cpu"):
    """ComfyUI's model (BaseModel) on `device`, its weights not set; None where ComfyUI lacks it.

    dtype: that the network computes in.
    """
    import comfy.supported_models
    import torch

    cls = getattr(comfy.supported_models, tiny.cls, None)
    if cls is None or version() < tiny.since:
        return None
    config = dict(tiny.config)
    if tiny.params:
        module, name = tiny.params.split(":")
        known = {one.name for one in fields(getattr(importlib.import_module(module), name))}
        config = {name: value for name, value in config.items() if name in known or name == "image_model"}
    settings = cls(config)
    settings.unet_config |= {name: value for name, value in config.items() if name in settings.unet_extra_config}
    settings.set_inference_dtype(getattr(torch, dtype), None)
    return settings.get_model({}, "", device=torch.device(device)).eval()


def build(tiny: Tiny, seed: int = 5, dtype: str = "float32", device: str = "cpu") -> SimpleNamespace | None:
    """model (a ModelPatcher), positive, negative, latent (zeros), blocks (the block modules); None where ComfyUI lacks it.

    dtype: that the network computes in. device: where random numbers are drawn; weights lie where ComfyUI leaves them.
    """
    import comfy.model_management as management
    import comfy.model_patcher
    import torch

    model = make(tiny, dtype)
    if model is None:
        return None
    generator = torch.Generator(device).manual_seed(seed)
    fill(model.diffusion_model, generator, tiny.gain)

    def randn(*shape):
        return torch.randn(shape, generator=generator, device=device).cpu()

    conds = []
    for _ in range(2):
        extra = {name: randn(*shape) for name, shape in tiny.conds.items()}
        if tiny.pooled:
            extra["pooled_output"] = randn(1, tiny.pooled)
        if tiny.mask:
            extra["attention_mask"] = torch.ones(1, tiny.mask, dtype=torch.long)
        conds.append([[randn(1, tiny.tokens, tiny.context), extra]])
    latent = torch.zeros(tiny.latent)
    if tiny.audio:
        from comfy.nested_tensor import NestedTensor

        latent = NestedTensor((latent, torch.zeros(tiny.audio)))
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return SimpleNamespace(
        model=patcher(model, management.get_torch_device(), management.unet_offload_device()),
        positive=conds[0],
        negative=conds[1],
        latent={"samples": latent},
        blocks=[block for name in tiny.blocks for block in getattr(model.diffusion_model, name)],
    )


def fill(network, generator, gain: float) -> None:
    """Random weights that let every layer matter: matrices keep the size of what passes through, norms scale by about 1."""
    import torch

    with torch.no_grad():
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            if not tensor.is_floating_point() or not tensor.numel():
                continue
            if name.endswith("inv_freq"):  # empty until a file is read
                tensor.copy_(10000 ** -torch.linspace(0, 1, len(tensor)))
            elif name.endswith("pos_embed") or isinstance(tensor, torch.nn.Parameter):
                noise = torch.randn(tensor.shape, generator=generator, device=generator.device)
                if tensor.ndim >= 2:
                    tensor.copy_(noise * gain / max(tensor[0].numel(), 1) ** 0.5)
                elif name.endswith(("weight", "scale", "gamma")):
                    tensor.copy_(1 + 0.1 * noise)
                else:
                    tensor.copy_(0.1 * noise)
