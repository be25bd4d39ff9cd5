"""The trained demo model: deterministic, guided, and true to the caption."""

import numpy as np
import pytest
import torch

from otcache_core.demo import conditioning
from otcache_core.demo.generator import DemoGenerator, cases
from otcache_core.demo.scenes import SLOTS, Scene, draw


@pytest.fixture(scope="module")
def generator():
    return DemoGenerator()


def test_cases_are_fixed_and_disjoint():
    few, many, other = cases(3, 1000), cases(50, 1000), cases(50, 2000)
    assert many[:3] == few
    assert not {c.seed for c in many} & {c.seed for c in other}
    assert not {c.scene for c in many} & {c.scene for c in other}


def test_sigmas(generator):
    assert np.allclose(generator.sigmas(4), [1, 0.75, 0.5, 0.25, 0])
    assert np.allclose(generator.sigmas(2, shift=3), [1, 0.75, 0])
    assert generator.sigmas().shape == (51,)
    with pytest.raises(ValueError):
        generator.sigmas(0)


def test_velocity_of_a_case_ignores_its_batch(generator):
    batch = cases(3, 5)
    x = torch.stack([generator.noise(c) for c in batch])
    together = generator.velocity(x, 0.6, batch)
    alone = torch.cat([generator.velocity(x[i : i + 1], 0.6, batch[i : i + 1]) for i in range(3)])
    assert (together - alone).abs().max() < 1e-4 * together.abs().max()
    together.mul_(2.0)  # an ordinary tensor, not one of inference mode
    with pytest.raises(ValueError, match="3 cases"):
        generator.velocity(x[:2], 0.6, batch)


def test_guidance_is_linear_and_one_skips_the_null_branch(generator):
    plain, strong = DemoGenerator(cfg=1.0), DemoGenerator(cfg=3.0)
    case = cases(1, 5)
    x = generator.noise(case[0])[None]
    rows = []
    plain.model.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    cond = plain.velocity(x, 0.8, case)
    with torch.inference_mode():
        null = plain.model(x, torch.tensor([0.8]), *conditioning.encode_null(1))
    assert rows == [1, 1]
    assert torch.allclose(strong.velocity(x, 0.8, case), null + 3 * (cond - null), atol=1e-4)


def test_pictures_follow_their_captions(generator):
    """Among renderings that differ in one slot, the nearest to a sampled picture is the one asked for."""
    asked = cases(8, 2000)
    pictures = generator.decode(generator.sample(asked, generator.sigmas(20)))
    slots = ("sky", "light_position", "ground", "house", "house_position", "shape_colour")
    hits = []
    for case, picture in zip(asked, pictures, strict=True):
        for slot in slots:
            errors = {}
            for value in SLOTS[slot]:
                scene = Scene(**(vars(case.scene) | {slot: value}))
                drawn = draw([scene] * 24, rng=np.random.default_rng(0))
                errors[value] = (drawn - picture).square().mean((1, 2, 3)).min().item()
            hits.append(min(errors, key=errors.get) == getattr(case.scene, slot))
    assert np.mean(hits) >= 0.9
