"""What other packs do to a sampling run, each imitated in a few lines: how they call the model and what they give back."""

import torch


def euler(model, x, sigmas, extra_args=None, callback=None, disable=None, change=None, take=lambda out: out):
    """Plain Euler; change(i, extra_args) is called before each evaluation, take(out) makes a tensor of what comes back."""
    for i in range(len(sigmas) - 1):
        if change:
            change(i, extra_args)
        denoised = take(model(x, sigmas[i] * x.new_ones([len(x)]), **extra_args))
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


def sampler_of(function, **options):
    """A SAMPLER under a name that says nothing."""
    import comfy.samplers

    def mine(model, x, sigmas, **inputs):
        return function(model, x, sigmas, **inputs, **options)

    return comfy.samplers.KSAMPLER(mine)


def renamed(name):
    """Core's sampler `name` within another function, as packs wrap samplers."""
    import comfy.samplers

    inner = comfy.samplers.ksampler(name).sampler_function
    return sampler_of(lambda model, x, sigmas, **inputs: inner(model, x, sigmas, **inputs))


def read_unconditional(i, extra_args):
    """Before a step of `euler`: a post-CFG function of the sampler's own, as CFG++ samplers add one."""
    from comfy.model_patcher import set_model_options_post_cfg_function as add

    if i == 0:
        extra_args["model_options"] = add(extra_args["model_options"], lambda args: args["denoised"])


def giving(what):
    """A guider's class whose predict_noise gives what(denoised), as LanPaint's gives a pair."""
    import comfy.samplers

    class Guider(comfy.samplers.CFGGuider):
        def predict_noise(self, *args, **kwargs):
            return what(super().predict_noise(*args, **kwargs))

    return Guider


def two_of_them(model, x, sigmas, extra_args=None, callback=None, disable=None, by="options"):
    """FlowEdit: at every noise level the source's velocity under its prompt and the target's under another.

    by: how the guider is told which: "options" (a word in transformer_options, as HunyuanLoom does) or "conds" (its own are
    changed).
    """
    guider = model.inner_model
    source, edit, noise = torch.zeros_like(x), torch.zeros_like(x), x / sigmas[0]

    def velocity(latent, sigma, which):
        if by == "conds":
            swapped, kept = {"positive": guider.conds[which]}, guider.conds
            guider.conds = kept | swapped
        extra_args["model_options"]["transformer_options"]["latent_type"] = which
        denoised = model(latent, sigma * x.new_ones([len(x)]), **extra_args)
        if by == "conds":
            guider.conds = kept
        return (latent - denoised) / sigma

    for now, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        at = (1 - now) * source + now * noise
        moved = velocity(at + edit, now, "target") - velocity(at, now, "source")
        edit = edit + (following - now) * moved
    return source + edit


def edit_guider(model, source, target):
    """A guider with two prompts, of which it takes the one that transformer_options names."""
    import comfy.samplers

    class Guider(comfy.samplers.CFGGuider):
        def predict_noise(self, x, timestep, model_options, seed=None):
            which = model_options["transformer_options"]["latent_type"]
            prompt = self.conds[which]
            return comfy.samplers.sampling_function(self.inner_model, x, timestep, None, prompt, 1.0, model_options, seed)

    guider = Guider(model)
    guider.inner_set_conds({"source": source, "target": target, "positive": target})
    return guider


def zeroed_by_guidance(model, steps):
    """CFG-Zero-Star as KJNodes has it: guidance gives nothing for the first steps."""
    model = model.clone()

    def guidance(args):
        grid = args["model_options"]["transformer_options"]["sample_sigmas"]
        step = int((grid == args["timestep"][0]).nonzero()[0])
        return args["cond"] * 0 if step < steps else args["uncond"] + args["cond_scale"] * (args["cond"] - args["uncond"])

    model.set_model_sampler_cfg_function(guidance)
    return model


def zeroed_without_the_model(model, steps):
    """The same by whatever stands before the model, which is not called."""
    from comfy.patcher_extension import WrappersMP

    model = model.clone()

    def batch(executor, inner, conds, x, timestep, options):
        grid = options["transformer_options"]["sample_sigmas"]
        if int((grid == timestep[0]).nonzero()[0]) < steps:
            return [x * 0.9 for _ in conds]
        return executor(inner, conds, x, timestep, options)

    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "zero", batch)
    return model


def starved(model, skips):
    """Another cache, which gives the last output again at the evaluations that skips(i) names."""
    model, kept, count = model.clone(), [], [0]

    def wrapper(apply, inputs):
        count[0] += 1
        if kept and skips(count[0] - 1):
            return inputs["input"] - kept[0]
        out = apply(inputs["input"], inputs["timestep"], **inputs["c"])
        kept[:] = [inputs["input"] - out]
        return out

    model.set_model_unet_function_wrapper(wrapper)
    return model


def sampled(host, case, guider, sampler, steps=12, sigmas=None, latent=None, seed=3):
    """What core SamplerCustomAdvanced makes with `guider` and `sampler`, on the simple schedule unless given another."""
    if sigmas is None:
        sigmas, = host.run("BasicScheduler", model=guider.model_patcher, scheduler="simple", steps=steps, denoise=1.0)
    noise, = host.run("RandomNoise", noise_seed=seed) if seed is not None else host.run("DisableNoise")
    return host.run("SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas,
                    latent_image=latent or case.latent)[0]["samples"]  # fmt: skip


def guided(cls, case, model, cfg=4.0):
    """A guider of class `cls` with the case's prompts."""
    guider = cls(model)
    guider.set_conds(case.positive, case.negative)
    guider.set_cfg(cfg)
    return guider
