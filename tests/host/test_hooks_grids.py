"""Runs whose noise levels are not what a schedule was made with: other dtypes, raised inside a step, another kind of noise."""

import numpy as np
import pytest
import torch
from sampling import Cached, ksampler, make_schedule


def custom(host, case, model, sigmas, sampler="euler", noise_dtype=None, **options):
    """The samples of SamplerCustomAdvanced's parts on `sigmas` [N + 1], a tensor of any dtype."""
    import comfy.sample
    import comfy.samplers

    noise = comfy.sample.prepare_noise(case.latent["samples"], 7)
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(case.positive, case.negative)
    guider.set_cfg(4.0)
    torch.manual_seed(3)
    return guider.sample(noise, case.latent["samples"], comfy.samplers.ksampler(sampler, options), sigmas, seed=7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("level", ["output", "blocks"])
def test_sigmas_of_every_dtype(host, demo_small, dtype, level):
    sigmas = torch.linspace(1, 0, 13).to(dtype)
    full = Cached(host, demo_small.model, make_schedule(host, 12, 12), level)
    assert torch.equal(custom(host, demo_small, demo_small.model, sigmas), custom(host, demo_small, full.model, sigmas))
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4), level)
    assert custom(host, demo_small, cached.model, sigmas).isfinite().all()
    assert cached.reports[0].evaluations == 4 and not cached.reports[0].reason


def test_half_precision_sigmas_that_repeat_are_computed_in_full(host, demo_small):
    sigmas = torch.linspace(1, 0, 1001).bfloat16()[:13]
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4))
    custom(host, demo_small, cached.model, sigmas)
    assert cached.reports[0].evaluations == 12 and "fall strictly" in cached.reports[0].reason


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm_2"])
@pytest.mark.parametrize("churn", [0.5, 1.9, 12.0])
@pytest.mark.parametrize("options", [{}, {"s_tmax": 0.7}, {"s_tmin": 0.3, "s_tmax": 0.9}])
def test_churn_makes_no_evaluation_more(host, demo_small, sampler, churn, options):
    """s_churn raises the noise level above the step's own before the model is asked."""
    sigmas = torch.linspace(1, 0, 13)
    quiet, loud = (Cached(host, demo_small.model, make_schedule(host, 12, 4)) for _ in range(2))
    custom(host, demo_small, quiet.model, sigmas, sampler)
    custom(host, demo_small, loud.model, sigmas, sampler, s_churn=churn, **options)
    assert loud.reports[0].asked == quiet.reports[0].asked
    assert loud.reports[0].evaluations == quiet.reports[0].evaluations


def test_a_slice_does_not_evaluate_twice_at_its_start(host, demo_small):
    library = host.module("otcache_core.schedules.schedule")
    steps = (0, 2, 6, 13, 20, 25, 31, 36, 41, 46)
    schedule = library.make_schedule(sigmas=tuple(np.linspace(1, 0, 51)), compute_steps=steps, predictor={"kind": "hold"})
    cached = Cached(host, demo_small.model, schedule)
    # The last 50 of 83 steps are those of denoise 0.6; without noise of its own it is a slice of another run.
    ksampler(host, demo_small, cached.model, "KSamplerAdvanced", steps=83, start_at_step=33, end_at_step=83,
             add_noise="disable", return_with_leftover_noise="disable")  # fmt: skip
    assert cached.reports[0].evaluations == 6 and cached.reports[0].computed[:6] == (True, *[False] * 5)


def test_a_short_run_of_low_denoise_is_no_slice(host, demo_small):
    """Three steps with noise of their own leave nothing to skip, and no other cut of the run would."""
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4))
    ksampler(host, demo_small, cached.model, steps=3, denoise=0.2)
    report = cached.reports[0]
    assert report.evaluations == 3 and not report.reason, report.text


def epsilon_model(host, demo_small):
    """The small network with a diffusion model's noise: sigma from 14.6 to 0.03."""
    import comfy.model_sampling

    class Sampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
        pass

    model = demo_small.model.clone()
    model.add_object_patch("model_sampling", Sampling(None))
    return model


def scheduled(host, top, **fields):
    library = host.module("otcache_core.schedules.schedule")
    fields |= {"compute_steps": (0, 2, 6, 13, 20, 25, 31, 36, 41, 46), "predictor": {"kind": "hold"}}
    return library.make_schedule(sigmas=tuple(np.linspace(top, 0, 51)), **fields)


@pytest.mark.parametrize("noise", ["", "diffusion"])
def test_a_diffusion_schedule_on_a_flow_model_is_not_followed(host, demo_small, noise):
    cached = Cached(host, demo_small.model, scheduled(host, 14.6, noise=noise))
    ksampler(host, demo_small, cached.model, steps=50)
    assert cached.reports[0].evaluations == 50 and "made for a diffusion model" in cached.reports[0].text


@pytest.mark.parametrize("denoise", [1.0, 0.5, 0.05])
def test_a_flow_schedule_on_a_diffusion_model_is_not_followed(host, demo_small, denoise):
    """Also where the run begins among the schedule's own sigmas."""
    cached = Cached(host, epsilon_model(host, demo_small), scheduled(host, 1.0, noise="flow"))
    ksampler(host, demo_small, cached.model, steps=20, denoise=denoise)
    assert cached.reports[0].evaluations == 20 and "made for a flow model" in cached.reports[0].text


def test_a_schedule_for_more_noise_than_the_model_knows_is_not_followed(host, demo_small):
    cached = Cached(host, epsilon_model(host, demo_small), scheduled(host, 80.0))
    ksampler(host, demo_small, cached.model, steps=20)
    assert cached.reports[0].evaluations == 20 and "this model's noise ends at 14.6" in cached.reports[0].text


def test_a_diffusion_schedule_on_its_own_kind_is_followed_at_any_denoise(host, demo_small):
    for denoise in (1.0, 0.5, 0.1):
        cached = Cached(host, epsilon_model(host, demo_small), scheduled(host, 14.6, noise="diffusion"))
        ksampler(host, demo_small, cached.model, steps=20, scheduler="karras", denoise=denoise)
        assert cached.reports[0].evaluations < 20 and not cached.reports[0].reason


def test_a_schedule_of_another_model_class_is_followed_with_a_warning(host, demo_small):
    strip = host.module("otcache_core.drawing.strip")
    for model_class, warned in (("Flux", False), ("", False), ("QwenImage", True)):
        cached = Cached(host, demo_small.model, scheduled(host, 1.0, model_class=model_class, noise="flow"))
        ksampler(host, demo_small, cached.model, steps=50)
        report = cached.reports[0]
        assert report.evaluations == 10 and ("made on QwenImage, but this model is Flux" in report.text) == warned
        assert bool(strip.run_strip(report)["warning"]) == warned


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_bounds_are_compared_as_torch_compares_them(host, dtype):
    rounded = host.module("nodes.host.time_ranges").rounded
    for level in torch.linspace(0.01, 15, 50).to(dtype):
        for nudge in (-1e-2, -1e-3, -1e-5, -1e-9, 0.0, 1e-9, 1e-5, 1e-3, 1e-2):
            bound = float(level) * (1 + nudge)
            assert (float(level) > rounded(bound, dtype)) == bool(level > bound)
    assert rounded(float("-inf"), dtype) == float("-inf")


def test_no_schedulers_own_end_is_taken_for_a_jump(host):
    """Re-timing from any scheduler and shift to any other keeps every evaluation."""
    import comfy.model_sampling
    import comfy.samplers

    library, retiming = host.module("otcache_core.schedules.schedule"), host.module("otcache_core.schedules.retiming")

    class Flow(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    class Diffusion(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
        pass

    def grids(sampling):
        for name in comfy.samplers.SCHEDULER_NAMES:
            for steps in (4, 12, 20, 50):
                grid = comfy.samplers.calculate_sigmas(sampling, name, steps).double().numpy()
                if (np.diff(grid) < 0).all():
                    yield grid

    flows = []
    for shift in (1.0, 3.0, 12.0):
        sampling = Flow(None)
        sampling.set_parameters(shift=shift)
        flows += grids(sampling)
    for kind in (flows, list(grids(Diffusion(None)))):
        for source in kind:
            schedule = library.make_schedule(sigmas=tuple(source), compute_steps=(0,), predictor={"kind": "hold"})
            for grid in kind:
                assert not retiming.jumps_at_the_end(schedule, grid)
    whole = retiming.retime(schedule.replace(sigmas=tuple(np.linspace(1, 0, 51))), np.linspace(1, 0, 51))
    assert retiming.jumps_at_the_end(whole, np.append(np.linspace(1, 0, 51)[:30], 0.0))
