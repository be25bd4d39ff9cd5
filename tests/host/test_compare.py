"""OT Compare against numbers worked out by hand and by the library."""

import sys

import numpy as np
import pytest
import torch


def pictures(n=1, height=64, width=48, seed=0):
    return torch.rand(n, height, width, 3, generator=torch.Generator().manual_seed(seed))


def test_known_numbers(host):
    full = torch.full((1, 64, 64, 3), 0.5)
    text, difference, beside = host.run("OTCompare", cached=full + 0.1, full=full)
    assert "PSNR: 20.00 dB" in text and "RMSE: 0.10000" in text
    assert difference.shape == (1, 64, 64, 3) and beside.shape == (1, 64, 3 * 64 + 16, 3)
    assert torch.equal(beside[:, :, :64], full + 0.1) and torch.equal(beside[:, :, 72:136], full)
    assert torch.equal(beside[:, :, -64:], difference) and difference.dtype == beside.dtype == torch.float32


def test_agrees_with_the_library(host):
    metrics = host.module("otcache_core.calibration.metrics")
    a, b = pictures(3), (pictures(3) + 0.05 * pictures(3, seed=1)).clamp(0, 1)
    text, _, beside = host.run("OTCompare", cached=b, full=a)
    channels = b.movedim(-1, 1), a.movedim(-1, 1)
    for name, form in (("psnr", "{:.2f} dB"), ("rmse", "{:.5f}"), ("ssim", "{:.4f}"), ("ms_ssim", "{:.4f}")):
        values = getattr(metrics, name)(*channels)
        worst = int(values.argmax() if name == "rmse" else values.argmin())
        line = next(line for line in text.splitlines() if line.startswith(name.upper().replace("_", "-") + ":"))
        assert form.format(values.mean()) + " (mean)" in line
        assert form.format(values[worst]) + f" (worst, picture {worst + 1} of 3)" in line
    assert beside.shape[0] == 3


def test_equal_pictures(host):
    image = pictures()
    text, difference, _ = host.run("OTCompare", cached=image, full=image.clone())
    assert text == "equal to the last bit"
    assert difference.max() < 0.02


def test_the_first_line_says_what_the_numbers_mean(host):
    full = torch.full((1, 64, 64, 3), 0.5)
    for error, words in ((0.1, "differs at a glance"), (0.05, "differs in details"), (0.01, "hard to tell apart")):
        assert host.run("OTCompare", cached=full + error, full=full)[0].splitlines()[0] == words
        batch = torch.cat((full, full + error, full))  # the worst counts
        assert host.run("OTCompare", cached=batch, full=full.expand(3, -1, -1, -1))[0].splitlines()[0] == words


def prompt(cached, full, seeds=("noise", "noise")):
    """Two samplers whose pictures are compared by node 9; both from node 1."""
    compared = {"cached": ["20", 0], "full": ["21", 0]}
    nodes = {"1": {"inputs": {"seed": 3}}, "noise": {"inputs": {"value": 5}}, "9": {"inputs": compared}}
    for name, settings, seed in (("20", cached, seeds[0]), ("21", full, seeds[1])):
        seed = [seed, 0] if isinstance(seed, str) else seed
        nodes[name] = {"inputs": {"model": ["1", 0], "noise_seed": seed, "list": [[1], 2]} | settings}
    return nodes


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (prompt({"steps": 20}, {"steps": 20}), ("", "")),
        (prompt({"steps": 20}, {"steps": 20}, ("noise", 5)), ("", "")),
        (prompt({"steps": 20}, {}), ("", "")),
        (prompt({"steps": 20, "cfg": 4.0}, {"steps": 50, "cfg": 4.5}),
         ("", "Made with other settings: cfg 4.0 against 4.5; steps 20 against 50.")),
        (prompt({"steps": 20, "start": 7}, {"steps": 20}, (5, 6)), ("", "")),  # both depend on node 1's seed as well
        ({"1": {"inputs": {"seed": 1}}, "2": {"inputs": {"seed": 2}}, "9": {"inputs": {"cached": ["1", 0], "full": ["2", 0]}}},
         ("Two different pictures, whatever the cache does: seed 1 against 2.", "")),
        ({"1": {"inputs": {"seed": 1}}, "9": {"inputs": {"cached": ["1", 0]}}}, ("", "")),
        ({}, ("", "")),
        (None, ("", "")),
    ],
)  # fmt: skip
def test_other_seeds_and_settings_are_told(host, made, told):
    assert host.module("nodes.made_with").differing(made, "9", "cached", "full") == told


def test_difference_shows_where(host):
    full = pictures()
    cached = full.clone()
    cached[:, 10:20, 30:40] = 1 - cached[:, 10:20, 30:40]
    _, difference, _ = host.run("OTCompare", cached=cached, full=full)
    bright = difference.mean(-1)[0]
    outside = bright.clone()
    outside[10:20, 30:40] = 0
    assert bright[10:20, 30:40].mean() > 0.3 and outside.max() < 0.02
    _, fainter, _ = host.run("OTCompare", cached=full * 0.95, full=full, full_scale=1.0)
    _, stronger, _ = host.run("OTCompare", cached=full * 0.95, full=full, full_scale=0.05)
    assert stronger.mean() > 2 * fainter.mean()


def test_channels(host):
    grey = pictures()[..., :1]
    text, *_ = host.run("OTCompare", cached=grey, full=grey.expand(-1, -1, -1, 3))
    assert "equal to the last bit" in text
    alpha = torch.cat((pictures(), torch.zeros(1, 64, 48, 1)), -1)
    text, *_ = host.run("OTCompare", cached=alpha, full=pictures())
    assert "equal to the last bit" in text


@pytest.mark.parametrize(
    ("cached", "words"),
    [
        (pictures(height=32), "cached is 1 of 48 x 32 and full is 1 of 48 x 64; compare pictures of one size"),
        (pictures(2), "cached is 2 of 48 x 64"),
        (pictures() * float("nan"), "cached holds values that are not numbers"),
        (torch.zeros(0, 64, 48, 3), "cached has the shape"),
        (torch.zeros(64, 48, 3), "cached has the shape"),
        (torch.zeros(1, 64, 48, 2), "cached has the shape"),
    ],
)
def test_bad_input(host, cached, words):
    with pytest.raises(ValueError, match=words):
        host.run("OTCompare", cached=cached, full=pictures())


def test_small_pictures_keep_the_other_metrics(host):
    text, *_ = host.run("OTCompare", cached=pictures(1, 8, 8), full=pictures(1, 8, 8, seed=1))
    assert "SSIM: not measured. Pictures of 8 pixels are too small" in text and "PSNR: " in text


def test_without_lpips(host, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    monkeypatch.setattr(host.module("otcache_core.calibration.metrics"), "_network", None)
    text, *_ = host.run("OTCompare", cached=pictures(), full=pictures() + 1e-4, lpips=True)
    assert "pip install lpips" in text and "PSNR: 80.00 dB" in text and "MS-SSIM: 1.0000" in text


def test_inputs_are_left_alone(host):
    cached, full = pictures(), pictures(seed=2)
    copies = cached.clone(), full.clone()
    _, _, beside = host.run("OTCompare", cached=cached, full=full)
    with torch.inference_mode():
        beside.zero_()
    assert torch.equal(cached, copies[0]) and torch.equal(full, copies[1])


def test_figures_become_images(host):
    charts = host.module("otcache_core.drawing.charts")
    preset = host.module("otcache_core.schedules.presets").preset("lemica-flux1-dev-10")
    image = host.module("nodes.pictures").figure_image(charts.schedule_strips([preset]))
    assert image.ndim == 4 and image.shape[0] == 1 and image.shape[-1] == 3 and image.dtype == torch.float32
    assert 0 <= image.min() < 0.5 < image.max() <= 1
    assert np.isclose(image[0, 0, 0].numpy(), 1).all()
