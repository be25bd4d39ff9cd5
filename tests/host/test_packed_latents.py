"""Latents of picture and sound, which ComfyUI hands to samplers packed as one [b, 1, everything]."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from learning import STEPS, Auto, distance, run, teach
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
    held = Cached(host, case.model, own_schedule(host, case.model, 6, STEPS, kind="hold"))
    ours, theirs = errors(samples, full), errors(ksampler(host, case, held.model, steps=STEPS), full)
    assert ours[0] < theirs[0] and ours[1] < theirs[1]


def test_all_steps_computed_change_nothing(host, case, learnt):
    teach(host, case)
    auto = Auto(host, case.model, choose="by budget", budget=STEPS)
    full = ksampler(host, case, steps=STEPS)
    assert torch.equal(flat(run(host, case, auto)[0]), flat(full))
    known = known_of(host, case)
    every = host.module("otcache_core.calibration.solving").solve([known], known.sigmas, STEPS)
    cached = Cached(host, case.model, every)
    assert torch.equal(flat(ksampler(host, case, cached.model, steps=STEPS)), flat(full)) and not cached.reports[-1].warning


def test_runs_add_up_and_pictures_do_not_disturb(host, case, learnt):
    """Statistics of other bands under the same name: neither added nor followed."""
    known = host.module("nodes.host.known")
    learned = host.module("nodes.host.learned")
    teach(host, case)
    one = known_of(host, case)
    key = learned.model_key(case.model)
    plain = dataclasses.replace(one, grams=one.grams[:2], visits={})
    learned.remember(key, plain)
    assert [len(each.grams) for each in sorted(learned.recall(key), key=lambda each: each.bands)] == [2, 4]
    for layout, bands in ((layout_of(host, case), 4), (layout_of(host, case, (1, 4, 8, 8)), 2)):
        assert {each.bands for each in known.fitting(learned.recall(key), one.origin, one.sigmas, layout)} == {bands}
        assert known.of_same_runs(learned.recall(key), one.origin, one.sigmas, layout).bands == bands
    assert not known.fitting([one], one.origin, one.sigmas, layout_of(host, case, (1, 64, 100)))
    learned.remember(key, one)
    assert {each.bands: each.runs for each in learned.recall(key)} == {2: 1, 4: 2}
    learned.remember(key, dataclasses.replace(one, grams=one.grams[:2], visits={}))
    assert sorted(title.endswith("4 bands") for title in learned.titles()) == [False, True]


def test_weights_of_other_bands_are_told_of_and_learnt_ones_take_their_place(host, case, learnt):
    one = own_schedule(host, case.model, 6, STEPS, kind="fitted")
    kind = type(one.predictor)(kind="fitted", bands=2)
    two = one.replace(predictor=kind, weights=tuple((*row, *(5.0 * w for w in row)) for row in one.weights))
    plain, other = (Cached(host, case.model, schedule) for schedule in (one, two))
    ours, again = (flat(ksampler(host, case, each.model, steps=STEPS)) for each in (other, plain))
    assert torch.equal(ours, again) and not plain.reports[-1].warning
    assert "weights for 2 bands, but these latents have 4" in other.reports[-1].warning
    full = teach(host, case)
    nearer = ksampler(host, case, other.model, steps=STEPS)
    assert not other.reports[-1].warning and distance(flat(nearer), flat(full)) < distance(ours, flat(full))


def test_weights_of_picture_and_sound_on_a_picture_are_told_of(host, demo, learnt):
    one = own_schedule(host, demo.model, 6, STEPS, kind="fitted")
    kind = type(one.predictor)(kind="fitted", bands=3)
    three = one.replace(predictor=kind, weights=tuple((*row, *row[::-1], *(5.0 * w for w in row)) for row in one.weights))
    plain, other = (Cached(host, demo.model, schedule) for schedule in (one, three))
    ours, again = (ksampler(host, demo, each.model, steps=STEPS) for each in (other, plain))
    assert torch.equal(ours, again) and "weights for 3 bands, but these latents have 2" in other.reports[-1].warning


class Vae:
    """Shows the first three channels of the video's latent; sound it knows nothing of."""

    def decode(self, latent):
        assert latent.shape == MODELS[NAME].latent
        small = latent[0, :3].movedim(0, 1).sigmoid()  # frames of [3, h, w]
        return torch.nn.functional.interpolate(small, (64, 64), mode="bilinear").movedim(1, -1)[None]


def test_calibration_fits_every_part_and_judges_the_video(host, case, learnt, tmp_path):
    inputs = {"positive": case.positive, "negative": case.negative, "latent_image": case.latent, "steps": 12, "cfg": 4.0}
    reference, calibration, _ = host.run("OTReferenceSchedule", model=case.model, cases=1, budget=5, **inputs)
    assert reference.predictor.bands == 4 and {len(row) % 4 for row in reference.weights} == {0}
    [recorded] = calibration.observed.trajectories
    full = ksampler(host, case, seed=0)
    assert distance(recorded.layout.unpack(recorded.x[-1:])[1], scaled(case, full)[1]) < 1e-4
    anchor, _, text = host.run("OTAnchorSearch", model=case.model, vae=Vae(), calibration=calibration, reference=reference,
                               budget=4, trials=6, storage=str(tmp_path / "a.db"))  # fmt: skip
    assert all(schedule.predictor.bands == 4 for schedule in anchor.prepared) and "Anchor: 4 of 12" in text
    cached = Cached(host, case.model, reference)
    held = Cached(host, case.model, reference.replace(predictor={"kind": "hold"}, weights=None))
    ours, theirs = (errors(ksampler(host, case, each.model, seed=0), full) for each in (cached, held))
    assert cached.reports[-1].evaluations == 5 and ours[0] < theirs[0] and ours[1] < theirs[1]
    assert known_of(host, case).bands == 4


def scaled(case, samples) -> list:
    """The parts of final latents as the model counts them."""
    import comfy.utils

    packed, shapes = comfy.utils.pack_latents(samples.unbind())
    return comfy.utils.unpack_latents(case.model.model.process_latent_in(packed), shapes)


def errors(samples, full) -> list[float]:
    """Relative L2 distance of each part."""
    return [distance(*parts) for parts in zip(samples.unbind(), full.unbind(), strict=True)]


def with_a_clock_of_its_own(host, case):
    """`case` with a model whose sound speeds up and slows down while the picture does not."""
    layout, model = layout_of(host, case), case.model.clone()

    def clocked(apply_model, arguments):
        x, sigma = arguments["input"], arguments["timestep"]
        picture, sound = layout.unpack(apply_model(x, sigma, **arguments["c"]))
        _, there = layout.unpack(x)
        pace = 1 + 0.8 * torch.cos(7 * sigma).view(-1, *[1] * (there.ndim - 1))
        return layout.pack([picture, there - pace * (there - sound)])

    model.set_model_unet_function_wrapper(clocked)
    return SimpleNamespace(**vars(case) | {"model": model})


def test_sound_comes_nearer_than_with_weights_of_the_whole(host, case, learnt, monkeypatch):
    """The same steps, with weights fitted to picture and sound as one."""
    case, learned = with_a_clock_of_its_own(host, case), host.module("nodes.host.learned")
    solving, layout = host.module("otcache_core.calibration.solving"), host.module("otcache_core.sampling.layout").Layout
    full = ksampler(host, case, steps=STEPS)
    teach(host, case)
    known = known_of(host, case)
    learned.forget(learned.model_key(case.model))
    with monkeypatch.context() as patch:
        one = [(1, 1, flat(full).numel())]
        patch.setattr(host.module("nodes.host.attach"), "Layout", lambda shapes: layout(one))
        teach(host, case)
    whole = known_of(host, case)
    assert whole.bands == 1
    gains = []
    for budget in (4, 5, 6):
        apart = solving.solve([known], known.sigmas, budget)
        together = solving.fitted([whole], whole.sigmas, apart.compute_steps)
        learned.forget(learned.model_key(case.model))  # or they would take the place of those of other bands
        sampled = [Cached(host, case.model, schedule) for schedule in (apart, together)]
        (_, ours), (_, theirs) = (errors(ksampler(host, case, each.model, steps=STEPS), full) for each in sampled)
        assert ours < theirs and not any(each.reports[-1].warning for each in sampled)
        gains.append(theirs / ours)
    assert np.mean(gains) > 1.1
