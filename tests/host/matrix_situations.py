"""Ways of running a sampler on a model: each is one function of (host, case, model, sampler name) that returns samples.

`model` is the case's model with or without a schedule on it; what a situation patches comes after that.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from matrix_cells import BUDGET, STEPS, measure
from sampling import ksampler


@dataclass(frozen=True)
class Situation:
    """model: in `matrix_models.MODELS`. steps: of the whole grid of which `run` makes all or a part.

    evaluations: with one evaluation a step, where a third of the grid is computed; with_blocks: likewise when blocks are
    reused, if that differs. no_blocks: the report's reason when blocks cannot be reused here, or "".
    """

    run: Callable
    model: str = "FLUX.1"
    steps: int = STEPS
    evaluations: int = BUDGET
    with_blocks: int | None = None
    no_blocks: str = ""


def randn(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def picture(case, seed=3):
    return {"samples": randn(*case.latent["samples"].shape, seed=seed)}


def plain(host, case, model, sampler, **inputs):
    return ksampler(host, case, model, sampler_name=sampler, **inputs)


def patched(node, **widgets):
    """Core KSampler after a node that takes and gives a MODEL."""

    def run(host, case, model, sampler):
        return plain(host, case, host.run(node, model=model, **widgets)[0], sampler)

    return run


def custom(host, case, model, sampler, guider=None, parts=None):
    """SamplerCustomAdvanced with `guider`, in one part or split at the step `parts`."""
    guider = guider or host.run("CFGGuider", model=model, positive=case.positive, negative=case.negative, cfg=4.0)[0]
    select, = host.run("KSamplerSelect", sampler_name=sampler)
    sigmas, = host.run("BasicScheduler", model=model, scheduler="simple", steps=STEPS, denoise=1.0)
    noises = host.run("RandomNoise", noise_seed=7)[0], host.run("DisableNoise")[0]
    pieces = host.run("SplitSigmas", sigmas=sigmas, step=parts) if parts else [sigmas]
    latent = case.latent
    for noise, piece in zip(noises, pieces, strict=False):
        latent = host.run("SamplerCustomAdvanced", noise=noise, guider=guider, sampler=select, sigmas=piece,
                          latent_image=latent)[0]  # fmt: skip
    return latent["samples"]


def guided(node, **inputs):
    """`inputs` are widgets, or names of the case's conditionings."""

    def run(host, case, model, sampler):
        filled = {name: getattr(case, value) if value in ("positive", "negative") else value for name, value in inputs.items()}
        return custom(host, case, model, sampler, host.run(node, model=model, **filled)[0])

    return run


def half_denoise(host, case, model, sampler):
    return plain(host, case, model, sampler, latent_image=picture(case), denoise=0.5)


def middle_steps(host, case, model, sampler):
    return plain(host, case, model, sampler, node="KSamplerAdvanced", add_noise="enable", start_at_step=3, end_at_step=9,
                 return_with_leftover_noise="enable", latent_image=picture(case))  # fmt: skip


def inpainting(host, case, model, sampler):
    mask = torch.zeros(1, 8, 8)
    mask[:, :4] = 1
    return plain(host, case, model, sampler, latent_image=picture(case) | {"noise_mask": mask})


def differential(host, case, model, sampler):
    mask = torch.linspace(0.2, 1, 8).expand(1, 8, 8).contiguous()
    model = host.run("DifferentialDiffusion", model=model)[0]
    return plain(host, case, model, sampler, latent_image=picture(case) | {"noise_mask": mask})


def time_ranges(host, case, model, sampler):
    def ranged(conditioning, start, end):
        return host.run("ConditioningSetTimestepRange", conditioning=conditioning, start=start, end=end)[0]

    early, late = ranged(case.positive, 0.0, 0.4), ranged(case.negative, 0.4, 1.0)
    positive, = host.run("ConditioningCombine", conditioning_1=early, conditioning_2=late)
    return plain(host, case, model, sampler, positive=positive)


def area(host, case, model, sampler):
    region, = host.run("ConditioningSetArea", conditioning=case.negative, width=32, height=64, x=0, y=0, strength=1.0)
    positive, = host.run("ConditioningCombine", conditioning_1=case.positive, conditioning_2=region)
    return plain(host, case, model, sampler, positive=positive)


def mixed_prompts(host, case, model, sampler):
    (one, extra), (other, more) = case.positive[0], case.negative[0]
    both = {name: torch.cat([value, more[name]]) for name, value in extra.items() if torch.is_tensor(value)}
    latent = {"samples": torch.cat([case.latent["samples"]] * 2)}
    return plain(host, case, model, sampler, positive=[[torch.cat([one, other]), both]], latent_image=latent)


def windows(kind, **widgets):
    """Windows of four frames on a video of eight, two of them shared."""

    def run(host, case, model, sampler):
        chosen = {"context_length": 4, "context_overlap": 2, "dim": 2, "context_schedule": kind} | widgets
        if "causal_window_fix" in host.defaults("ContextWindowsManual"):  # not before 0.25
            chosen["causal_window_fix"] = False
        model, = host.run("ContextWindowsManual", model=model, **chosen)
        return plain(host, case, model, sampler, latent_image={"samples": torch.zeros(1, 16, 8, 4, 4)})

    return run


def lora_hook(*keyframes):
    """A LoRA that holds for the positive prompt only; keyframes: (strength, percent at which it begins)."""

    def run(host, case, model, sampler):
        import comfy.hooks

        weight = "double_blocks.0.img_mlp.0"
        rows, columns = model.model.diffusion_model.double_blocks[0].img_mlp[0].weight.shape
        lora = {f"diffusion_model.{weight}.lora_A.weight": randn(4, columns, seed=9) * 0.3,
                f"diffusion_model.{weight}.lora_B.weight": randn(rows, 4, seed=10) * 0.3}  # fmt: skip
        hooks, frames = comfy.hooks.create_hook_lora(lora, 1.0, 0.0), comfy.hooks.HookKeyframeGroup()
        for strength, start in keyframes:
            frames.add(comfy.hooks.HookKeyframe(strength, start))
        hooks.set_keyframes_on_hooks(frames)
        return plain(host, case, model, sampler, positive=comfy.hooks.set_hooks_for_conditioning(case.positive, hooks))

    return run


def unet_control(case):
    """A real ControlNet of the UNet's shape."""
    import comfy.cldm.cldm
    from matrix_models import UNET

    settings = {name: value for name, value in UNET.items() if name not in ("out_channels", "transformer_depth_output")}
    return comfy.cldm.cldm.ControlNet(**settings, hint_channels=3, dtype=torch.float32), ["y"]


def flux_control(case):
    """A real ControlNet of FLUX's shape, as XLabs' are."""
    import comfy.ldm.flux.controlnet
    import comfy.ops

    settings = case.model.model.model_config.unet_config | {"operations": comfy.ops.manual_cast}
    return comfy.ldm.flux.controlnet.ControlNetFlux(**settings), ["y", "guidance"]


def controlnet(make, **widgets):
    """With the network that `make` gives, in random weights."""

    def run(host, case, model, sampler):
        import comfy.controlnet
        import comfy.model_management as management
        from matrix_models import fill

        network, conds = make(case)
        fill(network.eval(), torch.Generator().manual_seed(8), 1.0)
        network = comfy.controlnet.ControlNet(network, load_device=management.get_torch_device(), extra_conds=conds)
        image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(4))
        positive, negative = host.run("ControlNetApplyAdvanced", positive=case.positive, negative=case.negative,
                                      control_net=network, image=image, **widgets)[:2]  # fmt: skip
        return plain(host, case, model, sampler, positive=positive, negative=negative)

    return run


def reference(host, case, model, sampler):
    """A picture to edit, as FLUX Kontext takes it: more tokens in every block."""
    positive, = host.run("ReferenceLatent", conditioning=case.positive, latent=picture(case))
    return plain(host, case, model, sampler, positive=positive)


def previews(host, case, model, sampler):
    """The picture that ComfyUI shows at every step has to be there."""
    import comfy.utils
    from comfy.cli_args import LatentPreviewMethod, args

    method, hook, sizes = args.preview_method, comfy.utils.PROGRESS_BAR_HOOK, []

    def keep(value, total, preview, **_):
        sizes.append(preview[1].size)

    args.preview_method = LatentPreviewMethod.Latent2RGB
    comfy.utils.set_progress_bar_global_hook(keep)
    try:
        samples = plain(host, case, model, sampler)
    finally:
        args.preview_method = method
        comfy.utils.set_progress_bar_global_hook(hook)
    assert set(sizes) == {(8, 8)}, sizes
    return samples


def cell_of(host, case, name: str, level: str, sampler: str):
    """The cell of the situation `name`; `case` is its model."""
    situation = SITUATIONS[name]
    return measure(host, case, level, lambda model: situation.run(host, case, model, sampler), situation.steps,
                   situation.steps * BUDGET // STEPS)  # fmt: skip


ALL_TIME = {"start_percent": 0.0, "end_percent": 1.0}
CONTROL = "a ControlNet is applied"
SITUATIONS = {
    "CFG 4": Situation(plain),
    "CFG 1": Situation(lambda *a: plain(*a, cfg=1.0)),
    **{f"scheduler {name}": Situation(lambda *a, name=name: plain(*a, scheduler=name))
       for name in ("sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal", "linear_quadratic",
                    "kl_optimal")},
    "shift 3": Situation(patched("ModelSamplingSD3", shift=3.0)),
    "FLUX shift": Situation(patched("ModelSamplingFlux", max_shift=1.15, base_shift=0.5, width=1024, height=1024)),
    "4 steps": Situation(lambda *a: plain(*a, steps=4, cfg=1.0), steps=6, evaluations=2),
    "denoise 0.5": Situation(half_denoise, steps=2 * STEPS),
    "steps 3 to 9": Situation(middle_steps, evaluations=3),
    "SplitSigmas": Situation(lambda *a: custom(*a, parts=6)),
    "previews": Situation(previews),
    "inpainting": Situation(inpainting),
    "DifferentialDiffusion": Situation(differential),
    "BasicGuider": Situation(guided("BasicGuider", conditioning="positive")),
    "DualCFG": Situation(guided("DualCFGGuider", cond1="positive", cond2="negative", negative="negative", style="regular")),
    "DualCFG nested": Situation(guided("DualCFGGuider", cond1="positive", cond2="negative", negative="negative", cfg_conds=2.0,
                                       style="nested")),
    "PerpNeg": Situation(guided("PerpNegGuider", positive="positive", negative="negative", empty_conditioning="negative")),
    "video linear CFG": Situation(patched("VideoLinearCFGGuidance"), "Wan 2.1 t2v"),
    "RescaleCFG": Situation(patched("RescaleCFG")),
    "APG": Situation(patched("APG")),
    "CFGZeroStar": Situation(patched("CFGZeroStar")),
    "SkipLayerGuidance": Situation(patched("SkipLayerGuidanceDiT", double_layers="0", single_layers="", **ALL_TIME)),
    "PAG": Situation(patched("PerturbedAttentionGuidance"), "SD 1.5", no_blocks="no replaceable transformer blocks"),
    "time ranges": Situation(time_ranges, evaluations=5),
    "area": Situation(area),
    "batch of two prompts": Situation(mixed_prompts),
    "reference latent": Situation(reference),
    "context windows": Situation(windows("standard_static"), "Wan 2.1 t2v"),
    "looped context windows": Situation(windows("looped_uniform", closed_loop=True), "Wan 2.1 t2v", with_blocks=6),
    "LoRA hook": Situation(lora_hook()),
    "LoRA hook, keyframes": Situation(lora_hook((1.0, 0.0), (0.3, 0.4)), evaluations=5),
    "ControlNet, SD 1.5": Situation(controlnet(unet_control, strength=1.0, **ALL_TIME), "SD 1.5", no_blocks=CONTROL),
    "ControlNet, FLUX.1": Situation(controlnet(flux_control, strength=1.0, **ALL_TIME), no_blocks=CONTROL),
    "ControlNet that ends": Situation(controlnet(flux_control, strength=1.0, start_percent=0.0, end_percent=0.4),
                                      evaluations=5, no_blocks=CONTROL),
}  # fmt: skip
