"""A calibration on samples of latents finds nearly what one on whole latents finds, on the embedded model."""

import pytest

from otcache_core.calibration.metrics import LATENT, psnr
from otcache_core.calibration.pipeline import Settings, calibrate
from otcache_core.demo.generator import DemoGenerator, cases
from otcache_core.sampling import patches
from otcache_core.sampling.rollout import Counted, sample

SETTINGS = Settings(budgets=(6, 8), reference_budget=8, anchor_budget=6, trials=6)
STEPS = 24


@pytest.fixture(scope="module")
def generator():
    return DemoGenerator()


def calibrated(generator):
    return calibrate(generator, cases(3, 1000), generator.sigmas(STEPS), SETTINGS)


@pytest.fixture(scope="module")
def both(generator):
    """The calibration as it was before samples, and one on half of each latent: two blocks of 8 x 8 places."""
    whole = calibrated(generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patches, "WHOLE", 2**11)
        patch.setattr(patches, "SAMPLE", 2**11)
        sampled = calibrated(generator)
    assert sampled.observed.trajectories[0].patches and not whole.observed.trajectories[0].patches
    return whole, sampled


def test_the_chosen_steps_differ_by_one_at_most_and_pictures_are_as_near(generator, both):
    whole, sampled = both
    held_out = cases(6, 2000)
    full = generator.decode(generator.sample(held_out, generator.sigmas(STEPS)))
    assert sampled.reference.compute_steps == whole.reference.compute_steps
    for budget in SETTINGS.budgets:
        schedules = [found.schedules[budget] for found in (whole, sampled)]
        apart = [abs(a - b) for a, b in zip(*(each.compute_steps for each in schedules), strict=True)]
        assert max(apart) <= 1
        there, here = (psnr(generator.decode(sample(generator, held_out, each)), full).mean() for each in schedules)
        assert abs(there - here) < 0.3


def test_latents_are_judged_without_a_decoder(generator):
    class Blind:
        noise, velocity = generator.noise, generator.velocity

    settings = Settings(budgets=(4, 5), reference_budget=5, anchor_budget=4, trials=3, metric=LATENT)
    found = calibrate(Blind(), cases(2, 1000), generator.sigmas(12), settings)
    assert found.decoded == 0 == settings.pictures(2) and found.anchor.metric == LATENT
    assert 0 < found.schedules[5].score < found.schedules[4].score
    assert [schedule.psnr for schedule in (found.anchor, *found.schedules.values())] == [None] * 3  # decibels are of pictures


def test_pictures_are_counted_and_within_what_is_stated(generator):
    counted = Counted(generator)
    settings = Settings(budgets=(4, 5), reference_budget=5, anchor_budget=4, trials=3)
    found = calibrate(counted, cases(2, 1000), generator.sigmas(12), settings)
    assert 2 < counted.decoded == found.decoded * 2 <= settings.pictures(2)
