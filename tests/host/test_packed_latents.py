"""Latents of picture and sound, which ComfyUI hands to samplers packed as one [b, 1, everything]."""

import numpy as np
import pytest
import torch
from learning import STEPS, Auto, distance, lessons, run, teach
from matrix_cells import flat, own_schedule
from matrix_models import MODELS, build
from sampling import Cached, ksampler

NAME = "LTX-2 (video, audio)"


@pytest.fixture
def case(host):
    found = build(MODELS[NAME])
    if found is None:
        pytest.skip("this ComfyUI has no model of video and audio")
    return found


def known_of(host, case):
    """The only statistics of the model."""
    learned = host.module("nodes.host.learned")
    [known] = learned.recall(learned.model_key(case.model))
    return known


def layout_of(host, case, *packed):
    shapes = packed or [part.shape for part in case.latent["samples"].unbind()]
    return host.module("otcache_core.sampling.layout").Layout(shapes)


def test_every_part_has_bands_of_its_own_and_the_next_run_is_cached(host, case, learnt):
    full = ksampler(host, case, steps=STEPS)
    assert torch.equal(flat(teach(host, case)), flat(full))
    known = known_of(host, case)
    assert known.bands == layout_of(host, case).bands == 4  # of the video and of the sound, which has times and frequencies
    assert known.grams.shape == (4, STEPS, STEPS) and all(len(seen.gram) == 4 for seen in known.visits.values())
    assert (np.trace(known.grams, axis1=1, axis2=2) > 0).all()
    auto = Auto(host, case.model, choose="by budget", budget=6)
    samples, made = run(host, case, auto)
    assert made == auto.report.evaluations == 6 and not auto.report.warning
    errors = [distance(*parts) for parts in zip(samples.unbind(), full.unbind(), strict=True)]
    held = Cached(host, case.model, own_schedule(host, case.model, 6, STEPS, kind="hold"))
    theirs = ksampler(host, case, held.model, steps=STEPS)
    assert all(ours < distance(*parts) for ours, parts in zip(errors, zip(theirs.unbind(), full.unbind(), strict=True), strict=True))


def test_each_part_comes_nearer_than_with_weights_of_the_whole(host, case, learnt, monkeypatch):
    """The same steps, with weights fitted to the whole as one."""
    full = ksampler(host, case, steps=STEPS)
    teach(host, case)
    solving, schedules = (host.module(f"otcache_core.{name}") for name in ("calibration.solving", "schedules.schedule"))
    known = known_of(host, case)
    apart = solving.solve([known], known.sigmas, 5)
    whole = host.module("nodes.host.attach")
    layout = host.module("otcache_core.sampling.layout").Layout
    monkeypatch.setattr(whole, "Layout", lambda shapes: layout([(1, 1, sum(np.prod(shape[1:]) for shape in shapes))]))
    host.module("nodes.host.learned").forget(host.module("nodes.host.learned").model_key(case.model))
    teach(host, case)
    one = known_of(host, case)
    assert one.bands == 1
    together = solving.fitted([one], one.sigmas, apart.compute_steps)
    assert together.predictor.bands == 1
    monkeypatch.undo()
    found = {}
    for name, schedule in {"apart": apart, "together": together}.items():
        cached = Cached(host, case.model, schedule)
        samples = ksampler(host, case, cached.model, steps=STEPS)
        assert not cached.reports[-1].warning
        found[name] = [distance(*parts) for parts in zip(samples.unbind(), full.unbind(), strict=True)]
    print(found)
    assert found["apart"][1] < found["together"][1]
