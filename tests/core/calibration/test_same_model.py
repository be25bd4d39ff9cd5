import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mixture import MixtureGenerator, linear_sigmas

from otcache_core.calibration.same_model import SAMPLES, TOLERANCE, alike, samples, signature
from otcache_core.calibration.scoring import Scorer
from otcache_core.sampling.rollout import record

CASES = [1, 2]


def scorer(generator) -> Scorer:
    return Scorer(generator, CASES, [record(generator, case, linear_sigmas(12)) for case in CASES])


def scaled(factor: float) -> MixtureGenerator:
    generator = MixtureGenerator()
    generator.means *= factor
    return generator


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 8, 8), (16, 1, 64, 64)])
def test_samples_are_elements_spread_over_the_tensor(shape):
    tensor = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)
    found = samples(tensor)
    assert len(found) == SAMPLES and all(value in tensor.flatten() for value in found)
    assert samples(tensor.mT.contiguous().mT if tensor.ndim > 1 else tensor) == found  # however it lies in memory
    if tensor.numel() > 100:
        quarters = [int(value * 4 / tensor.numel()) for value in found]
        assert all(quarters.count(quarter) >= 3 for quarter in range(4))


@pytest.mark.parametrize("change", [lambda: scaled(1.01), lambda: scaled(1.002), lambda: MixtureGenerator(width=0.2525)])
def test_a_slightly_changed_model_is_another_one(change):
    mine, other = scorer(MixtureGenerator()).signature, scorer(change()).signature
    assert alike(mine, mine) and not alike(mine, other) and not alike(other, mine)


@given(st.floats(-0.2 * TOLERANCE, 0.2 * TOLERANCE), st.integers(0, 99))
@settings(max_examples=10)
def test_rounding_changes_no_model(size, seed):
    """Errors of a size relative to every element."""
    generator = MixtureGenerator()
    runs = [record(generator, case, linear_sigmas(12)) for case in CASES]
    pictures = generator.decode(torch.stack([run.x[-1] for run in runs]))
    noise = torch.Generator().manual_seed(seed)

    def rounded(tensor):
        return tensor * (1 + size * torch.rand(tensor.shape, generator=noise))

    others = [type(run)(run.sigmas, rounded(run.x), rounded(run.d)) for run in runs]
    assert alike(signature(others, rounded(pictures)), signature(runs, pictures))


def test_one_case_or_one_picture_that_differs_is_enough():
    generator = MixtureGenerator()
    runs = [record(generator, case, linear_sigmas(12)) for case in CASES]
    pictures = generator.decode(torch.stack([run.x[-1] for run in runs]))
    mine = signature(runs, pictures)
    assert not alike(signature(runs, pictures * torch.tensor([1, 1.01])[:, None, None, None]), mine)
    assert not alike(signature([runs[0], record(scaled(1.01), 2, linear_sigmas(12))], pictures), mine)
    assert not alike(mine[:1], mine)


def test_a_signature_survives_json():
    mine = scorer(MixtureGenerator()).signature
    assert json.loads(json.dumps(mine)) == mine


@pytest.mark.parametrize("junk", [None, "", 3, [], [[]], {"a": 1}, [[["x"]]], [[[1.0]], [[1.0, 2.0]]], [[[None] * 16]]])
def test_what_is_no_signature_is_not_alike(junk):
    assert not alike(junk, scorer(MixtureGenerator()).signature)
