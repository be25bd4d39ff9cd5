"""What tests of sampling share: runs through core nodes, schedules for them, and a count of the model's forward passes."""

from contextlib import contextmanager

import numpy as np

PASSES = {"output": 4, "blocks": 4 + 2 * 1 + 6 * 2}
"""Of the network in 12 steps of which `make_schedule` computes 4, 3 steps apart, by level: its blocks are replayed in one pass
for each evaluation that linear extrapolation combines, of which there is one at first."""


def make_schedule(host, steps: int, budget: int, kind: str = "linear"):
    """A schedule on the even grid of `steps` steps with `budget` of them computed: step 0, then the rest spread out."""
    library = host.module("otcache_core.schedules.schedule")
    chosen = library.uniform_steps(budget, steps)
    rows = tuple(((1.2, -0.3, 0.1)[: k + 1]) for k in range(budget)) if kind == "fitted" else None
    return library.make_schedule(
        sigmas=tuple(np.linspace(1, 0, steps + 1)),
        compute_steps=chosen,
        predictor=library.Predictor(kind=kind, damping=0.5),
        weights=rows,
        name=f"{budget} of {steps}",
    )


def ksampler(host, case, model=None, node="KSampler", **inputs):
    """The samples of one core KSampler run of `case` (model, positive, negative, latent); euler, simple, 12 steps, CFG 4."""
    latent = inputs.pop("latent_image", case.latent)
    defaults = {"steps": 12, "cfg": 4.0, "sampler_name": "euler", "scheduler": "simple"}
    defaults |= {"noise_seed" if node == "KSamplerAdvanced" else "seed": 7}
    defaults |= {"positive": case.positive, "negative": case.negative}
    outputs = host.run(node, **defaults | {"model": model or case.model, "latent_image": latent} | inputs)
    return outputs[0]["samples"]


def sample_custom(host, case, model, sampler, steps=12, cfg=4.0):
    """The samples of one run of core SamplerCustom with the SAMPLER `sampler` on the simple schedule."""
    sigmas, = host.run("BasicScheduler", model=model, scheduler="simple", steps=steps, denoise=1.0)
    outputs = host.run("SamplerCustom", model=model, add_noise=True, noise_seed=3, cfg=cfg, positive=case.positive,
                       negative=case.negative, sampler=sampler, sigmas=sigmas, latent_image=case.latent)  # fmt: skip
    return outputs[0]["samples"]


def growing_sampler():
    """A SAMPLER whose latent gets twice as wide at its sixth step."""
    import comfy.samplers
    import torch

    def growing(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i in range(len(sigmas) - 1):
            if i == 5:
                x = torch.cat([x, x], dim=-1)
            denoised = model(x, sigmas[i] * x.new_ones([len(x)]), **extra_args)
            x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
        return x

    return comfy.samplers.KSAMPLER(growing)


class Cached:
    """`model` with a schedule on it; `reports` collects one report a run."""

    def __init__(self, host, model, schedule, level="output"):
        self.reports = []
        self.model = host.module("nodes.host.attach").with_cache(model, schedule, level, self.reports.append)


@contextmanager
def forwards(model, act=None):
    """Collects the sigma of every forward pass of `model`'s network; `act(count)` is called before each."""
    sigmas = []

    def before(module, args, kwargs):
        options = kwargs.get("transformer_options") or next(a for a in reversed(args) if isinstance(a, dict))
        sigmas.append(float(options["sigmas"][0]))
        if act:
            act(len(sigmas))

    handle = model.model.diffusion_model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield sigmas
    finally:
        handle.remove()


@contextmanager
def evaluations(model):
    """Collects the sigma of every forward pass in which transformer blocks ran; a FLUX-style model."""
    sigmas = []
    block = model.model.diffusion_model.double_blocks[0]

    def before(module, args, kwargs):
        sigmas.append(float(kwargs["transformer_options"]["sigmas"][0]))

    handle = block.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield sigmas
    finally:
        handle.remove()


def core_cache(host, case, node, budget, options, starts=(0.0, 0.05, 0.15), seen=None):
    """Runs of core EasyCache or LazyCache at `budget` evaluations, or as few above it as its threshold allows.

    Yields (evaluations, samples) for each start_percent, the threshold found by bisection; the last steps may be skipped.
    seen: runs by (node, start, threshold), for further budgets with the same options.
    """
    seen = {} if seen is None else seen
    for start in starts:

        def run(threshold, start=start):
            if (place := (node, start, threshold)) in seen:
                return seen[place]
            model = host.run(node, model=case.model, reuse_threshold=threshold, start_percent=start, end_percent=1.0)[0]
            with evaluations(model) as sigmas:
                samples = ksampler(host, case, model, **options)
            return seen.setdefault(place, (len(set(sigmas)), samples))

        low, high, best = 0.0, 3.0, None
        for _ in range(9):
            middle = (low + high) / 2
            found = run(middle)
            if found[0] >= budget:
                low, best = middle, found
            else:
                high = middle
        yield best or run(0.0)
