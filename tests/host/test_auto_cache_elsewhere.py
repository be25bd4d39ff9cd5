"""What OT Auto Cache learnt is used elsewhere: other grids, guidance, lengths, reuse levels, experts, and kinds of models."""

import pytest
import torch
from learning import STEPS, Auto, distance, lessons, run, teach
from sampling import forwards, ksampler

GRIDS = [({"steps": 28}, 9), ({"steps": 12}, 4), ({"scheduler": "beta"}, 6), ({"scheduler": "karras"}, 6),
         ({"denoise": 0.6}, 6),
         ({"cfg": 6.0}, 6), ({"seed": 99}, 6), ({"latent_image": {"samples": torch.zeros(2, 16, 16, 24)}}, 6),
         ({"steps": 251}, 83)]  # fmt: skip


@pytest.mark.parametrize("inputs,evaluations", GRIDS, ids=lambda value: str(value)[:40])
def test_other_grids_are_fast_at_once(host, demo, learnt, inputs, evaluations):
    teach(host, demo)
    auto = Auto(host, demo.model)
    inputs = {"steps": STEPS} | inputs
    samples, made = run(host, demo, auto, **inputs)
    assert made == auto.report.evaluations == evaluations and not auto.report.reason and samples.isfinite().all()
    if inputs["steps"] < 100:
        assert distance(samples, ksampler(host, demo, **inputs)) < 0.25
    assert len(lessons(learnt)) == 1


def test_another_sampler_does_not_take_what_euler_taught(host, demo, learnt):
    teach(host, demo)
    for sampler in ("dpmpp_2m", "euler_ancestral"):
        auto = Auto(host, demo.model)
        samples, _ = run(host, demo, auto, sampler_name=sampler)
        assert torch.equal(samples, ksampler(host, demo, steps=STEPS, sampler_name=sampler))
        assert auto.report.reason.startswith("learnt from this run")
    assert len(lessons(learnt)) == 3


def test_the_nearest_guidance_is_used(host, demo, learnt):
    known_by = host.module("nodes.host.known")
    learned = host.module("nodes.host.learned")
    for cfg in (1.0, 7.5):
        run(host, demo, Auto(host, demo.model, learn="this run too"), cfg=cfg)
    known = learned.recall(learned.model_key(demo.model))
    assert {one.origin.cfg for one in known} == {1.0, 7.5}
    for asked, nearest in ((1.5, 1.0), (6.0, 7.5), (30.0, 7.5), (0.0, 1.0)):
        origin = known[0].origin.model_copy(update={"cfg": asked})
        assert [one.origin.cfg for one in known_by.fitting(known, origin, known[0].sigmas)] == [nearest]
        assert run(host, demo, Auto(host, demo.model), cfg=asked)[1] == 6


@pytest.mark.parametrize("steps,words", [(1, "nothing to skip"), (2, "nothing to skip"), (3, "nothing to skip"), (4, "learnt"),
                                         (251, "too long to learn from")])  # fmt: skip
def test_runs_of_odd_lengths(host, demo_small, learnt, steps, words):
    auto = Auto(host, demo_small.model)
    samples, _ = run(host, demo_small, auto, steps=steps, cfg=1.0)
    assert torch.equal(samples, ksampler(host, demo_small, steps=steps, cfg=1.0))
    assert words in auto.report.reason, auto.report.reason
    assert len(lessons(learnt)) == (words == "learnt")
    again, made = run(host, demo_small, auto, steps=steps, cfg=1.0)
    assert again.isfinite().all() and made == (auto.report.evaluations if words == "learnt" else steps)


def test_transformer_blocks(host, demo, learnt):
    auto = Auto(host, demo.model, level="blocks")
    first, made = run(host, demo, auto)
    assert torch.equal(first, ksampler(host, demo, steps=STEPS)) and made == STEPS + 5
    second, made = run(host, demo, auto)
    assert STEPS < made <= 6 + 3 * (STEPS - 6) and (auto.report.evaluations, auto.report.level) == (6, "blocks")
    by_output, _ = run(host, demo, Auto(host, demo.model))
    assert distance(second, first) < 2**0.5 * distance(by_output, first) < 0.3  # within 3 dB


def test_slices_of_two_experts_each_learn_their_own_part(host, learnt):
    from matrix_models import MODELS, build

    high, low = (build(MODELS["Wan 2.1 t2v"], seed) for seed in (5, 6))
    half = {"steps": STEPS, "node": "KSamplerAdvanced", "cfg": 1.0}

    def sample(first, second):
        latent = ksampler(host, high, first, add_noise="enable", start_at_step=0, end_at_step=8,
                          return_with_leftover_noise="enable", **half)  # fmt: skip
        return latent, ksampler(host, low, second, add_noise="disable", start_at_step=8, end_at_step=10_000,
                                return_with_leftover_noise="disable", latent_image={"samples": latent}, **half)  # fmt: skip

    core = sample(high.model, low.model)
    autos = [Auto(host, case.model) for case in (high, low)]
    assert all(map(torch.equal, core, sample(*(auto.model for auto in autos))))
    assert [auto.report.reason[:20] for auto in autos] == ["learnt from this run"] * 2
    assert [auto.report.steps for auto in autos] == [8, 12]
    assert len(lessons(learnt)) == 2 and len({path.parent for path in lessons(learnt)}) == 2
    with forwards(high.model) as early, forwards(low.model) as late:
        sample(*(auto.model for auto in autos))
    assert (len(early), len(late)) == (3, 4) and [auto.report.evaluations for auto in autos] == [3, 4]


@pytest.mark.parametrize("name", ["Wan 2.1 t2v", "HunyuanVideo", "Qwen-Image", "LTX-2 (video, audio)",
                                  "MiniMax H3 (video, audio)", "SD 1.5"])  # fmt: skip
def test_models_of_every_kind_of_latent(host, learnt, name):
    from matrix_cells import flat
    from matrix_models import MODELS, build

    case = build(MODELS[name])
    if case is None:
        pytest.skip("this ComfyUI has no such model")
    auto = Auto(host, case.model)
    inputs = {"steps": STEPS, "scheduler": "normal" if name == "SD 1.5" else "simple", "cfg": 1.0}
    core = flat(ksampler(host, case, **inputs))
    assert torch.equal(flat(ksampler(host, case, auto.model, **inputs)), core)
    assert "learnt from this run" in auto.report.reason, auto.report.reason
    with forwards(case.model) as made:
        assert flat(ksampler(host, case, auto.model, **inputs)).isfinite().all()
    assert len(made) == auto.report.evaluations == 6
