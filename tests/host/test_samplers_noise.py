"""Samplers that add noise, and what every sampler is asked before a run, in the real ComfyUI."""

import pytest
import torch
from sampling import Cached, forwards, ksampler, make_schedule

NOISY = ("euler_ancestral", "dpmpp_2m_sde", "dpmpp_sde", "er_sde", "lcm", "dpmpp_2s_ancestral", "seeds_2", "sa_solver")
STEPS = 20


def high_band(samples):
    """Mean energy of what 4 x 4 block means leave, [b]."""
    low = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(samples, 4), scale_factor=4, mode="nearest")
    return (samples - low).square().flatten(1).mean(1)


def custom_run(host, case, model, sampler, steps=STEPS):
    """Samples of SamplerCustom with a SAMPLER of its own."""
    sigmas, = host.run("BasicScheduler", model=case.model, scheduler="simple", steps=steps, denoise=1.0)
    return host.run("SamplerCustom", model=model, add_noise=True, noise_seed=3, cfg=4.0, positive=case.positive,
                    negative=case.negative, sampler=sampler, sigmas=sigmas, latent_image=case.latent)[0]["samples"]  # fmt: skip


def own_sampler(sample):
    import comfy.samplers

    return comfy.samplers.KSAMPLER(sample)


def noising(amount):
    """A SAMPLER of nobody's that adds noise at every step, as if sigma had gone down farther."""

    def unheard_of(model, x, sigmas, extra_args=None, callback=None, disable=None):
        random = torch.Generator().manual_seed(5)
        for now, then in zip(sigmas[:-1], sigmas[1:], strict=True):
            denoised = model(x, now * x.new_ones([len(x)]), **extra_args)
            down = then * (1 - amount)
            keep = (1 - then) / (1 - down) if then < 1 else 1.0  # of a flow's picture, as core's ancestral samplers do
            x = denoised + (x - denoised) * down / now
            again = (then**2 - (down * keep) ** 2).clamp(min=0).sqrt()
            x = x * keep + torch.randn(x.shape, generator=random) * again
        return x

    return unheard_of


@pytest.mark.parametrize("sampler", NOISY)
def test_skipped_steps_leave_no_noise_in_the_picture(host, demo, sampler):
    """As much fine detail as the full run has; noise that stays is many times that. Seen before: 1.3 to 60 times."""
    cached = Cached(host, demo.model, make_schedule(host, STEPS, 8, "linear"))
    full = ksampler(host, demo, steps=STEPS, sampler_name=sampler)
    ours = ksampler(host, demo, cached.model, steps=STEPS, sampler_name=sampler)
    assert "adds noise" in cached.reports[0].note and not cached.reports[0].reason
    assert high_band(ours).mean() == pytest.approx(float(high_band(full).mean()), rel=0.1)


@pytest.mark.parametrize("amount", [0.3, 1.0])
def test_a_sampler_of_its_own_kind_that_adds_noise(host, demo, amount):
    cached = Cached(host, demo.model, make_schedule(host, STEPS, 8, "linear"))
    sampler = own_sampler(noising(amount))
    full, ours = custom_run(host, demo, demo.model, sampler), custom_run(host, demo, cached.model, sampler)
    assert "adds noise" in cached.reports[0].note and cached.reports[0].evaluations == 8
    assert high_band(ours).mean() == pytest.approx(float(high_band(full).mean()), rel=0.1)


@pytest.mark.parametrize(("noise", "kind"), [(0.0, "hold"), (0.5, "linear")])
def test_what_is_held_is_the_newest_of_a_steps_evaluations(host, demo, noise, kind):
    """Where it goes on by the one in its middle, as dpm_2 and seeds_2 do: the first of a step was held, up to 15 dB worse."""
    given = []

    def midpoint(model, x, sigmas, extra_args=None, callback=None, disable=None):
        random = torch.Generator().manual_seed(5)

        def denoised(x, sigma):
            given.append((float(sigma), x.clone(), model(x, sigma * x.new_ones([len(x)]), **extra_args)))
            return given[-1][2]

        for now, then in zip(sigmas[:-1], sigmas[1:], strict=True):
            d = (x - denoised(x, now)) / now
            if then > 0:
                middle = (now + then) / 2
                between = x + d * (middle - now)
                d = (between - denoised(between, middle)) / middle
            x = x + d * (then - now) + noise * then * torch.randn(x.shape, generator=random)
        return x

    cached = Cached(host, demo.model, make_schedule(host, STEPS, 8, kind))
    custom_run(host, demo, cached.model, own_sampler(midpoint))
    report = cached.reports[0]
    assert not report.reason and report.evaluations == 16 and ("adds noise" in report.note) == (noise > 0)
    given[:] = given[-report.asked :]  # before them it was asked what it does
    skipped = [number for number, computed in enumerate(report.computed) if not computed]
    for number in skipped:
        newest = max(before for before in range(number) if report.computed[before])
        sigma, x, denoised = given[newest]
        then, latent, held = given[number]
        assert torch.allclose(held, denoised if noise else latent - then * (x - denoised) / sigma, atol=1e-5)
        assert newest % 2 == 1  # the one in the middle


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "uni_pc", "euler_ancestral", "lcm", "dpmpp_2m_sde", "sa_solver"])
def test_asking_a_sampler_changes_no_bit(host, demo, sampler):
    """Neither the run's own noise nor what is drawn after it, nor what the model is asked."""
    cached = Cached(host, demo.model, make_schedule(host, STEPS, STEPS - 1, "hold"))
    torch.manual_seed(11)
    core, after = ksampler(host, demo, steps=STEPS, sampler_name=sampler), torch.rand(3)
    full = Cached(host, demo.model, make_schedule(host, STEPS, STEPS, "hold"))
    torch.manual_seed(11)
    assert torch.equal(core, ksampler(host, demo, full.model, steps=STEPS, sampler_name=sampler))
    assert torch.equal(after, torch.rand(3))
    torch.manual_seed(11)
    with forwards(demo.model) as made:
        ksampler(host, demo, cached.model, steps=STEPS, sampler_name=sampler)
    assert torch.equal(after, torch.rand(3)) and len(made) == cached.reports[0].evaluations


def test_a_sampler_that_cannot_be_asked_holds_denoised_latents(host, demo):
    asked = []

    def particular(model, x, sigmas, extra_args=None, callback=None, disable=None):
        asked.append(x.shape)
        if x.shape[-1] < 16:
            raise ValueError("too small for me")
        for now, then in zip(sigmas[:-1], sigmas[1:], strict=True):
            denoised = model(x, now * x.new_ones([len(x)]), **extra_args)
            x = denoised + (x - denoised) * then / now
        return x

    cached = Cached(host, demo.model, make_schedule(host, STEPS, 8, "linear"))
    ours = custom_run(host, demo, cached.model, own_sampler(particular))
    assert ours.isfinite().all() and len(asked) == 2 and cached.reports[0].evaluations == 8
    assert "denoised latent" in cached.reports[0].note


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "gradient_estimation", "res_multistep"])
def test_weights_of_another_sampler_are_not_followed(host, demo, learnt, sampler):
    schedule = make_schedule(host, STEPS, 8, "fitted")
    fitted = Cached(host, demo.model, schedule)
    held = Cached(host, demo.model, schedule.replace(predictor={"kind": "hold"}, weights=None))
    ours, other = (ksampler(host, demo, c.model, steps=STEPS, sampler_name=sampler) for c in (fitted, held))
    assert torch.equal(ours, other)
    assert "fitted to euler" in fitted.reports[0].warning and not held.reports[0].warning
    followed = Cached(host, demo.model, schedule)
    ksampler(host, demo, followed.model, steps=STEPS, sampler_name="ddim")  # Euler by another name
    assert not followed.reports[0].warning


def test_blocks_are_not_reused_where_noise_is_added(host, demo):
    schedule = make_schedule(host, STEPS, 8, "hold")
    blocks, output = Cached(host, demo.model, schedule, "blocks"), Cached(host, demo.model, schedule)
    ours, other = (ksampler(host, demo, c.model, steps=STEPS, sampler_name="er_sde") for c in (blocks, output))
    assert torch.equal(ours, other)
    assert "adds noise" in blocks.reports[0].level_reason and blocks.reports[0].level == "output"


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "euler_ancestral"])
def test_slices_that_end_in_mid_run_are_told_apart_too(host, demo, sampler):
    """A slice that ends in mid-run is handed over rescaled, which is no added noise."""
    cached = Cached(host, demo.model, make_schedule(host, STEPS, 8, "hold"))
    part = {"start_at_step": 0, "end_at_step": 12, "add_noise": "enable", "return_with_leftover_noise": "enable"}
    ksampler(host, demo, cached.model, node="KSamplerAdvanced", steps=STEPS, sampler_name=sampler, **part)
    report, = cached.reports
    assert ("adds noise" in report.note) == (sampler == "euler_ancestral") and not report.reason and report.evaluations < 12
