"""OT Demo Model draws in ComfyUI what the library draws."""

import inspect

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def library(host):
    return host.module("otcache_core.demo.generator")


def sample(host, demo, **inputs):
    common = {"model": demo.model, "positive": demo.positive, "negative": demo.negative, "latent_image": demo.latent,
              "steps": 50, "cfg": 7.5, "sampler_name": "euler", "scheduler": "simple", "seed": 7}  # fmt: skip
    return host.run("KSampler", **common | inputs)[0]["samples"]


@pytest.mark.parametrize("steps", [1, 4, 8, 10, 20, 25, 40, 50])
def test_simple_scheduler_is_the_librarys_grid(host, demo, library, steps):
    sigmas, = host.run("BasicScheduler", model=demo.model, scheduler="simple", steps=steps, denoise=1.0)
    assert np.abs(sigmas.double().numpy() - library.DemoGenerator().sigmas(steps)).max() < 1e-7


@pytest.mark.parametrize("cfg", [1.0, 7.5])
def test_euler_gives_the_librarys_picture(host, demo, library, cfg):
    scene = host.module("otcache_core.demo.scenes").Scene()
    generator = library.DemoGenerator(cfg=cfg)
    expected = generator.sample([library.DemoCase(7, scene)])
    samples = sample(host, demo, cfg=cfg)
    assert (samples - expected).abs().max() < 2e-3
    images, = host.run("VAEDecode", vae=demo.vae, samples={"samples": samples})
    assert images.shape == (1, 64, 64, 3)
    assert (images - generator.decode(expected).movedim(1, -1)).abs().max() < 2e-3
    assert images.std() > 0.1


def test_random_scenes_are_the_librarys_cases(host, demo, library):
    model, positive, negative, vae, latent = host.run("OTDemoModel", random_scenes=3, batch_size=2)
    assert latent["samples"].shape == (2, 16, 16, 16)
    samples, = host.run("KSampler", model=model, positive=positive, negative=negative, latent_image=latent, steps=10, cfg=4.0,
                        sampler_name="euler", scheduler="simple", seed=5)
    generator = library.DemoGenerator(cfg=4.0, steps=10)
    cases = library.cases(2, 3)
    x = torch.randn(2, 16, 16, 16, generator=torch.Generator().manual_seed(5))
    sigmas = generator.sigmas()
    for now, then in zip(sigmas[:-1], sigmas[1:], strict=True):
        x = x + float(then - now) * generator.velocity(x, float(now), cases)
    assert (samples["samples"] - x).abs().max() < 2e-3


def test_attributes_change_the_picture(host, demo):
    _, night, *_ = host.run("OTDemoModel", sky="night")
    assert (sample(host, demo, steps=6) - sample(host, demo, steps=6, positive=night)).abs().mean() > 0.05


def test_vae_encodes_what_it_decodes(host, demo):
    latents = torch.randn(2, 16, 4, 6) * 0.1
    images, = host.run("VAEDecode", vae=demo.vae, samples={"samples": latents})
    again, = host.run("VAEEncode", vae=demo.vae, pixels=images)
    assert (again["samples"] - latents).abs().max() < 1e-4
    odd, = host.run("VAEEncode", vae=demo.vae, pixels=torch.rand(1, 67, 66, 4))
    assert odd["samples"].shape == (1, 16, 16, 16)
    tiled, = host.run("VAEDecodeTiled", vae=demo.vae, samples={"samples": latents})
    assert torch.equal(tiled, images)
    masked, = host.run("VAEEncodeForInpaint", vae=demo.vae, pixels=torch.rand(1, 64, 64, 3), mask=torch.ones(1, 64, 64))
    assert masked["samples"].shape == (1, 16, 16, 16)


def test_vae_names_what_it_cannot_take(host, demo):
    with pytest.raises(ValueError, match="demo VAE cannot decode latents of shape"):
        host.run("VAEDecode", vae=demo.vae, samples={"samples": torch.zeros(1, 4, 8, 8)})
    with pytest.raises(ValueError, match="too small"):
        host.run("VAEEncode", vae=demo.vae, pixels=torch.rand(1, 3, 64, 3))


def test_core_empty_latent_and_image_to_image(host, demo):
    latent, = host.run("EmptyLatentImage", width=64, height=64, batch_size=1)
    if "downscale_ratio_spacial" not in latent:  # before 0.25 the node knows latents of an eighth of the side only
        latent = {"samples": torch.zeros(1, 4, 16, 16)}
    assert torch.equal(sample(host, demo, latent_image=latent, steps=4), sample(host, demo, steps=4))
    start, = host.run("VAEEncode", vae=demo.vae, pixels=torch.full((1, 64, 64, 3), 0.5))
    half = sample(host, demo, latent_image=start, steps=4, denoise=0.5)
    assert half.isfinite().all() and not torch.equal(half, sample(host, demo, steps=4))


def test_weights_load_once_and_clones_are_independent(host, demo):
    first, second = host.run("OTDemoModel")[0], host.run("OTDemoModel")[0]
    assert first is not second and first.model is second.model
    first.model_options["transformer_options"]["mark"] = 1
    assert "mark" not in host.run("OTDemoModel")[0].model_options["transformer_options"]


def test_patcher_can_be_built_anew(demo):
    if "disable_dynamic" not in inspect.signature(demo.model.clone).parameters:
        pytest.skip("this ComfyUI (before 0.25) never builds a model anew")
    rebuilt = demo.model.clone(disable_dynamic=True)
    weights, again = demo.model.model.state_dict(), rebuilt.model.state_dict()
    assert weights.keys() == again.keys() and all(torch.equal(weights[key], again[key]) for key in weights)
    factory, arguments = demo.model.cached_patcher_init[:2]
    other = factory(*arguments, disable_dynamic=True).model.state_dict()
    assert all(torch.equal(weights[key], other[key]) for key in weights)


def test_previews_are_near_the_picture(host, demo):
    import latent_preview

    images = torch.rand(1, 16, 16, 3).repeat_interleave(4, 1).repeat_interleave(4, 2) * 0.6 + 0.2
    latents, = host.run("VAEEncode", vae=demo.vae, pixels=images)
    form = demo.model.get_model_object("latent_format")
    previewer = latent_preview.Latent2RGBPreviewer(form.latent_rgb_factors, form.latent_rgb_factors_bias)
    preview = np.asarray(previewer.decode_latent_to_preview(latents["samples"])) / 255
    assert np.abs(preview - images[0, ::4, ::4].numpy()).max() < 0.05
