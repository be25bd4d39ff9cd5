"""A run is accelerated only while every call is understood; else it is computed in full, at once, and says why."""

import math

import pytest
import torch
from matrix_cells import own_schedule
from matrix_models import MODELS, build
from other_packs import (
    edit_guider,
    euler,
    giving,
    guided,
    renamed,
    sampled,
    sampler_of,
    starved,
    two_of_them,
    zeroed_by_guidance,
    zeroed_without_the_model,
)
from sampling import Cached, forwards, ksampler, make_schedule, sample_custom

LEVELS = pytest.mark.parametrize("level", ["output", "blocks"])
GIVEN = {
    "a pair": (lambda denoised: (denoised, denoised * 0.5), lambda out: out[0]),
    "nothing": (lambda denoised: None, lambda out: torch.zeros(1)),
    "another size": (lambda denoised: denoised[..., :4], lambda out: out.repeat(1, 1, 1, 2)),
}


def relative(ours, core):
    return float((ours - core).norm() / core.norm())


def check_in_full(host, case, run, why, level="output", steps=12, schedule=None):
    """Assert that `run(model)` is core's bit for bit with a schedule on it, in as many passes, and that its report says why."""
    cached = Cached(host, case.model, schedule or make_schedule(host, steps, 4), level)
    with forwards(case.model) as made:
        ours = run(cached.model)
    with forwards(case.model) as core_made:
        core = run(case.model)
    report, = cached.reports
    assert torch.equal(ours, core) and made == core_made
    assert report.evaluations == report.asked and why in report.reason and f": {report.reason}" in report.text
    return report


@LEVELS
@pytest.mark.parametrize("what", GIVEN)
def test_a_guider_that_gives_something_else_than_a_denoised_latent(host, demo_small, what, level):
    gives, takes = GIVEN[what]
    sampler = sampler_of(euler, take=takes)

    def run(model):
        return sampled(host, demo_small, guided(giving(gives), demo_small, model), sampler)

    check_in_full(host, demo_small, run, "gives something else", level)


@LEVELS
@pytest.mark.parametrize("name", ["SamplerARVideo", "mine"])
def test_a_sampler_that_keeps_a_state_in_the_model(host, name, level):
    case = build(MODELS["Wan 2.1 causal"])
    if case is None or "SamplerARVideo" not in host.classes:
        pytest.skip("this ComfyUI has no causal Wan")
    sampler, = host.run("SamplerARVideo", num_frame_per_block=1)
    if name == "mine":
        inner = sampler.sampler_function
        sampler = sampler_of(lambda *args, **inputs: inner(*args, **inputs))

    def run(model):
        return sample_custom(host, case, model, sampler, cfg=1.0)

    check_in_full(host, case, run, "keeps a state", level, schedule=own_schedule(host, case.model, 4))


@LEVELS
@pytest.mark.parametrize("by", ["options", "conds"])
def test_two_evaluations_at_one_noise_level_with_different_prompts(host, demo_small, by, level):
    sampler = sampler_of(two_of_them, by=by)

    def run(model):
        return sampled(host, demo_small, edit_guider(model, demo_small.positive, demo_small.negative), sampler)

    report = check_in_full(host, demo_small, run, "in turn", level)
    assert report.asked == 24 and not report.extra


@LEVELS
@pytest.mark.parametrize("name,why", [("dpm_adaptive", "chooses its noise levels"), ("dpm_fast", "its own noise levels")])
def test_an_adaptive_solver_under_another_name(host, demo_small, name, why, level):
    check_in_full(host, demo_small, lambda model: sample_custom(host, demo_small, model, renamed(name)), why, level)


def adapting(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Euler that halves its first step where the model's output says so: as rehearsed on made-up latents it does not."""
    points = [float(sigma) for sigma in sigmas]
    i = 0
    while i < len(points) - 1:
        denoised = model(x, points[i] * x.new_ones([len(x)]), **extra_args)
        if i == 2 and float(denoised[0].std()) > 0.01:  # made-up latents are one colour
            points.insert(3, (points[2] + points[3]) / 2)
        x = x + (x - denoised) / points[i] * (points[i + 1] - points[i])
        i += 1
    return x


def test_noise_levels_that_follow_from_what_the_model_gave(host, demo_small):
    """Seen in the run, where rehearsing did not tell: from there on everything is computed."""
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4))
    sample_custom(host, demo_small, cached.model, sampler_of(adapting))
    report, = cached.reports
    assert report.computed == (True, False, False, *[True] * 10), report.text
    assert "from evaluation 4 on" in report.text and "chooses its noise levels" in report.reason


def restart(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Restart sampling: twice back up from 0.25 to 0.75, with noise."""
    def down(x, points):
        for now, following in zip(points[:-1], points[1:], strict=True):
            denoised = model(x, now * x.new_ones([len(x)]), **extra_args)
            x = x + (x - denoised) / now * (following - now)
        return x

    low, high = 9, 3
    x = down(x, sigmas[: low + 1])
    for _ in range(2):
        x = x + torch.randn(x.shape, generator=torch.manual_seed(1)).to(x) * (sigmas[high] ** 2 - sigmas[low] ** 2) ** 0.5
        x = down(x, sigmas[high : low + 1])
    return down(x, sigmas[low:])


def test_going_back_up_is_evaluated_anew(host, demo_small):
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 3))  # computes 0, 4, 8
    sample_custom(host, demo_small, cached.model, sampler_of(restart))
    report, = cached.reports
    asked = [*range(9), *range(3, 9), *range(3, 9), *range(9, 12)]
    made = [step for step, computed in zip(asked, report.computed, strict=True) if computed]
    assert made == [0, 4, 8, 3, 4, 8, 3, 4, 8] and report.extra == 2 and not report.reason


@pytest.mark.parametrize("sampler", ["heun", "heunpp2", "dpm_2", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "uni_pc",
                                     "exp_heun_2_x0", "seeds_3", "sa_solver_pece", "er_sde", "lms", "ddim"])
def test_samplers_of_fixed_steps_stay_accelerated_under_any_name(host, demo_small, sampler):
    import comfy.samplers

    if sampler not in comfy.samplers.SAMPLER_NAMES:
        pytest.skip("not in this ComfyUI")
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4))
    core = comfy.samplers.sampler_object(sampler).sampler_function
    mine = sampler_of(lambda model, x, sigmas, **inputs: core(model, x, sigmas, **inputs))
    sample_custom(host, demo_small, cached.model, mine)
    report, = cached.reports
    assert not report.reason and report.evaluations <= report.asked * 0.5 and not report.extra, report.text


@pytest.mark.parametrize("steps", [12, 20, 50])
def test_noise_levels_that_are_shaken_stay_accelerated(host, demo_small, steps):
    """Detail Daemon: the model is told less noise than there is, most of all in the middle of the run."""
    def shaken(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i, (now, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
            told = now * (1 - 0.04 * math.sin(math.pi * i / steps))
            x = x + (x - model(x, told * x.new_ones([len(x)]), **extra_args)) / now * (following - now)
        return x

    cached = Cached(host, demo_small.model, make_schedule(host, steps, steps // 3))
    sample_custom(host, demo_small, cached.model, sampler_of(shaken), steps=steps)
    report, = cached.reports
    assert not report.reason and report.evaluations <= steps // 3 + 2, report.text


@LEVELS
@pytest.mark.parametrize("zeroed", [zeroed_by_guidance, zeroed_without_the_model])
def test_what_is_no_evaluation_of_the_model_teaches_nothing(host, demo_small, zeroed, level):
    model = zeroed(demo_small.model, 3)
    core = ksampler(host, demo_small, model)
    cached = Cached(host, model, make_schedule(host, 12, 3), level)  # computes 0, 4, 8
    ours = ksampler(host, demo_small, cached.model)
    report, = cached.reports
    made = [step for step, computed in enumerate(report.computed) if computed]
    assert made == [0, 1, 2, 3, 4, 8] and report.extra == 3 and "taught nothing" in report.note
    late = Cached(host, demo_small.model, make_schedule(host, 12, 3), level)
    assert relative(ours, core) < 2 * relative(ksampler(host, demo_small, late.model), ksampler(host, demo_small))


def test_a_zeroed_first_step_is_no_lesson_of_velocities(host, demo_small):
    """The second step is evaluated although the schedule skips it, and all later ones go out from it."""
    cached = Cached(host, zeroed_by_guidance(demo_small.model, 1), make_schedule(host, 12, 3))
    ksampler(host, demo_small, cached.model)
    assert [step for step, computed in enumerate(cached.reports[0].computed) if computed] == [0, 1, 4, 8]


@LEVELS
def test_another_cache_that_answers_in_place_of_the_model(host, demo_small, level):
    model = starved(demo_small.model, lambda i: i > 0)
    cached = Cached(host, model, make_schedule(host, 12, 4), level)
    ksampler(host, demo_small, cached.model)
    report, = cached.reports
    assert "the network did not run" in report.reason
    first = report.computed.index(True, 1)
    assert all(report.computed[first:])


@LEVELS
def test_guidance_that_changes_between_two_evaluations(host, demo_small, level):
    """Core's CFGOverride changes the guider's cfg for a part of the run; where it begins and ends is evaluated anew."""
    if "CFGOverride" not in host.classes:
        pytest.skip("this ComfyUI has no CFGOverride")

    def overridden(model):
        return host.run("CFGOverride", model=model, cfg=1.5, start_percent=0.4, end_percent=0.8)[0]

    cached = Cached(host, demo_small.model, make_schedule(host, 12, 3), level)  # computes 0, 4, 8
    ours = ksampler(host, demo_small, overridden(cached.model))
    report, = cached.reports
    assert [step for step, computed in enumerate(report.computed) if computed] == [0, 4, 5, 8, 10]
    assert report.extra == 2 and not report.reason and ours.isfinite().all()


def test_a_function_that_a_sampler_changes_is_another_situation(host, demo_small):
    """What its patches are is compared, not whether there are any."""
    def one(q, k, v, **others):
        return {"q": q, "k": k, "v": v} | others

    def other(q, k, v, **others):
        return {"q": q, "k": k * 0.5, "v": v} | others

    def change(i, extra_args):
        extra_args["model_options"]["transformer_options"]["patches"] = {"attn1_patch": [one if i < 5 else other]}

    cached = Cached(host, demo_small.model, make_schedule(host, 12, 3))
    sample_custom(host, demo_small, cached.model, sampler_of(euler, change=change))
    report, = cached.reports
    assert [step for step, computed in enumerate(report.computed) if computed] == [0, 4, 5, 8] and not report.reason


def test_guidance_with_a_range_inside_a_function_is_seen_where_it_is_evaluated(host, demo_small):
    """SkipLayerGuidance ends at 0.5: the evaluations after it are not combined with those before."""
    def put(model):
        return host.run("SkipLayerGuidanceDiT", model=model, double_layers="0", single_layers="", scale=2.0, start_percent=0.0,
                        end_percent=0.5)[0]  # fmt: skip

    schedule = make_schedule(host, 12, 4)  # 0, 3, 6, 9
    seen = []
    run = host.module("otcache_core.sampling.cached_run").CachedRun
    forget = run.forget

    def forgetting(self):
        seen.append(len(self._history))
        forget(self)

    run.forget = forgetting
    try:
        cached = Cached(host, put(demo_small.model), schedule)
        ksampler(host, demo_small, cached.model)
    finally:
        run.forget = forget
    assert cached.reports[0].evaluations == 4 and not cached.reports[0].extra
    assert any(kept == 2 or kept == 3 for kept in seen[1:-1]), seen


def test_a_run_in_slices_of_one_step_says_so(host, demo_small):
    from comfy.samplers import CFGGuider
    from comfy.samplers import ksampler as named

    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4))
    guider = guided(CFGGuider, demo_small, cached.model)
    sigmas, = host.run("BasicScheduler", model=cached.model, scheduler="simple", steps=12, denoise=1.0)
    latent = None
    for start in range(12):
        piece = sigmas[start : start + 2]
        samples = sampled(host, demo_small, guider, named("euler"), sigmas=piece, latent=latent, seed=None if latent else 3)
        latent = {"samples": samples}
    assert len(cached.reports) == 12
    assert all("a slice of the schedule's 12 steps" in report.text for report in cached.reports), cached.reports[1].text


def test_noise_levels_that_differ_within_a_batch(host, demo_small):
    def apart(model, x, sigmas, extra_args=None, callback=None, disable=None):
        scale = torch.tensor([1.0, 0.9]).to(x)
        for now, following in zip(sigmas[:-1], sigmas[1:], strict=True):
            level = (now * scale).view(-1, 1, 1, 1)
            x = x + (x - model(x, now * scale, **extra_args)) / level * (following - now)
        return x

    case = demo_small
    both = {"samples": case.latent["samples"].repeat(2, 1, 1, 1)}

    def run(model):
        import comfy.samplers

        return sampled(host, case, guided(comfy.samplers.CFGGuider, case, model), sampler_of(apart), latent=both)

    check_in_full(host, case, run, "noise levels of their own")


@pytest.mark.parametrize("name", ["FLUX.1", "SD 1.5"])
def test_no_hook_stays_on_the_network(host, name):
    case = build(MODELS[name])
    cached = Cached(host, case.model, own_schedule(host, case.model, 4))
    ksampler(host, case, cached.model)
    assert cached.reports[0].evaluations == 4
    assert not any(module._forward_pre_hooks for module in case.model.model.diffusion_model.modules())

    def fail(count):
        assert count < 3, "stop"

    with forwards(case.model, fail), pytest.raises(AssertionError, match="stop"):
        ksampler(host, case, cached.model)
    assert not any(module._forward_pre_hooks for module in case.model.model.diffusion_model.modules())
