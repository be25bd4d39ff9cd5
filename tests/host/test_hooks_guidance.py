"""Samplers that read the unconditional output, found by the function they add; the model's and the guider's own stay."""

import re

import pytest
import torch
from learning import Auto, lessons
from learning import run as run_auto
from matrix_cells import CFG_PP
from sampling import Cached, forwards, ksampler, make_schedule, sample_custom

WHY = "unconditional output"


def set_function(options, key, function):
    """`options` with one more function under `key`, as samplers add them: shared with nobody."""
    single = key in ("sampler_cfg_function", "sampler_calc_cond_batch_function")
    return options | {key: function if single else [*options.get(key, []), function]}


def euler_that_adds(key, function, at=0, in_place=False):
    """A SAMPLER under a name that says nothing: euler, which adds `function` under `key` of the model options at step `at`."""
    import comfy.samplers

    def plain(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i in range(len(sigmas) - 1):
            if i == at and in_place:
                extra_args["model_options"].setdefault(key, []).append(function)
            elif i == at:
                extra_args["model_options"] = set_function(extra_args["model_options"], key, function)
            denoised = model(x, sigmas[i] * x.new_ones([len(x)]), **extra_args)
            x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
        return x

    return comfy.samplers.KSAMPLER(plain)


def is_in_full(host, case, sampler, level="output", **inputs):
    """Assert that a run with `sampler` is core's, bit for bit, and says why; returns the report."""
    cached = Cached(host, case.model, make_schedule(host, 12, 4), level)
    with forwards(case.model) as made:
        ours = sample_custom(host, case, cached.model, sampler, **inputs)
    with forwards(case.model) as core_made:
        core = sample_custom(host, case, case.model, sampler, **inputs)
    report, = cached.reports
    assert torch.equal(ours, core) and made == core_made
    assert report.evaluations == report.asked and WHY in report.reason and "computed in full:" in report.text
    return report


@pytest.mark.parametrize("cfg", [1.0, 4.0])
@pytest.mark.parametrize("name", CFG_PP)
def test_cores_samplers_of_that_kind(host, demo_small, name, cfg):
    import comfy.samplers

    if name not in comfy.samplers.KSAMPLER_NAMES:
        pytest.skip("not in this ComfyUI")
    report = is_in_full(host, demo_small, comfy.samplers.ksampler(name), cfg=cfg)
    assert not report.note and not report.warning


def test_no_sampler_of_that_kind_is_left_out(host):
    import comfy.samplers

    assert {name for name in comfy.samplers.KSAMPLER_NAMES if re.search("cfg_?pp", name)} <= set(CFG_PP)


@pytest.mark.parametrize("name", CFG_PP)
@pytest.mark.parametrize("level", ["output", "blocks"])
def test_under_a_name_that_nobody_knows(host, demo_small, name, level):
    import comfy.samplers

    if name not in comfy.samplers.KSAMPLER_NAMES:
        pytest.skip("not in this ComfyUI")
    inner = comfy.samplers.ksampler(name).sampler_function

    def mine(model, x, sigmas, **inputs):
        return inner(model, x, sigmas, **inputs)

    is_in_full(host, demo_small, comfy.samplers.KSAMPLER(mine), level)


@pytest.mark.parametrize("version", ["regular", "alternative"])
def test_cores_own_node(host, demo_small, version):
    is_in_full(host, demo_small, host.run("SamplerEulerCFGpp", version=version)[0])


@pytest.mark.parametrize("in_place", [False, True])
def test_a_function_that_is_added_in_place_or_not(host, demo_small, in_place):
    """Also beside a function that the model carries, in the same list."""
    def mine(args):
        return args["denoised"]

    sampler = euler_that_adds("sampler_post_cfg_function", mine, in_place=in_place)
    is_in_full(host, demo_small, sampler)
    patched = demo_small.model.clone()
    patched.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * 0.99)
    cached = Cached(host, patched, make_schedule(host, 12, 4))
    assert torch.equal(sample_custom(host, demo_small, cached.model, sampler),
                       sample_custom(host, demo_small, patched, sampler))  # fmt: skip
    assert WHY in cached.reports[0].reason
    # What the sampler added was its run's alone.
    assert len(cached.model.model_options["sampler_post_cfg_function"]) == 1
    ksampler(host, demo_small, cached.model)
    assert cached.reports[1].evaluations == 4 and not cached.reports[1].reason


def test_every_kind_of_function_around_guidance(host, demo_small):
    import comfy.samplers

    def batch(args):
        return comfy.samplers.calc_cond_batch(
            args["model"], args["conds"], args["input"], args["sigma"], args["model_options"])  # fmt: skip

    functions = {
        "sampler_pre_cfg_function": lambda args: args["conds_out"],
        "sampler_cfg_function": lambda args: args["uncond"] + 3 * (args["cond"] - args["uncond"]),
        "sampler_calc_cond_batch_function": batch,
    }
    for key, function in functions.items():
        is_in_full(host, demo_small, euler_that_adds(key, function))


def test_a_function_that_comes_in_mid_run(host, demo_small):
    """What was skipped by then was skipped; from there on everything is computed, and the report says from where."""
    seen = []
    sampler = euler_that_adds("sampler_post_cfg_function", lambda args: seen.append(1) or args["denoised"], at=5)
    for level in ("output", "blocks"):
        cached = Cached(host, demo_small.model, make_schedule(host, 12, 4), level)  # computes 0, 3, 6, 9
        seen.clear()
        out = sample_custom(host, demo_small, cached.model, sampler)
        report, = cached.reports
        assert out.isfinite().all() and len(seen) == 7
        assert report.computed == (True, False, False, True, False, *[True] * 7) and report.evaluations == 9
        assert f"computed in full from evaluation 6 on: {report.reason}" in report.text and WHY in report.reason


@pytest.mark.parametrize("level", ["output", "blocks"])
def test_functions_that_the_model_carries_stay_as_they_are(host, demo_small, level):
    model = demo_small.model.clone()
    model.set_model_sampler_pre_cfg_function(lambda args: args["conds_out"])
    model.set_model_sampler_cfg_function(lambda args: args["uncond"] + 3 * (args["cond"] - args["uncond"]))
    model.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * 0.99)
    cached = Cached(host, model, make_schedule(host, 12, 4), level)
    ksampler(host, demo_small, cached.model)
    assert cached.reports[0].evaluations == 4 and not cached.reports[0].reason


@pytest.mark.parametrize("where", ["before", "inner_sample", "predict_noise"])
def test_functions_that_a_guider_adds_stay_as_they_are(host, demo_small, where):
    """Whenever it adds them: the sampler knows nothing of them."""
    import comfy.samplers
    from comfy.model_patcher import set_model_options_post_cfg_function as add

    def half(args):
        return args["denoised"] * 0.99

    class Guider(comfy.samplers.CFGGuider):
        def inner_sample(self, *args, **kwargs):
            if where == "inner_sample":
                add(self.model_options, half)
            return super().inner_sample(*args, **kwargs)

        def predict_noise(self, x, timestep, model_options=None, seed=None):
            options = add(dict(model_options), half) if where == "predict_noise" else model_options
            return super().predict_noise(x, timestep, options, seed)

    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4))
    guider = Guider(cached.model)
    guider.set_conds(demo_small.positive, demo_small.negative)
    guider.set_cfg(4.0)
    if where == "before":
        guider.model_options = add(dict(guider.model_options), half)
    sigmas, = host.run("BasicScheduler", model=cached.model, scheduler="simple", steps=12, denoise=1.0)
    latent = demo_small.latent["samples"]
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(3))
    guider.sample(noise, latent, comfy.samplers.ksampler("euler"), sigmas, seed=3)
    assert cached.reports[0].evaluations == 4 and not cached.reports[0].reason


def test_such_runs_teach_nothing_under_any_name(host, demo, learnt):
    sampler = euler_that_adds("sampler_post_cfg_function", lambda args: args["denoised"])
    auto = Auto(host, demo.model)
    for _ in range(2):
        with forwards(demo.model) as made:
            ours = sample_custom(host, demo, auto.model, sampler)
        assert torch.equal(ours, sample_custom(host, demo, demo.model, sampler)) and len(made) == 12
        assert WHY in auto.report.reason and "learnt from" not in auto.report.text
    assert not lessons(learnt)
    # In mid-run as well: what was recorded until then is not kept.
    late = euler_that_adds("sampler_post_cfg_function", lambda args: args["denoised"], at=11)
    assert torch.equal(sample_custom(host, demo, auto.model, late), sample_custom(host, demo, demo.model, late))
    assert WHY in auto.report.reason and not lessons(learnt)
    run_auto(host, demo, auto)
    assert "learnt from this run" in auto.report.reason
    # What euler taught does not serve a sampler that reads the unconditional output.
    assert torch.equal(sample_custom(host, demo, auto.model, sampler), sample_custom(host, demo, demo.model, sampler))
    assert WHY in auto.report.reason and not auto.report.note
