"""Judging a video: a slice in time, in one decode; latents where there is no VAE; model and VAE seldom change places."""

from types import SimpleNamespace

import pytest
import torch
from matrix_models import MODELS, build
from sampling import forwards

FRAMES = 8


@pytest.fixture
def video(host):
    found = build(MODELS["HunyuanVideo"])
    found.latent = {"samples": torch.zeros(1, 16, FRAMES, 4, 4)}
    return found


class Vae:
    """Shows three channels of each latent frame; notes what it is given, and what `act` does at each decode."""

    def __init__(self, act=lambda: None):
        self.seen, self.act = [], act

    def decode(self, latent):
        self.seen.append(latent.clone())
        self.act()
        small = latent[0, :3].movedim(0, 1).sigmoid()  # frames of [3, h, w]
        return torch.nn.functional.interpolate(small, (64, 64), mode="bilinear").movedim(1, -1)[None]


def reference(host, video, cases=2):
    return host.run("OTReferenceSchedule", model=video.model, positive=video.positive, negative=video.negative,
                    latent_image=video.latent, steps=10, cfg=1.0, cases=cases, budget=5)  # fmt: skip


def search(host, video, vae, tmp_path, **inputs):
    schedule, calibration, _ = reference(host, video)
    inputs = {"vae": vae} | inputs if vae else inputs
    anchor, _, text = host.run("OTAnchorSearch", model=video.model, calibration=calibration, reference=schedule, budget=4,
                               trials=4, storage=str(tmp_path / "a.db"), **inputs)  # fmt: skip
    return SimpleNamespace(anchor=anchor, text=text, calibration=calibration)


@pytest.mark.parametrize(("frames", "chosen"), [(33, [0, 1, 15, 16, 31, 32]), (7, [0, 1, 2, 3, 5, 6]), (6, range(6)), (1, [0])])
def test_beginning_middle_and_end_of_a_long_video_are_decoded(host, frames, chosen):
    glimpses = host.module("nodes.host.calibration").glimpses
    latent = torch.arange(frames).float().view(1, 1, frames, 1, 1).expand(1, 16, frames, 2, 2)
    assert glimpses(latent)[0, 0, :, 0, 0].tolist() == list(chosen)
    picture = torch.zeros(1, 16, 20, 20)
    assert glimpses(picture) is picture


def test_a_slice_is_decoded_at_once_and_every_decode_is_counted(host, video, tmp_path):
    vae = Vae()
    found = search(host, video, vae, tmp_path)
    assert {tuple(latent.shape) for latent in vae.seen} == {(1, 16, 6, 4, 4)}  # whole videos before
    assert f"{len(vae.seen) / 2:.0f} decoded pictures a case" in found.text
    final = found.calibration.observed.trajectories[0].final
    process = video.model.model.process_latent_out
    torch.testing.assert_close(vae.seen[0], process(final[None])[:, :, [0, 1, 3, 4, 6, 7]])


def test_latents_are_judged_without_a_vae(host, video, tmp_path):
    found = search(host, video, None, tmp_path)
    assert found.anchor.metric == "latent rmse" and "judged by latents, nothing decoded" in found.text
    assert found.anchor.prepared[-1].score < found.anchor.prepared[0].score


def test_what_decoding_pushes_out_comes_back_seldom(host, video, tmp_path):
    """The VAE here takes all of the device's memory; the order of decodes and forward passes tells how often."""
    import comfy.model_management

    def turns(act):
        order = []
        vae = Vae(lambda: (order.append("vae"), act()))
        with forwards(video.model, lambda _: order.append("model")):
            found = search(host, video, vae, tmp_path / str(len(act.__name__)), seed=len(act.__name__))
        first = order.index("vae")
        return found, sum(a != b for a, b in zip(order[first:], order[first + 1 :], strict=False)), order.count("vae")

    def stay():
        pass

    def leave_all():
        comfy.model_management.unload_all_models()

    for folder in (stay, leave_all):
        (tmp_path / str(len(folder.__name__))).mkdir()
    (_, often, decodes), (_, seldom, pictures) = turns(stay), turns(leave_all)
    assert decodes > 10 and pictures > 10 and seldom < 0.6 * often
