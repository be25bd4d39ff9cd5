"""Runs that teach OT Auto Cache nothing: they leave no file, cost no picture, and the next one learns."""

import logging

import pytest
import torch
from learning import STEPS, Auto, lessons, run
from sampling import growing_sampler, ksampler


def picture(case, seed=3):
    return {"samples": torch.randn(case.latent["samples"].shape, generator=torch.Generator().manual_seed(seed))}


def teaches_nothing(host, case, folder, words, **inputs):
    auto = Auto(host, case.model)
    samples, made = run(host, case, auto, **inputs)
    assert torch.equal(samples, ksampler(host, case, **{"steps": STEPS} | inputs))
    assert "nothing was learnt" in auto.report.reason and words in auto.report.reason, auto.report.reason
    assert made == auto.report.evaluations == STEPS and not lessons(folder)
    run(host, case, Auto(host, case.model))
    assert len(lessons(folder)) == 1


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_noise_mask(host, demo, learnt, share):
    mask = torch.zeros(1, 16, 16)
    mask[:, : int(16 * share)] = 1
    teaches_nothing(host, demo, learnt, "masked", latent_image=picture(demo) | {"noise_mask": mask})


def test_a_conditioning_that_ends_in_mid_run(host, demo, learnt):
    def ranged(conditioning, start, end):
        return host.run("ConditioningSetTimestepRange", conditioning=conditioning, start=start, end=end)[0]

    positive, = host.run("ConditioningCombine", conditioning_1=ranged(demo.positive, 0.0, 0.4),
                         conditioning_2=ranged(demo.negative, 0.4, 1.0))  # fmt: skip
    teaches_nothing(host, demo, learnt, "changed in mid-run", positive=positive)


def broken(case, first, last, value):
    """The model of `case` with an output of `value` from the evaluation `first` to `last`, of one run."""
    made = []

    def spoil(apply, inputs):
        made.append(1)
        out = apply(inputs["input"], inputs["timestep"], **inputs["c"])
        return torch.full_like(out, value) if first <= len(made) <= last else out

    model = case.model.clone()
    model.set_model_unet_function_wrapper(spoil)
    return model


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("first", [1, 9, STEPS])
def test_runs_that_are_not_finite(host, demo, learnt, value, first):
    auto = Auto(host, broken(demo, first, STEPS, value))
    samples, made = run(host, demo, auto)
    assert not samples.isfinite().all() and made == STEPS
    assert "not finite" in auto.report.reason and not lessons(learnt)
    run(host, demo, auto)
    assert "learnt from this run" in auto.report.reason and len(lessons(learnt)) == 1


def test_nan_that_a_sampler_heals_costs_no_picture(host, demo, learnt, caplog):
    """Whatever goes wrong while learning is told, and the samples are there."""
    import comfy.samplers

    def healing(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i in range(len(sigmas) - 1):
            denoised = model(x, sigmas[i] * x.new_ones([len(x)]), **extra_args)
            x = x + ((x - denoised) / sigmas[i]).nan_to_num(0.0) * (sigmas[i + 1] - sigmas[i])
        return x

    def sample(model):
        sigmas, = host.run("BasicScheduler", model=model, scheduler="simple", steps=STEPS, denoise=1.0)
        return host.run("SamplerCustom", model=model, add_noise=True, noise_seed=3, cfg=1.0, positive=demo.positive,
                        negative=demo.negative, sampler=comfy.samplers.KSAMPLER(healing), sigmas=sigmas,
                        latent_image=demo.latent)[0]["samples"]  # fmt: skip

    auto = Auto(host, broken(demo, 9, 9, float("nan")))
    with caplog.at_level(logging.WARNING):
        samples = sample(auto.model)
    assert torch.equal(samples, sample(broken(demo, 9, 9, float("nan")))) and samples.isfinite().all()
    assert "nothing was learnt" in auto.report.reason and not lessons(learnt)
    sample(auto.model)
    assert "learnt from this run" in auto.report.reason


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [1, 9, STEPS, STEPS + 1, STEPS + 3])
@pytest.mark.parametrize("ending", ["cancel", "error"])
def test_runs_that_are_ended(host, demo, learnt, at, ending):
    """Cancelling ends the run, in a rehearsal too; an error in a rehearsal leaves the picture, which is made by then."""
    import comfy.model_management as management

    count = []

    def act(apply, inputs):
        count.append(1)
        if len(count) == at and ending == "cancel":
            management.interrupt_current_processing(True)
        if len(count) == at and ending == "error":
            raise Stop
        return apply(inputs["input"], inputs["timestep"], **inputs["c"])

    model = demo.model.clone()
    model.set_model_unet_function_wrapper(act)
    auto = Auto(host, model)
    if ending == "error" and at > STEPS:
        assert torch.equal(run(host, demo, auto)[0], ksampler(host, demo, steps=STEPS))
        assert auto.report.reason == "nothing was learnt: Stop, see the log"
    else:
        with pytest.raises(Stop if ending == "error" else management.InterruptProcessingException):
            run(host, demo, auto)
        assert not auto.reports
    assert not lessons(learnt)
    samples, _ = run(host, demo, auto)
    assert torch.equal(samples, ksampler(host, demo, steps=STEPS))
    assert "learnt from this run" in auto.report.reason and len(lessons(learnt)) == 1


def test_a_latent_that_grows_in_mid_run(host, demo_small, learnt):
    auto = Auto(host, demo_small.model)
    sigmas, = host.run("BasicScheduler", model=auto.model, scheduler="simple", steps=12, denoise=1.0)
    out, *_ = host.run("SamplerCustom", model=auto.model, add_noise=True, noise_seed=3, cfg=4.0, positive=demo_small.positive,
                       negative=demo_small.negative, sampler=growing_sampler(), sigmas=sigmas,
                       latent_image=demo_small.latent)  # fmt: skip
    assert out["samples"].shape[-1] == 16 and "changed in mid-run" in auto.report.reason and not lessons(learnt)


@pytest.mark.parametrize("sigmas", [(1.0, 0.5, 0.8, 0.3, 0.0), (1.0, 0.5, 0.5, 0.3, 0.0), (0.5,), ()])
def test_noise_levels_of_no_use(host, demo_small, learnt, sigmas):
    auto = Auto(host, demo_small.model)
    sampler, = host.run("KSamplerSelect", sampler_name="euler")

    def custom(model):
        return host.run("SamplerCustom", model=model, add_noise=True, noise_seed=3, cfg=4.0, positive=demo_small.positive,
                        negative=demo_small.negative, sampler=sampler, sigmas=torch.tensor(sigmas),
                        latent_image=demo_small.latent)[0]["samples"]  # fmt: skip

    def outcome(model):
        try:
            return custom(model)
        except (IndexError, RuntimeError) as error:
            return type(error)

    ours, core = outcome(auto.model), outcome(demo_small.model)
    assert torch.equal(ours, core) if torch.is_tensor(core) else ours == core
    assert not lessons(learnt)
    assert not auto.reports or auto.report.reason
