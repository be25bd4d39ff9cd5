import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mixture import MixtureGenerator, linear_sigmas

from otcache_core.calibration.pipeline import Settings, calibrate
from otcache_core.errors import OTCacheError
from otcache_core.sampling.rollout import sample
from otcache_core.sampling.solvers import euler
from otcache_core.schedules.interpolation import (
    budget_for_speedup,
    different_models,
    error_curve,
    expected_error,
    judged_errors,
    schedule_at,
    smallest_budget,
)
from otcache_core.schedules.presets import preset
from otcache_core.schedules.retiming import retime
from otcache_core.schedules.schedule import make_schedule
from otcache_core.schedules.transport import interpolate

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
    for budget in (6, done.anchor.budget, done.reference.budget, STEPS):  # those that are known, too
        with pytest.raises(OTCacheError, match="must be below the reference; exchange the two"):
            schedule_at(done.anchor.replace(prepared=()), done.reference, budget)


def test_two_models_in_one_slider_are_told():
    flux, qwen = preset("lemica-flux1-dev-26"), preset("meancache-qwen-image-10")
    assert "made on FLUX.1 [dev] and Qwen-Image:" in different_models(flux, qwen)
    assert "Qwen-Image and Qwen-Image-2512" in different_models(qwen, preset("lemica-qwen-image-2512-10"))
    assert different_models(flux, preset("lemica-flux1-dev-10")) == ""
    own = flux.replace(stage="reference", model="Flux", model_key="Flux-1")
    assert different_models(own, preset("lemica-flux1-dev-10")) == ""  # of that class, and nobody knows more
    assert different_models(own, own.replace(stage="anchor")) == ""
    assert "different weights of Flux" in different_models(own, own.replace(stage="anchor", model_key="Flux-2"))


# -- budgets by a target -------------------------------------------------------------------------------------

NOISY = {8: 0.05, 9: 0.02, 10: 0.03, 11: 0.025, 12: 0.018, 15: 0.01}
ERRORS = st.dictionaries(st.integers(1, 40), st.floats(1e-5, 1.0).map(lambda x: float(f"{x:.3g}")), min_size=1, max_size=12)


def test_only_measured_schedules_count_and_errors_are_compared_as_they_are_read(done):
    assert list(judged_errors(done.anchor.prepared)) == [5, 6, 7]
    moved = [retime(schedule, linear_sigmas(30, 2.0)) for schedule in done.anchor.prepared]
    assert judged_errors(moved) == {}
    scored = [done.reference.replace(score=score) for score in (0.0200444, None)]
    assert judged_errors(scored[:1]) == {9: 0.02} and judged_errors(scored[1:]) == {}


def test_a_lucky_dip_does_not_stop_early_and_is_averaged_with_what_follows():
    """The measured 0.02 at 9 is not believed, since 10 and 11 did worse."""
    curve = error_curve(NOISY)
    pooled = float(f"{(0.02 * 0.03 * 0.025) ** (1 / 3):.3g}")
    assert curve == [(8, 0.05), (9, pooled), (10, pooled), (11, pooled), (12, 0.018), (15, 0.01)]
    assert [smallest_budget(curve, 50, target) for target in (0.05, pooled, 0.02, 0.018, 0.01)] == [8, 9, 12, 12, 15]


def test_between_measured_budgets_the_error_lies_on_the_line_in_logarithms():
    curve = error_curve(NOISY)
    share = math.log(13 / 12) / math.log(15 / 12)
    assert expected_error(curve, 13) == pytest.approx(0.018 ** (1 - share) * 0.01**share)
    assert smallest_budget(curve, 50, expected_error(curve, 13)) == 13


def test_what_nobody_measured_is_not_claimed():
    curve = error_curve(NOISY)
    assert [expected_error(curve, budget) for budget in (7, 16, 50)] == [None] * 3
    assert expected_error([], 10) is None
    assert smallest_budget(curve, 50, 0.009) == 50  # every step: no error at all
    assert smallest_budget(curve, 50, 1.0) == 8  # 7 could be good enough, but nobody knows


@given(ERRORS)
@example(NOISY)
def test_the_curve_falls_and_keeps_falling_errors_as_they_are(errors):
    curve = error_curve(errors)
    values = [value for _, value in curve]
    assert [budget for budget, _ in curve] == sorted(errors)
    assert values == sorted(values, reverse=True) and min(errors.values()) <= values[-1] and values[0] <= max(errors.values())
    measured = [errors[budget] for budget in sorted(errors)]
    if measured == sorted(measured, reverse=True):
        assert values == measured


@given(ERRORS, st.floats(0, 1), st.floats(0, 1))
@example(NOISY, 0.02, 0.025)
def test_the_budget_chosen_by_error_is_the_smallest_that_is_known_to_keep_it(errors, target, looser):
    curve = error_curve(errors)
    budget = smallest_budget(curve, 50, target)
    low, high = min(errors), max(errors)
    good = [b for b in range(low, high + 1) if expected_error(curve, b) <= target]
    assert good == list(range(budget, high + 1)) if good else budget == 50
    if budget in errors:
        assert errors[budget] <= target * 1.01  # what was measured keeps the target too, but for the third digit
    assert smallest_budget(curve, 50, max(target, looser)) <= budget


def test_no_budget_by_error_without_calibration():
    with pytest.raises(OTCacheError, match="No error was measured on this grid of 50 steps.*by hand"):
        smallest_budget(error_curve({}), 50, 0.03)


@given(st.integers(1, 400), st.floats(1, 500))
@example(50, 50 / 11)
@example(50, 4.0)
def test_the_budget_chosen_by_speedup_is_the_largest_that_is_fast_enough(steps, target):
    budget = budget_for_speedup(steps, target)
    assert 1 <= budget <= steps
    assert steps / budget >= target or budget == 1
    assert budget == steps or steps / (budget + 1) < target


def test_a_speedup_names_its_budget():
    assert [budget_for_speedup(50, target) for target in (1, 2, 4, 50 / 7, 50, 51)] == [50, 25, 12, 7, 1, 1]


@pytest.mark.parametrize("target", [0.99, 0, -2, float("nan")])
def test_a_speedup_below_one_is_our_error(target):
    with pytest.raises(OTCacheError, match="speed-up is .* at least 1"):
        budget_for_speedup(50, target)


@pytest.mark.parametrize(("theirs", "top"), [("diffusion", 1.0), ("diffusion", 14.6), ("", 14.6)])
def test_an_anchor_for_another_kind_of_noise_is_our_error(theirs, top):
    flow = make_schedule(sigmas=tuple(linear_sigmas(20)), compute_steps=(0, 4, 8, 12, 16), noise="flow")
    other = make_schedule(sigmas=tuple(top * linear_sigmas(20)), compute_steps=(0, 10), noise=theirs)
    with pytest.raises(OTCacheError, match="made for a diffusion model, but this is a flow model"):
        schedule_at(flow, other, 3)
    assert schedule_at(flow, flow.replace(compute_steps=(0, 10)), 3).noise == "flow"
