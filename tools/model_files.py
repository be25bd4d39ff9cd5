"""Where the model files of the example workflows are: facts of ComfyUI's own templates for the same models.

From comfyui-workflow-templates-json 0.1.123: flux_dev_full_text_to_image, image_qwen_image, hunyuan_video_text_to_video,
video_wan2_2_14B_t2v and image_z_image.
"""

_HUB = "https://huggingface.co/"
_QWEN = "Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files/"
_HUNYUAN = "Comfy-Org/HunyuanVideo_repackaged/resolve/main/split_files/"
_WAN = "Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files/"
_ENCODERS = "comfyanonymous/flux_text_encoders/resolve/main/"

FLUX_DEV = {
    "flux1-dev.safetensors": ("diffusion_models", "Comfy-Org/flux1-dev/resolve/main/"),
    "clip_l.safetensors": ("text_encoders", _ENCODERS),
    "t5xxl_fp16.safetensors": ("text_encoders", _ENCODERS),
    "ae.safetensors": ("vae", "Comfy-Org/Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae/"),
}
QWEN_IMAGE = {
    "qwen_image_fp8_e4m3fn.safetensors": ("diffusion_models", f"{_QWEN}diffusion_models/"),
    "qwen_2.5_vl_7b_fp8_scaled.safetensors": ("text_encoders", f"{_QWEN}text_encoders/"),
    "qwen_image_vae.safetensors": ("vae", f"{_QWEN}vae/"),
}
HUNYUAN_VIDEO = {
    "hunyuan_video_t2v_720p_bf16.safetensors": ("diffusion_models", f"{_HUNYUAN}diffusion_models/"),
    "clip_l.safetensors": ("text_encoders", _ENCODERS),
    "llava_llama3_fp8_scaled.safetensors": ("text_encoders", f"{_HUNYUAN}text_encoders/"),
    "hunyuan_video_vae_bf16.safetensors": ("vae", f"{_HUNYUAN}vae/"),
}
WAN_22 = {
    "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors": ("diffusion_models", f"{_WAN}diffusion_models/"),
    "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors": ("diffusion_models", f"{_WAN}diffusion_models/"),
    "umt5_xxl_fp8_e4m3fn_scaled.safetensors": (
        "text_encoders",
        "Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files/text_encoders/",
    ),
    "wan_2.1_vae.safetensors": ("vae", f"{_WAN}vae/"),
}
Z_IMAGE = {
    "z_image_bf16.safetensors": ("diffusion_models", "Comfy-Org/z_image/resolve/main/split_files/diffusion_models/"),
    "qwen_3_4b.safetensors": ("text_encoders", "Comfy-Org/z_image_turbo/resolve/main/split_files/text_encoders/"),
    "ae.safetensors": ("vae", "Comfy-Org/z_image_turbo/resolve/main/split_files/vae/"),
}


def addresses(files: dict[str, tuple[str, str]]) -> dict[str, dict]:
    """By name what the frontend wants to know of it: url and directory."""
    return {name: {"url": f"{_HUB}{path}{name}", "directory": folder} for name, (folder, path) in files.items()}


def listed(files: dict[str, tuple[str, str]]) -> str:
    """The files as lines of a note: where they go, and links."""
    return "\n".join(f"- models/{where['directory']}: [{name}]({where['url']})" for name, where in addresses(files).items())
