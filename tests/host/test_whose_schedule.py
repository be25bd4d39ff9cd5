"""A schedule of another model is followed with a warning on the node; one that saves little of a run says how to save more."""

import pytest
import torch
from sampling import Cached, ksampler


@pytest.fixture
def strip_of(host, demo_small, learnt):
    """strip_of(schedule, model=None, **how) -> what the strip shows of a run, by default of the small FLUX-style network."""
    draw = host.module("otcache_core.drawing.strip").run_strip

    def run(schedule, model=None, **how):
        cached = Cached(host, model or demo_small.model, schedule)
        ksampler(host, demo_small, cached.model, **how)
        return draw(cached.reports[0]) | {"text": cached.reports[0].text}

    return run


def test_a_preset_of_another_model(host, strip_of):
    for name, warned in (("meancache-qwen-image-10", True), ("lemica-flux1-dev-10", False)):
        schedule, = host.run("OTLoadSchedule", schedule=name)
        found = strip_of(schedule, steps=50)
        assert ("made on Qwen-Image, but this model is Flux" in found["warning"]) == warned == bool(found["warning"])
        assert found["evaluations"] == 10 and found["warning"] in found["text"]


def test_it_is_told_after_the_model_was_learnt_too(host, demo, learnt):
    """Its weights are this model's then, but its steps are still another's."""
    schedule, = host.run("OTLoadSchedule", schedule="meancache-qwen-image-10")
    auto, = host.run("OTAutoCache", model=demo.model)
    ksampler(host, demo, auto, steps=50)
    cached = Cached(host, demo.model, schedule)
    ksampler(host, demo, cached.model, steps=50)
    report = cached.reports[0]
    assert "learnt" in report.note and "made on Qwen-Image, but this model is Flux" in report.warning


def calibrated(host, case, **inputs):
    given = {"positive": case.positive, "negative": case.negative, "latent_image": case.latent, "steps": 12, "budget": 5,
             "cases": 1}  # fmt: skip
    return host.run("OTReferenceSchedule", model=case.model, **given | inputs)[0]


def test_a_model_that_was_changed_since_its_calibration(host, demo_small, learnt, strip_of):
    schedule = calibrated(host, demo_small)
    assert strip_of(schedule, steps=12)["warning"] == ""
    name = next(name for name in demo_small.model.model.state_dict() if name.endswith("img_in.weight"))
    weight = demo_small.model.model.state_dict()[name]

    lora = demo_small.model.clone()  # as a LoRA patches
    assert lora.add_patches({name: (torch.full_like(weight, 0.01),)})
    assert strip_of(schedule, lora, steps=12)["warning"] == ""

    kept = weight.clone()
    try:
        weight += 0.01  # another checkpoint
        assert "made on another Flux" in strip_of(schedule, steps=12)["warning"]
    finally:
        weight.copy_(kept)
    assert strip_of(schedule, steps=12)["warning"] == ""


def test_a_search_and_what_was_learnt_know_their_model(host, demo, learnt):
    auto, = host.run("OTAutoCache", model=demo.model)
    ksampler(host, demo, auto, steps=20)
    [title] = host.module("nodes.host.learned").titles()
    anchor, = host.run("OTLoadSchedule", schedule=title)
    key = host.module("nodes.host.learned").model_key(demo.model)
    assert {schedule.model_key for schedule in (anchor, *anchor.prepared)} == {key}


def test_a_preset_that_saves_little_says_so(host, strip_of):
    for name, steps, evaluations in (("lemica-flux1-dev-15", 20, 15), ("lemica-flux1-dev-26", 20, 20)):
        schedule, = host.run("OTLoadSchedule", schedule=name)
        found = strip_of(schedule, steps=steps)
        assert found["evaluations"] == evaluations
        assert f"makes its {schedule.budget} evaluations of 50 steps in {steps} steps too" in found["hint"]
        assert found["hint"] in found["text"]
        assert strip_of(schedule, steps=50)["hint"] == ""


def test_a_speedup_chosen_where_it_is_loaded_holds_for_any_steps(host, strip_of):
    schedule, = host.run("OTLoadSchedule", schedule="lemica-flux1-dev-26", speedup=2.5)
    for steps, evaluations in ((20, 8), (50, 20), (100, 40)):
        found = strip_of(schedule, steps=steps)
        assert found["evaluations"] == evaluations and found["hint"] == ""
    assert host.run("OTLoadSchedule", schedule="lemica-flux1-dev-26", speedup=0.3)[0].speedup == 1
    everything, = host.run("OTLoadSchedule", schedule="lemica-flux1-dev-10", speedup=1)
    assert strip_of(everything, steps=20)["evaluations"] == 20
