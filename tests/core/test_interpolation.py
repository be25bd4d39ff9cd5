import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixture import MixtureGenerator, linear_sigmas

from otcache_core.errors import OTCacheError
from otcache_core.interpolation import schedule_at
from otcache_core.pipeline import Settings, calibrate
from otcache_core.presets import preset
from otcache_core.retiming import retime
from otcache_core.rollout import sample
from otcache_core.schedule import make_schedule
from otcache_core.solvers import euler
from otcache_core.transport import interpolate

STEPS, CASES = 20, [1, 2, 3]
SIGMAS = linear_sigmas(STEPS, 3.0)


@pytest.fixture(scope="module")
def done():
    wanted = Settings(budgets=range(5, 8), reference_budget=9, anchor_budget=4, trials=6)
    return calibrate(MixtureGenerator(), CASES, SIGMAS, wanted)


def test_prepared_schedules_anchor_and_reference_are_given_as_they_are(done):
    for budget, schedule in done.schedules.items():
        assert schedule_at(done.reference, done.anchor, budget) == schedule
    assert schedule_at(done.reference, done.anchor, 9) == done.reference
    assert schedule_at(done.reference, done.anchor, 4).compute_steps == done.anchor.compute_steps


@pytest.mark.parametrize("budget", [1, 2, 3, 8, 12, 19])
def test_others_are_the_geodesics(done, budget):
    found = schedule_at(done.reference, done.anchor, budget)
    steps = interpolate(done.anchor.compute_steps, done.reference.compute_steps, SIGMAS, budget)
    assert found.compute_steps == steps and found.stage == "interpolated" and "not judged" in found.provenance
    assert found.predictor == done.reference.predictor and len(found.weights) == budget and found.score is None


def test_what_is_not_prepared_is_still_good(done):
    """Carried weights at a budget between two fitted ones: better than holding, and than Euler with as many steps."""
    generator, cases = MixtureGenerator(), list(range(50, 62))
    full = euler(generator, cases, SIGMAS)

    def error(latents):
        return float((latents - full).square().mean().sqrt())

    found = schedule_at(done.reference, done.anchor, 8)
    held = make_schedule(sigmas=found.sigmas, compute_steps=found.compute_steps, predictor={"kind": "hold"})
    ours = error(sample(generator, cases, found))
    assert ours < error(sample(generator, cases, held)) and ours < error(euler(generator, cases, linear_sigmas(8, 3.0)))


def test_a_budget_of_all_steps_computes_everything(done):
    assert schedule_at(done.reference, done.anchor, STEPS).compute_steps == tuple(range(STEPS))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30))
def test_an_anchor_from_another_grid_is_retimed(done, budget):
    reference = retime(done.reference, linear_sigmas(30, 2.0))
    found = schedule_at(reference, done.anchor, budget)
    assert found.sigmas == reference.sigmas and found.budget == budget


def test_presets_without_weights_can_be_interpolated_too():
    reference, anchor = preset("meancache-qwen-image-17"), preset("meancache-qwen-image-10")
    found = schedule_at(reference, anchor, 12)
    assert found.budget == 12 and found.predictor.kind == "mean_velocity" and len(found.spans) == 12
    assert np.array_equal(found.sigmas, reference.sigmas)


@pytest.mark.parametrize("budget", [0, 21, -3])
def test_a_budget_out_of_range_is_our_error(done, budget):
    with pytest.raises(OTCacheError, match=f"budget is {budget}, .*1 to the 20"):
        schedule_at(done.reference, done.anchor, budget)


def test_reference_and_anchor_the_wrong_way_round_are_our_error(done):
    with pytest.raises(OTCacheError, match="must be below"):
        schedule_at(done.anchor.replace(prepared=()), done.reference, 6)
