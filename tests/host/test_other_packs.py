"""Packs that sample in their own way beside ours, imitated in a few lines each by their pattern of calls; none is installed.

Those that change what happens within one core sampler are rows of the matrix (matrix_situations.py).
"""

import pytest
import torch
from sampling import Cached, forwards, ksampler, make_schedule, sample_custom


def distance(ours, core) -> float:
    return float((ours - core).norm() / core.norm())


def res_2s(eta):
    """RES4LYF's: a step of two evaluations with noise added to its end, the amount of which is eta's."""
    import comfy.samplers

    def sample_res_2s(model, x, sigmas, extra_args=None, callback=None, disable=None):
        generator = torch.Generator().manual_seed(11)
        for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
            down = following * (1 - eta * (1 - following / sigma))
            level = x.new_ones([len(x)])
            d = (x - model(x, sigma * level, **extra_args)) / sigma
            half = (sigma * down).sqrt() if down > 0 else sigma / 2
            middle = x + d * (half - sigma)
            d = (middle - model(middle, half * level, **extra_args)) / half
            x = x + d * (down - sigma)
            if eta and following > 0:
                kept = (1 - following) / (1 - down)
                noise = torch.randn(x.shape, generator=generator)
                x = kept * x + (following**2 - (kept * down) ** 2).clamp(min=0).sqrt() * noise
        return x

    return comfy.samplers.KSAMPLER(sample_res_2s)


@pytest.mark.parametrize("level", ["output", "blocks"])
@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_steps_of_two_evaluations_with_noise(host, demo_small, eta, level):
    """RES4LYF. With noise added, the denoised latent is held, and blocks give way to that."""
    core = sample_custom(host, demo_small, demo_small.model, res_2s(eta), steps=24)
    cached = Cached(host, demo_small.model, make_schedule(host, 24, 8), level)
    ours = sample_custom(host, demo_small, cached.model, res_2s(eta), steps=24)
    fewer = sample_custom(host, demo_small, demo_small.model, res_2s(eta), steps=8)
    report, = cached.reports
    assert not report.reason and report.evaluations <= 16 and report.asked == 48, report.text
    assert ("hold the denoised latent" in report.note) == bool(eta)
    assert report.level == ("output" if eta else level)
    assert ours.isfinite().all() and distance(ours, core) < max(distance(fewer, core), 0.5)


@pytest.mark.parametrize("level", ["output", "blocks"])
def test_a_large_picture_in_many_runs_of_one_model(host, demo_small, level):
    """Ultimate SD Upscale: one run of img2img for each tile of a picture, all with the same model and its schedule."""
    picture = torch.randn(1, 16, 8, 24, generator=torch.Generator().manual_seed(2))

    def upscaled(model):
        made = picture.clone()
        for left in (0, 8, 16):
            tile = {"samples": made[..., left : left + 8]}
            made[..., left : left + 8] = ksampler(host, demo_small, model, latent_image=tile, denoise=0.5, seed=left)
        return made

    core = upscaled(demo_small.model)
    cached = Cached(host, demo_small.model, make_schedule(host, 24, 8), level)
    with forwards(demo_small.model) as passes:
        ours = upscaled(cached.model)
    assert len(cached.reports) == 3 and len({report.evaluations for report in cached.reports}) == 1
    assert all(report.level == level and report.evaluations < report.steps == 12 for report in cached.reports)
    if level == "output":
        assert len(passes) == sum(report.evaluations for report in cached.reports)
    alone = ksampler(host, demo_small, cached.model, latent_image={"samples": picture[..., :8]}, denoise=0.5, seed=0)
    torch.testing.assert_close(ours[..., :8], alone, rtol=0, atol=0)  # no run knows of another
    assert 0 < distance(ours, core) < 0.5
