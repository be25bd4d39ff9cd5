"""Ways of running a sampler on a model: each is one function of (host, case, model, sampler name) that returns samples.

`model` is the case's model with or without a schedule on it; what a situation patches comes after that.
"""

from collections.abc import Callable
from dataclasses import dataclass

import other_packs
import torch
from matrix_cells import BUDGET, STEPS, measure
from matrix_models import BETWEEN
from sampling import ksampler, sample_custom


@dataclass(frozen=True)
class Situation:
    """model: in `matrix_models.MODELS`. steps: of the whole grid of which `run` makes all or a part.

    evaluations: with one evaluation a step, where a third of the grid is computed; with_blocks: likewise when blocks are
    reused, if that differs. no_blocks: the report's reason when blocks cannot be reused here, or "". in_full: its reason when
    nothing can be skipped here, or "". node: that older versions of ComfyUI lack, or "".
    """

    run: Callable
    model: str = "FLUX.1"
    steps: int = STEPS
    evaluations: int = BUDGET
    with_blocks: int | None = None
    no_blocks: str = ""
    node: str = ""
    in_full: str = ""


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
    """SamplerCustomAdvanced with `guider`, in one part, split at the step `parts`, or, where that is 1, at every step."""
    guider = guider or host.run("CFGGuider", model=model, positive=case.positive, negative=case.negative, cfg=4.0)[0]
    select, = host.run("KSamplerSelect", sampler_name=sampler)
    sigmas, = host.run("BasicScheduler", model=model, scheduler="simple", steps=STEPS, denoise=1.0)
    noises = host.run("RandomNoise", noise_seed=7)[0], host.run("DisableNoise")[0]
    pieces = host.run("SplitSigmas", sigmas=sigmas, step=parts) if parts else [sigmas]
    if parts == 1:
        pieces = [sigmas[i : i + 2] for i in range(STEPS)]
    latent = case.latent
    for number, piece in enumerate(pieces):
        latent = host.run("SamplerCustomAdvanced", noise=noises[min(number, 1)], guider=guider, sampler=select, sigmas=piece,
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
    settings["num_heads"] = 2
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


def tiles(batch=1, shift=0):
    """Overlapping tiles within one evaluation, as TiledDiffusion makes them: `batch` of them in a pass.

    shift: how far they move from one evaluation to the next, as SpotDiffusion's do.
    """

    def run(host, case, model, sampler):
        moved = [0]

        def cut(apply, inputs):
            x, t, c = inputs["input"], inputs["timestep"], inputs["c"]
            moved[0] += shift
            rolled = x.roll(moved[0], -1)
            total, count = torch.zeros_like(x), torch.zeros_like(x)
            places = [(top, left) for top in (0, 2) for left in (0, 2)]
            for start in range(0, len(places), batch):
                some = [(..., slice(top, top + 6), slice(left, left + 6)) for top, left in places[start : start + batch]]
                many = {name: torch.cat([value] * len(some)) if torch.is_tensor(value) and len(value) == len(x) else value
                        for name, value in c.items()}  # fmt: skip
                made = apply(torch.cat([rolled[place] for place in some]), torch.cat([t] * len(some)), **many)
                for place, tile in zip(some, made.chunk(len(some)), strict=True):
                    total[place] += tile
                    count[place] += 1
            return (total / count).roll(-moved[0], -1)

        model = model.clone()
        model.set_model_unet_function_wrapper(cut)
        return plain(host, case, model, sampler)

    return run


class Pixels:
    """What nodes ask of a VAE: a latent of as many channels and frames as this model's, from any picture."""

    def __init__(self, *shape):
        self.shape = shape

    def encode(self, image):
        return randn(1, *self.shape, seed=6)

    def spacial_compression_encode(self):
        return 8

    def temporal_compression_decode(self):
        return 4


def model_patch(network):
    """`network` with random weights, as ModelPatchLoader gives it."""
    import comfy.model_management as management
    import comfy.model_patcher
    from matrix_models import fill

    fill(network.eval(), torch.Generator().manual_seed(8), 1.0)
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher(network, load_device=management.get_torch_device(), offload_device=management.unet_offload_device())


def blockwise_controlnet(host, case, model, sampler):
    """DiffSynth's for Qwen-Image: a small network after each block."""
    import comfy.ops
    from comfy_extras.nodes_model_patch import QwenImageBlockWiseControlNet

    network = QwenImageBlockWiseControlNet(num_layers=2, dim=64, operations=comfy.ops.manual_cast)
    model, = host.run("QwenImageDiffsynthControlnet", model=model, model_patch=model_patch(network), strength=0.5,
                      vae=Pixels(16, 1, 8, 8), image=torch.zeros(1, 64, 64, 3))  # fmt: skip
    return plain(host, case, model, sampler)


def uni3c(host, case, model, sampler):
    """A camera ControlNet of Wan's own blocks, one beside each of the model's."""
    import comfy.ops
    from comfy.ldm.wan.uni3c import WanUni3CControlnet

    network = WanUni3CControlnet(conv_out_dim=64, dim=32, ffn_dim=64, num_heads=2, num_layers=2, time_embed_dim=64,
                                 out_proj_dim=64, mid_channels=16, operations=comfy.ops.manual_cast)  # fmt: skip
    model, = host.run("WanUni3CControlnetApply", model=model, model_patch=model_patch(network), vae=Pixels(16, 3, 8, 8),
                      render_video=torch.zeros(9, 64, 64, 3), strength=0.5, **ALL_TIME)  # fmt: skip
    return plain(host, case, model, sampler)


def detail_daemon(host, case, model, sampler):
    """A sampler within another, which tells the model of less noise than there is, in the middle of the run above all."""
    import comfy.samplers

    inner = comfy.samplers.ksampler(sampler)

    def sample(model, x, sigmas, **options):
        first, last = float(sigmas[0]), float(sigmas[-1])

        def told(x, sigma, **extra):
            place = (first - float(sigma[0])) / (first - last)
            return model(x, sigma * (1 - 0.1 * max(0.0, 1 - abs(2 * place - 1))), **extra)

        told.inner_model, told.sigmas = model.inner_model, model.sigmas
        return inner.sampler_function(told, x, sigmas, **options)

    return sample_custom(host, case, model, comfy.samplers.KSAMPLER(sample))


def normalized_attention(host, case, model, sampler):
    """NAG: the network runs on every latent twice, with a negative prompt beside each, and one result is made of both."""
    from comfy.patcher_extension import WrappersMP

    (negative, _), = case.negative

    def twice(executor, x, t, context, *args, **kwargs):
        double = [torch.cat([arg] * 2) if torch.is_tensor(arg) and len(arg) == len(x) else arg for arg in args]
        both = torch.cat([context, negative.to(context).expand(len(x), -1, -1)])
        good, bad = executor(torch.cat([x] * 2), torch.cat([t] * 2), both, *double, **kwargs).chunk(2)
        pushed = good + 2 * (good - bad)
        return 0.5 * good + 0.5 * pushed * (good.norm() / pushed.norm())

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "nag", twice)
    return plain(host, case, model, sampler)


def unpacked_weights(host, case, model, sampler):
    """GGUF: weights lie in a few bits each and are unpacked at every call of a layer."""
    from unittest.mock import patch

    class Packed(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.scale = layer.weight.abs().amax() / 127
            self.packed, self.added = (layer.weight / self.scale).round().to(torch.int8), layer.bias

        def forward(self, x):
            return torch.nn.functional.linear(x, self.packed.to(x) * self.scale, self.added)

    network = model.model.diffusion_model
    with patch.object(network.double_blocks[0], "img_mlp", torch.nn.Sequential(
        *(Packed(layer) if isinstance(layer, torch.nn.Linear) else layer for layer in network.double_blocks[0].img_mlp)
    )):  # fmt: skip
        return plain(host, case, model, sampler)


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


def called(sampler_of_another, guider=None, cfg=4.0):
    """The case's prompts with the SAMPLER and the class of guider of another pack."""

    def run(host, case, model, sampler):
        cls = guider() if guider else comfy_guider()
        return other_packs.sampled(host, case, other_packs.guided(cls, case, model, cfg), sampler_of_another(host))

    return run


def comfy_guider():
    import comfy.samplers

    return comfy.samplers.CFGGuider


def two_prompts(host, case, model, sampler):
    guider = other_packs.edit_guider(model, case.positive, case.negative)
    return other_packs.sampled(host, case, guider, other_packs.sampler_of(other_packs.two_of_them))


def zeroed(host, case, model, sampler):
    return plain(host, case, other_packs.zeroed_by_guidance(model, 2), sampler)


def cell_of(host, case, name: str, level: str, sampler: str):
    """The cell of the situation `name`; `case` is its model."""
    situation = SITUATIONS[name]
    return measure(host, case, level, lambda model: situation.run(host, case, model, sampler), situation.steps,
                   situation.steps * BUDGET // STEPS)  # fmt: skip


ALL_TIME = {"start_percent": 0.0, "end_percent": 1.0}
CONTROL = "a ControlNet is applied"
TILES = "called several times an evaluation with one conditioning"
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
    "slices of one step": Situation(lambda *a: custom(*a, parts=1), in_full="is a slice of the schedule's 12 steps"),
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
    "tiles one by one": Situation(tiles(), no_blocks=TILES),
    "tiles two by two": Situation(tiles(batch=2), no_blocks=TILES),
    "tiles that move": Situation(tiles(batch=4, shift=2), no_blocks=TILES),
    "blockwise ControlNet": Situation(blockwise_controlnet, "Qwen-Image", no_blocks=BETWEEN,
                                      node="QwenImageDiffsynthControlnet"),
    "Detail Daemon": Situation(detail_daemon),
    "NAG": Situation(normalized_attention, no_blocks="is like what they take"),
    "weights unpacked in use": Situation(unpacked_weights),
    "Uni3C": Situation(uni3c, "Wan 2.1 t2v", no_blocks=BETWEEN, node="WanUni3CControlnetApply"),
    "CFGOverride, steps 5 to 9": Situation(
        patched("CFGOverride", cfg=1.5, start_percent=0.4, end_percent=0.8), evaluations=6),
    "CFG-Zero-Star, two steps zeroed": Situation(zeroed, evaluations=6),
    "LanPaint's pairs": Situation(
        called(lambda host: other_packs.sampler_of(other_packs.euler, take=lambda out: out[0]),
               lambda: other_packs.giving(lambda out: (out, out))), in_full="gives something else"),
    "FlowEdit": Situation(two_prompts, in_full="in turn"),
    "sampler with a post-CFG function": Situation(
        called(lambda host: other_packs.sampler_of(other_packs.euler, change=other_packs.read_unconditional)),
        in_full="reads the unconditional output"),
    "dpm_adaptive in a wrapper": Situation(
        called(lambda host: other_packs.renamed("dpm_adaptive")), in_full="chooses its noise levels"),
    "SamplerARVideo": Situation(called(lambda host: host.run("SamplerARVideo", num_frame_per_block=1)[0], cfg=1.0),
                                "Wan 2.1 causal", in_full="keeps a state"),
}  # fmt: skip
