"""What reuse is for: with the embedded model, pictures near the full run's at a fraction of its evaluations."""

import pytest
import torch
from sampling import Cached, forwards, ksampler, make_schedule


def psnr(a, b):
    return float(-10 * torch.log10((a - b).square().mean()))


@pytest.fixture(scope="module")
def full(host, demo):
    return ksampler(host, demo, steps=50, cfg=7.5)


def picture(host, demo, samples):
    return host.run("VAEDecode", samples={"samples": samples}, vae=demo.vae)[0]


def test_both_levels_come_near_the_full_run(host, demo, full):
    wanted = picture(host, demo, full)
    quality = {}
    for level in ("output", "blocks"):
        for budget in (10, 15):
            cached = Cached(host, demo.model, make_schedule(host, 50, budget), level)
            made = ksampler(host, demo, cached.model, steps=50, cfg=7.5)
            assert cached.reports[0].evaluations == budget
            quality[level, budget] = psnr(picture(host, demo, made), wanted)
    # Measured: 27 and 36 dB at both levels, on average over four seeds.
    assert quality["blocks", 10] > 24 and min(quality["output", 15], quality["blocks", 15]) > 29
    assert all(quality[level, 15] > quality[level, 10] for level in ("output", "blocks"))


def test_the_measured_speedup_is_the_clocks(host, demo, monkeypatch):
    """Against both runs, by a clock that only the model moves on; it takes longer in its first pass, as when it warms up."""
    now = 0.0

    def work(count):
        nonlocal now
        now += 0.5 if count == 1 else 0.05

    monkeypatch.setattr(host.module("nodes.host.run"), "perf_counter", lambda: now)
    cached = Cached(host, demo.model, make_schedule(host, 12, 4))
    seconds = []
    for model in (demo.model, cached.model):
        start = now
        with forwards(demo.model, work):
            ksampler(host, demo, model)
        seconds.append(now - start)
    assert cached.reports[0].measured_speedup == pytest.approx(seconds[0] / seconds[1])
    assert 1.5 < seconds[0] / seconds[1] < 3
