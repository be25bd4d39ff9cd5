"""What the proof's models learn from, what it measures, and what its tables say."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.trained import drawings
from benchmarks.trained.training import noisy_unet, noisy_video
from otcache_core.calibration import metrics
from otcache_core.demo.scenes import draw

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # as where its programs are started

from proof_grids import PUBLISHED, lists  # noqa: E402
from proof_metrics import METRICS, Row, flicker, measured, with_lpips  # noqa: E402
from proof_peers import Peers  # noqa: E402
from proof_tables import (  # noqa: E402
    first,
    merged,
    of_setting,
    read_csv,
    record_of,
    standing,
    summary,
    table,
    write_csv,
    write_picture,
)


def latents(n=3):
    return torch.randn(n, 4, 2, 2, generator=torch.Generator().manual_seed(1))


def test_the_unet_learns_the_noise_that_comfyui_adds_and_scales():
    sigmas = torch.linspace(0.1, 10, 1000)
    model = SimpleNamespace(model_sampling=SimpleNamespace(sigmas=sigmas))
    given, time, wanted = noisy_unet(model, latents(), noise := latents() * 2, torch.Generator().manual_seed(0))
    sigma = sigmas[time.long()].view(-1, 1, 1, 1)
    assert torch.equal(wanted, noise)
    assert torch.allclose(given * (1 + sigma**2).sqrt() - sigma * wanted, latents(), atol=1e-5)


def test_the_video_model_learns_a_flow_whose_time_is_a_thousand_sigmas():
    given, time, wanted = noisy_video(None, latents(), latents() * 2, torch.Generator().manual_seed(0))
    assert torch.allclose(given - (time / 1000).view(-1, 1, 1, 1) * wanted, latents(), atol=1e-5)


def test_clips_drift_to_the_side_that_their_prompt_names():
    rng = np.random.default_rng(3)
    scenes, drifts = drawings.sample_scenes(4, rng)
    made = drawings.clips(scenes, drifts, 5, 32, rng)
    assert made.shape == (4, 16, 5, 8, 8)
    assert drawings.tokens(scenes, drifts).shape == (4, 12, 64) and drawings.tokens(scenes).shape == (4, 11, 64)
    there, back = (drawings.clips(scenes[:1], np.array([side]), 5, 32, np.random.default_rng(0)) for side in (1.0, -1.0))
    assert torch.allclose(there.flip(2), back, atol=1e-5) and not torch.allclose(there, back, atol=1e-2)


def test_stills_are_the_autoencoders_latents_of_drawings():
    scenes, _ = drawings.sample_scenes(2, np.random.default_rng(0))
    made = drawings.stills(scenes, 32, np.random.default_rng(5))
    assert torch.allclose(made, drawings.autoencoder().encode(draw(scenes, 32, np.random.default_rng(5))))


def test_flicker_is_what_frames_do_that_the_full_runs_do_not():
    still = torch.zeros(1, 3, 16, 16, 3)
    blinking = still.clone()
    blinking[:, 1] = 0.5
    assert flicker(blinking, still) == pytest.approx([0.5]) and flicker(still + 0.3, still) == pytest.approx([0])


def test_a_clips_psnr_is_of_its_whole_error_and_pictures_have_no_flicker():
    clips = torch.full((2, 2, 16, 16, 3), 0.5)
    off = clips.clone()
    off[0, 0] += 0.2
    found = measured(metrics, off, clips)
    assert set(found) == set(METRICS) and all(len(values) == 2 for values in found.values())
    assert found["psnr"][0] == pytest.approx(-10 * np.log10(0.2**2 / 2), abs=1e-4) and found["psnr"][1] == 120
    pictures = measured(metrics, off[:, 0], clips[:, 0])
    assert pictures["rmse"][0] == pytest.approx(0.2, abs=1e-6) and np.isnan(pictures["flicker"]).all()


def rows(psnrs: dict[str, list[float]], budget: int, evaluations: int = 0) -> list[dict]:
    """Records of methods, each of the family that its name begins with."""
    found = []
    for name, values in psnrs.items():
        psnr = np.array(values)
        numbers = {metric: 10 ** (-psnr / 20) for metric in METRICS} | {"psnr": psnr}
        found.append(record_of(Row("flux, normal", name, name.split()[0], budget, evaluations or budget, 1.0, numbers)))
    return found


def test_tables_say_who_is_first_and_who_made_more_evaluations(tmp_path):
    records = rows({"ours": [30, 40], "peer a": [20, 60], "plain b": [33, 33]}, 8) + rows({"core c": [99]}, 8, evaluations=11)
    records += rows({"ours": [41, 41], "plain b": [20, 20]}, 10)
    text = table(records, "flux, normal")
    for line in ("| peer a | 0 | **40.0** | – |", "| ours | 0 | 35.0 | **41.0** |", "| core c | 0 | 99.0, at 11 | – |"):
        assert line in text
    assert summary(records, ["flux, normal"]).splitlines()[2:] == [
        "| flux, normal | ours | 35.0 | 41.0 |", "|  | the best of all others | 40.0 peer a | 20.0 plain b |",
        "|  | euler, so many steps | – | – |",
    ]  # fmt: skip
    assert first(of_setting(records, "flux, normal"), 8, "rmse worst")[0] == "plain b"
    said = standing(records, "flux, normal", "ours").splitlines()
    assert said[0].endswith("-5.00 to peer a (40.00)  NOT FIRST") and "+21.00 to plain b" in said[1]
    assert first(of_setting(records, "flux, normal"), 10, "psnr mean", ["core"])[0] == "none"
    write_csv(tmp_path / "a.csv", records)
    assert [each["psnr worst"] for each in read_csv(tmp_path / "a.csv")] == [each["psnr worst"] for each in records]
    newer = rows({"ours": [50, 50]}, 8)
    assert len(merged(records, newer)) == len(records) and first(of_setting(merged(records, newer), "flux, normal"), 8,
                                                                 "psnr mean") == ("ours", 50)  # fmt: skip
    write_picture(tmp_path / "a.png", records, ["flux, normal"])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_published_lists_are_drawn_where_they_make_about_as_many_evaluations():
    assert dict(lists("flux", 10)).keys() == {"Golden Path's best of all", "LeMiCa's for FLUX"}
    assert {len(steps) for _, steps in lists("flux", 15)} == {13, 15} and not dict(lists("unet", 10))
    assert dict(lists("video", 15)) == {"LeMiCa's for Wan": dict(lists("video", 14))["LeMiCa's for Wan"]}
    for model in PUBLISHED:
        for budget in range(5, 27):
            for _, steps in lists(model, budget):
                assert steps[0] == 0 and list(steps) == sorted(set(steps)) and steps[-1] < 50


def test_what_a_method_asks_of_the_model_beforehand_is_counted(recording):
    def ask(function):
        return function(lambda x, sigma: recording.generator.velocity(x, sigma, [0] * len(x)))

    peers = Peers(recording.trajectories, ask, calls=3, without=("DPCache",))
    found = peers.at(3)
    assert {"LeMiCa", "BudCache", "MeanCache"} <= set(found) and "DPCache" not in found
    assert peers.beforehand("TeaCache") == len(recording.trajectories) and peers.beforehand("Spectrum") == 0
    assert peers.beforehand("BudCache") == pytest.approx(1 + 3 * 3 / recording.steps)
    asked = peers.beforehand("LeMiCa")
    peers.at(4)
    assert asked > 2 and peers.beforehand("LeMiCa") == asked  # its graph serves all budgets, a search its own alone
    assert peers.beforehand("BudCache") == pytest.approx(1 + 3 * 4 / recording.steps)


def test_lpips_is_left_out_where_its_backbone_is_not_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "_network", None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert not with_lpips(metrics, [tmp_path])
    pictures = torch.rand(2, 32, 32, 3)
    assert np.isnan(measured(metrics, pictures, pictures)["lpips"]).all()
