import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mixture import linear_sigmas
from strategies import grids_with_steps, step_sets

from otcache_core.errors import OTCacheError
from otcache_core.sampling.cached_run import CachedRun
from otcache_core.sampling.layout import low_pass
from otcache_core.sampling.predictors import combine_bands, mean_velocity_step
from otcache_core.sampling.rollout import Rollouts, sample
from otcache_core.schedules.schedule import HISTORY, Predictor, make_schedule

KINDS = ["hold", "linear", "quadratic", "mean_velocity", "fitted", "two bands"]


def schedule(sigmas, steps, kind, damping=1.0, rows=None, span=3):
    """Any schedule of `kind`; weights and spans that nobody would fit unless given."""
    fitted = {"fitted": ((7.0, -3.0, 0.5),), "two bands": ((7.0, -3.0, 0.5), (-2.0, 4.0, 1.5))}.get(kind, ())
    unlikely = tuple(sum((band[: k + 1] for band in fitted), ()) for k in range(len(steps)))
    return make_schedule(
        sigmas=tuple(sigmas),
        compute_steps=tuple(steps),
        predictor=Predictor(kind="fitted", bands=2) if kind == "two bands" else Predictor(kind=kind, damping=damping),
        weights=rows or (unlikely if fitted else None),
        spans=(span,) * len(steps),
    )


def drive(run: CachedRun, velocity):
    """All velocities of one run whose model is `velocity(step)`."""
    steps = range(run.schedule.steps)
    out = []
    for step in steps:
        if run.computes(step):
            out.append(velocity(step))
            run.observe(step, out[-1])
        else:
            out.append(run.predict(step))
    return out


def random_velocities(count, seed=0, shape=(2, 3)):
    return list(
        torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )


def euler(generator, cases, sigmas):
    x = torch.stack([generator.noise(case) for case in cases])
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        x = x + generator.velocity(x, sigma, cases) * (following - sigma)
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_budget_is_plain_euler_bit_for_bit(recording, kind):
    full = schedule(recording.sigmas, range(recording.steps), kind)
    ours = sample(recording.generator, recording.cases, full)
    assert torch.equal(ours, euler(recording.generator, recording.cases, full.sigmas))


@pytest.mark.parametrize("kind", KINDS)
def test_a_computed_step_uses_the_models_own_output(kind):
    run = CachedRun(schedule(linear_sigmas(8), (0, 1, 4), kind))
    model = random_velocities(8)
    out = drive(run, model.__getitem__)
    assert all(out[step] is model[step] for step in (0, 1, 4))


@pytest.mark.parametrize("kind", KINDS)
@given(grids_with_steps())
def test_evaluations_are_exactly_the_budget(kind, case):
    sigmas, steps = case
    run = CachedRun(schedule(sigmas, steps, kind))
    asked = []
    drive(run, lambda step: asked.append(step) or torch.ones(2, 2))
    assert tuple(asked) == steps and run.evaluations == len(steps) == run.schedule.budget


@pytest.mark.parametrize("kind", KINDS)
def test_two_runs_of_the_same_schedule_are_equal(recording, kind):
    cached = schedule(recording.sigmas, (0, 1, 4, 9), kind)
    first, second = (sample(recording.generator, recording.cases, cached) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_observed_tensors_are_never_written_to(kind):
    model = random_velocities(12)
    before = [d.clone() for d in model]
    drive(CachedRun(schedule(linear_sigmas(12), (0, 2, 3, 7), kind)), model.__getitem__)
    assert all(torch.equal(a, b) for a, b in zip(model, before, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("span", [0, 3])
def test_a_sampler_that_writes_into_a_prediction_changes_nothing_else(kind, span):
    def run_with(spoil):
        run = CachedRun(schedule(linear_sigmas(12), (0, 2, 3, 7), kind, span=span))
        model, out = random_velocities(12), []
        for step in range(12):
            if run.computes(step):
                run.observe(step, model[step])
                out.append(model[step].clone())
            else:
                d = run.predict(step)
                out.append(d.clone())
                if spoil:
                    d.fill_(1e6)
        return torch.stack(out)

    assert torch.equal(run_with(True), run_with(False))


@pytest.mark.parametrize("kind", KINDS)
def test_memory_is_bounded_by_the_history_whatever_the_length_of_the_run(kind):
    steps, span = 60, 4
    run = CachedRun(schedule(np.linspace(1, 0, steps + 1), range(0, steps, 3), kind, span=span))
    seen = []
    most = 0
    for step in range(steps):
        if run.computes(step):
            d = torch.full((2, 2), float(step))
            run.observe(step, d)
        else:
            d = run.predict(step)
        seen.append(weakref.ref(d))
        del d
        gc.collect(0)
        most = max(most, sum(ref() is not None for ref in seen))
    # Of mean velocities the last `span` are kept as well, of which the newest evaluation may be one.
    longest = {"hold": 1, "mean_velocity": span + 1}.get(kind, HISTORY)
    assert most <= longest and (kind == "mean_velocity" or most == longest)
    del run
    gc.collect()
    assert all(ref() is None for ref in seen)


@pytest.mark.parametrize("kind", KINDS)
def test_predicting_before_the_first_evaluation_is_an_error(kind):
    run = CachedRun(schedule(linear_sigmas(8), (0, 3), kind))
    with pytest.raises(OTCacheError, match="Step 1 .* before any evaluation"):
        run.predict(1)


@pytest.mark.parametrize("kind", ["hold", "linear", "quadratic"])
@pytest.mark.parametrize("damping", [1.0, 0.5])
@given(data=st.data())
@settings(max_examples=20)
def test_stepwise_extrapolation_equals_the_segment_algebra(recording, kind, damping, data):
    steps = data.draw(step_sets(recording.steps))
    rollouts = Rollouts(
        recording.generator, recording.cases, recording.trajectories, Predictor(kind=kind, damping=damping)
    )
    cached = schedule(recording.sigmas, steps, kind, damping)
    ours = sample(recording.generator, recording.cases, cached)
    theirs, _ = rollouts.run(steps)
    # Undamped quadratics can blow up over long gaps, so the tolerance is relative there.
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-10 if kind == "quadratic" else 1e-12)


@pytest.mark.parametrize("kind", ["fitted", "two bands"])
@given(data=st.data())
@settings(max_examples=30)
def test_stepwise_fitted_runs_equal_the_segment_algebra(recording, kind, data):
    steps = data.draw(step_sets(recording.steps))
    cached = schedule(recording.sigmas, steps, kind)
    predictor = cached.predictor
    theirs, rows = Rollouts(recording.generator, recording.cases, recording.trajectories, predictor).run(steps)
    ours = sample(recording.generator, recording.cases, cached.replace(weights=rows))
    # Between two modes of the mixture the flow itself enlarges the last bit of a sum by up to 1e5.
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


@given(grids_with_steps(min_steps=2), st.data())
def test_mean_velocity_equals_a_simulation_that_remembers_everything(case, data):
    sigmas, steps = case
    spans = tuple(data.draw(st.lists(st.integers(0, 6), min_size=len(steps), max_size=len(steps))))
    model = random_velocities(len(sigmas) - 1)
    run = CachedRun(schedule(sigmas, steps, "mean_velocity").replace(spans=spans))
    everything = []
    for step in range(len(sigmas) - 1):
        if step in steps:
            span = spans[steps.index(step)]
            everything.append(model[step])
        elif min(span, step) < 2:
            everything.append(everything[-1])
        else:
            back = min(span, step)
            everything.append(mean_velocity_step(sigmas[step - back : step + 2], everything[step - back :]))
    torch.testing.assert_close(
        torch.stack(drive(run, model.__getitem__)), torch.stack(everything), atol=0, rtol=0
    )


@pytest.mark.parametrize("kind", ["hold", "linear", "quadratic", "fitted", "two bands"])
def test_a_sampler_may_ask_for_the_same_step_twice(kind):
    run = CachedRun(schedule(linear_sigmas(8), (0, 2), kind))
    model = random_velocities(3)
    run.observe(0, model[0])
    run.observe(2, model[2])
    first, between, again = run.predict(4), run.predict(4, sigma=0.4567), run.predict(4)
    assert torch.equal(first, again)
    assert torch.equal(first, between) == (kind == "hold")


def test_prediction_between_grid_points_is_at_that_sigma():
    sigmas = linear_sigmas(8)
    run = CachedRun(schedule(sigmas, (0, 2), "linear"))
    intercept, slope = random_velocities(2)
    for step in (0, 2):
        run.observe(step, intercept + slope * sigmas[step])
    torch.testing.assert_close(run.predict(4, sigma=0.4321), intercept + slope * 0.4321)


def test_a_fitted_segment_lands_where_its_weights_say():
    sigmas = linear_sigmas(8, shift=3.0)
    cached = schedule(sigmas, (0, 2), "fitted", rows=((1.0,), (1.4, -0.4)))
    model = random_velocities(8)
    out = drive(CachedRun(cached), model.__getitem__)
    moved = sum(float(sigmas[i + 1] - sigmas[i]) * out[i] for i in range(2, 8))
    mean = 1.4 * model[2] - 0.4 * model[0]
    torch.testing.assert_close(moved, mean * float(sigmas[8] - sigmas[2]))


def test_a_segment_of_two_bands_lands_where_each_bands_weights_say():
    sigmas = linear_sigmas(8, shift=3.0)
    cached = schedule(sigmas, (0, 2), "two bands", rows=((1.0, 1.0), (1.4, -0.4, 0.9, 0.2)))
    model = random_velocities(8, shape=(2, 3, 9, 10))
    out = drive(CachedRun(cached), model.__getitem__)
    moved = sum(float(sigmas[i + 1] - sigmas[i]) * out[i] for i in range(2, 8))
    low, high = 1.4 * model[2] - 0.4 * model[0], 0.9 * model[2] + 0.2 * model[0]
    mean = low_pass(low) + high - low_pass(high)
    torch.testing.assert_close(moved, mean * float(sigmas[8] - sigmas[2]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_predictions_keep_the_models_precision_and_shape(kind, dtype):
    run = CachedRun(schedule(linear_sigmas(8), (0, 2, 3), kind))
    model = [torch.ones(1, 4, 2, 3, dtype=dtype).transpose(1, 3) * i for i in range(8)]
    for d in drive(run, model.__getitem__):
        assert d.dtype == dtype and d.shape == (1, 3, 2, 4)


def test_runs_of_one_schedule_do_not_share_state():
    cached = schedule(linear_sigmas(6), (0, 2), "linear")
    one, other = CachedRun(cached), CachedRun(cached)
    one.observe(0, torch.ones(2))
    with pytest.raises(OTCacheError):
        other.predict(1)
    assert other.evaluations == 0


@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_outside_the_schedule_replaces_all_before_it(kind):
    cached = schedule(linear_sigmas(12), (0, 1, 2, 8), kind)
    model = random_velocities(12)
    run = CachedRun(cached)
    for step in (0, 1, 2, 4):
        run.observe(step, model[step])
    assert run.evaluations == 4
    for step in (5, 6, 7):
        torch.testing.assert_close(run.predict(step), model[4])


@pytest.mark.parametrize("kind", KINDS)
def test_after_an_extra_evaluation_older_ones_play_no_part(kind):
    cached = schedule(linear_sigmas(16), (0, 1, 2, 8, 10, 12, 14), kind)
    model = random_velocities(16)
    predictions = []
    for before in (random_velocities(16, seed=1), random_velocities(16, seed=2)):
        run = CachedRun(cached)
        for step in (0, 1, 2):
            run.observe(step, before[step])
        out = []
        for step in range(4, 16):
            if step == 4 or run.computes(step):
                run.observe(step, model[step])
            else:
                out.append(run.predict(step))
        predictions.append(torch.stack(out))
    assert torch.isfinite(predictions[0]).all()
    assert torch.equal(*predictions)


@pytest.mark.parametrize("kind", ["fitted", "two bands"])
def test_fitted_weights_are_used_again_when_their_evaluations_are_there(kind):
    cached = schedule(linear_sigmas(16), (0, 1, 4, 8, 10, 12), kind)
    model = random_velocities(16)
    plain, restarted = CachedRun(cached), CachedRun(cached)
    for step in (0, 1, 4, 8, 10, 12):
        plain.observe(step, model[step])
    for step in (0, 1, 6, 8, 10):
        restarted.observe(step, model[step])
    # The newest three are 10, 8 and 6 here, but the weights of step 10 are for 10, 8 and 4: the prior stands in.
    prior = CachedRun(schedule(cached.sigmas, (0, 1, 6, 8, 10, 12), "linear", damping=0.5))
    for step in (0, 1, 6, 8, 10):
        prior.observe(step, model[step])
    torch.testing.assert_close(restarted.predict(11), prior.predict(11))
    restarted.observe(12, model[12])
    assert torch.equal(restarted.predict(13), plain.predict(13))


@pytest.mark.parametrize("kind", KINDS)
def test_after_forgetting_the_next_step_has_to_be_evaluated(kind):
    run = CachedRun(schedule(linear_sigmas(8), (0, 2), kind))
    run.observe(0, torch.ones(2, 2))
    assert run.can_predict(1)
    run.forget()
    assert not run.can_predict(1)
    with pytest.raises(OTCacheError, match="before any evaluation"):
        run.predict(1)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), case=grids_with_steps(min_steps=2))
def test_any_order_of_evaluations_gives_finite_predictions(kind, case, data):
    sigmas, steps = case
    run = CachedRun(schedule(sigmas, steps, kind))
    run.observe(0, torch.ones(2, 2, dtype=torch.float64))
    for step in data.draw(st.lists(st.integers(0, len(sigmas) - 2), max_size=8)):
        if data.draw(st.booleans()):
            run.observe(step, torch.ones(2, 2, dtype=torch.float64))
        d = run.predict(step)
        assert torch.isfinite(d).all()
        if "fitted" != kind != "two bands":  # weights that nobody fitted may make anything of a constant
            torch.testing.assert_close(d, torch.ones_like(d))


@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value):RuntimeWarning")
def test_a_second_evaluation_of_one_step_replaces_the_first():
    run = CachedRun(schedule(linear_sigmas(8), (0, 2), "linear"))
    run.observe(0, torch.zeros(2))
    run.observe(2, torch.ones(2))
    run.observe(2, torch.ones(2))
    assert torch.isfinite(run.predict(3)).all()


@pytest.mark.parametrize("kind", ["hold", "linear", "quadratic", "fitted", "two bands"])
@given(data=st.data(), case=grids_with_steps(min_steps=2))
def test_coefficients_applied_to_velocities_are_the_prediction(kind, case, data):
    """At every skipped step and between grid points, also when evaluations were made that the schedule does not name."""
    sigmas, steps = case
    run = CachedRun(schedule(sigmas, steps, kind, damping=0.7))
    model = random_velocities(len(sigmas), shape=(1, 2, 5, 6))
    extra = data.draw(st.sets(st.integers(0, len(sigmas) - 2), max_size=2))
    made = []
    for step in range(len(sigmas) - 1):
        if run.computes(step) or step in extra:
            made = [step, *made] if run.computes(step) else [step]
            run.observe(step, model[step])
            continue
        kept = tuple(made[:HISTORY])
        for sigma in (float(sigmas[step]), float(sigmas[step] + sigmas[step + 1]) / 2):
            rows = run.coefficients(sigma, kept)
            assert len(rows) == run.schedule.predictor.bands and {len(row) for row in rows} == {len(rows[0])}
            assert len(rows[0]) <= min(run.combines, len(kept))
            combined = combine_bands(rows, [model[past] for past in kept[: len(rows[0])]])
            torch.testing.assert_close(combined, run.predict(step, sigma), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", ["fitted", "two bands"])
def test_whoever_keeps_fewer_evaluations_gets_the_prior_for_those(kind):
    cached = schedule(linear_sigmas(16), (0, 1, 4, 8), kind)
    run, prior = CachedRun(cached), CachedRun(schedule(cached.sigmas, (0, 1, 4, 8), "linear", damping=0.5))
    for step in (0, 1, 4, 8):
        run.observe(step, torch.ones(2, 2))
        prior.observe(step, torch.ones(2, 2))
    # A damped line within the segment: the ramp that lands where the damped line's mean velocity does.
    sigma = float(cached.sigmas[10])
    for row in run.coefficients(sigma, (8, 4)):
        assert row == pytest.approx(prior.coefficients(sigma, (8, 4))[0])
    assert run.coefficients(sigma, (8,)) == [[1.0]] * cached.predictor.bands
    assert run.combines == HISTORY and prior.combines == 2


@pytest.mark.parametrize("kind", KINDS)
def test_coefficients_at_the_evaluation_itself_are_it(kind):
    cached = schedule(linear_sigmas(12), (0, 2, 5, 6), kind)
    for steps in ((5, 2, 0), (6, 5, 2)):
        for row in CachedRun(cached).coefficients(float(cached.sigmas[steps[0]]), steps):
            assert row == [1.0] + [0.0] * (len(row) - 1)


def test_mean_velocities_are_held_where_only_evaluations_are_kept():
    run = CachedRun(schedule(linear_sigmas(8), (0, 2), "mean_velocity"))
    assert run.coefficients(0.3, (2, 0)) == [[1.0]] and run.combines == 1
