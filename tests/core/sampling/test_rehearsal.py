from dataclasses import replace

import numpy as np
import pytest
import torch
from driving import drive, taken
from hypothesis import given, settings
from hypothesis import strategies as st
from mixture import MixtureGenerator, linear_sigmas
from strategies import step_sets

from otcache_core.errors import OTCacheError
from otcache_core.sampling.cached_run import CachedRun
from otcache_core.sampling.layout import low_pass
from otcache_core.sampling.rehearsal import ELEMENTS, Recorder, Rehearsal, visit
from otcache_core.sampling.rollout import Rollouts
from otcache_core.schedules.schedule import HISTORY, make_schedule

STEPS = 12
SIGMAS = linear_sigmas(STEPS, shift=3.0)


@pytest.fixture(scope="module")
def generator() -> MixtureGenerator:
    return MixtureGenerator()


def told(recorder: Recorder, steps, shapes=None, bad=None) -> Recorder:
    """`recorder` after evaluations at `steps` along a straight line."""
    random = torch.Generator().manual_seed(0)
    start, d = (torch.randn(1, 3, 8, 8, generator=random) for _ in range(2))
    for number, step in enumerate(steps):
        x = start + d * float(recorder.sigmas[step] - recorder.sigmas[0])
        v = d.clone()
        if shapes and number in shapes:
            x, v = (part[..., : shapes[number]] for part in (x, v))
        if bad and number == bad[0]:
            (x if bad[1] == "x" else v)[0, 0, 0, 0] = bad[2]
        recorder.observe(step, v, x)
    return recorder


def reason(recorder: Recorder) -> str:
    with pytest.raises(OTCacheError) as error:
        recorder.recording()
    assert "\n" not in str(error.value)
    assert pytest.raises(OTCacheError, recorder.recording).match("")  # and again
    return str(error.value)


# ---- Recorder


@pytest.mark.parametrize("cases", [[1], [1, 2, 3]])
def test_a_recording_holds_the_run(recording, generator, cases):
    ours = taken(generator, cases, recording.sigmas)
    assert np.array_equal(ours.sigmas, recording.sigmas) and len(ours.trajectories) == len(cases)
    for run, theirs in zip(ours.trajectories, recording.trajectories, strict=False):
        torch.testing.assert_close(run.x, theirs.x.float(), atol=1e-5, rtol=0)
        torch.testing.assert_close(run.d, theirs.d.float(), atol=1e-5, rtol=0)
    assert ours.x.shape == (STEPS + 1, len(cases), 3, 16, 16) and ours.d.shape == (STEPS, len(cases), 3, 16, 16)
    assert torch.equal(ours.x[:, -1], ours.trajectories[-1].x)


def test_recording_changes_nothing_and_computes_every_step(recording, generator):
    recorder = Recorder(recording.sigmas)
    final = drive(recorder, generator, [1])
    assert torch.equal(final[0], recording.trajectories[0].x[-1])
    assert recorder.watches and recorder.evaluations == STEPS and all(map(recorder.computes, range(STEPS)))


def test_denoised_latents_teach_what_their_velocities_do():
    ours, theirs = Recorder(SIGMAS), Recorder(SIGMAS)
    random = torch.Generator().manual_seed(0)
    x, d = (torch.randn(1, 16, 90, 80, generator=random) for _ in range(2))
    for step, sigma in enumerate(SIGMAS[:-1].tolist()):
        moved = x + (sigma - 1) * d
        ours.evaluated(step, moved, moved - sigma * d, sigma)
        theirs.observe(step, d, moved)
    assert not ours.can_predict(1)  # no whole evaluation is held
    assert ours.evaluations == theirs.evaluations == STEPS
    torch.testing.assert_close(ours.recording().x, theirs.recording().x, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.recording().d, theirs.recording().d, atol=1e-4, rtol=0)


def test_a_rehearsal_needs_no_recorded_velocities(generator):
    recording = taken(generator, [1], SIGMAS)
    runs = [Rehearsal(seen, (0, 2, 5)) for seen in (recording, replace(recording, d=None))]
    one, other = (drive(run, generator, [1]) for run in runs)
    assert torch.equal(one, other)


@pytest.mark.parametrize("shape", [(1, 16, 128, 128), (1, 4, 21, 60, 100), (8, 4, 64, 64), (1, 2**21), (64, 16, 32, 32)])
@pytest.mark.parametrize("steps", [4, 50])
def test_memory_is_bounded_whatever_the_latent(shape, steps):
    recorder = Recorder(np.linspace(1, 0, steps + 1))
    x = torch.zeros(shape)
    for step in range(2):
        recorder.observe(step, x, x)
    kept = sum(part.numel() for pair in recorder._kept for part in pair) / 2
    assert kept * (steps + 0.5) <= ELEMENTS
    assert kept * (steps + 0.5) > ELEMENTS / 4 or kept == 2 * x.numel()


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        (range(STEPS - 1), f"only {STEPS - 1} of {STEPS} steps"),
        ([], f"only 0 of {STEPS} steps"),
        ([0, 1, 2, 4, *range(5, STEPS)], "in their order"),
        (range(1, STEPS), "in their order"),
        ([0, 1, 2, 3, 1, *range(2, STEPS)], "in their order"),
        ([*range(STEPS), *range(STEPS)], "in their order"),
    ],
)
def test_runs_that_skip_or_repeat_steps_teach_nothing(steps, why):
    assert why in reason(told(Recorder(SIGMAS), steps))


def test_a_second_evaluation_of_the_newest_step_replaces_the_first():
    """So heun does, which evaluates at the next step's sigma before it comes there."""
    once, twice = told(Recorder(SIGMAS), range(STEPS)), Recorder(SIGMAS)
    random = torch.Generator().manual_seed(1)
    for step, (x, d) in enumerate(once._kept):
        if step % 3:
            twice.observe(step, *(torch.randn(x.shape, generator=random) for _ in range(2)))
        twice.observe(step, d, x)
    ours, theirs = twice.recording().trajectories[0], once.recording().trajectories[0]
    assert torch.equal(ours.x, theirs.x) and torch.equal(ours.d, theirs.d)


@pytest.mark.parametrize("at", [1, 4, STEPS - 1])
def test_a_changed_shape_teaches_nothing(at):
    assert "sizes changed" in reason(told(Recorder(SIGMAS), range(STEPS), shapes={at: 4}))
    smaller = dict.fromkeys(range(at, STEPS), 4)
    assert "sizes changed" in reason(told(Recorder(SIGMAS), range(STEPS), shapes=smaller))


@pytest.mark.parametrize("at", [1, 6, STEPS - 1, STEPS])
def test_a_change_that_the_run_is_told_of_teaches_nothing(at):
    recorder = told(Recorder(SIGMAS), range(at))
    recorder.forget()
    told(recorder, range(at, STEPS))
    assert "conditionings, guidance or sizes changed" in reason(recorder)


def test_forgetting_before_the_first_evaluation_is_no_change():
    recorder = Recorder(SIGMAS)
    recorder.forget()
    assert told(recorder, range(STEPS)).recording()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["x", "d"])
@pytest.mark.parametrize("at", [0, 5, STEPS - 1])
def test_what_is_not_finite_teaches_nothing(at, name, value):
    assert "the run is not finite" in reason(told(Recorder(SIGMAS), range(STEPS), bad=(at, name, value)))


def test_a_model_that_answers_zero_teaches_without_fault():
    recorder = Recorder(SIGMAS)
    for step in range(STEPS):
        recorder.observe(step, torch.zeros(1, 4, 8, 8), torch.ones(1, 4, 8, 8))
    assert recorder.recording().trajectories[0].steps == STEPS


def test_a_run_of_one_step_can_be_recorded():
    assert told(Recorder(np.array([1.0, 0.0])), [0]).recording().trajectories[0].steps == 1


# ---- visits


@given(m=st.integers(1, 3), later=st.integers(1, 4), batch=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_inner_products_equal_direct_computation(m, later, batch, seed):
    random = torch.Generator().manual_seed(seed)
    shape = (batch, 3, 12, 10)
    evaluations = [torch.randn(shape, generator=random) for _ in range(m)]
    x, ends = torch.randn(shape, generator=random), torch.randn(later, *shape, generator=random)
    seen = visit(evaluations, x, ends)
    low = [low_pass(d).double() for d in evaluations]
    ways = [end - x for end in ends]
    parts = [
        (low, [low_pass(way).double() for way in ways]),
        ([d.double() - b for d, b in zip(evaluations, low, strict=True)], [(way - low_pass(way)).double() for way in ways]),
    ]
    for band, (v, w) in enumerate(parts):

        def product(a, b):
            return float((a * b).flatten(1).mean(1).sum())

        expected = (
            [[product(a, b) for b in v] for a in v],
            [[product(a, b) for b in w] for a in v],
            [product(a, a) for a in w],
        )
        for ours, theirs in zip((seen.gram, seen.moments, seen.squares), expected, strict=True):
            assert np.allclose(ours[band], theirs, rtol=1e-5, atol=1e-7) and ours.dtype == np.float64


def test_a_visit_of_a_batch_is_the_sum_of_its_latents_visits():
    random = torch.Generator().manual_seed(3)
    evaluations = list(torch.randn(3, 4, 2, 8, 8, generator=random))
    x, ends = torch.randn(4, 2, 8, 8, generator=random), torch.randn(5, 4, 2, 8, 8, generator=random)
    whole = visit(evaluations, x, ends)
    single = [visit([d[b : b + 1] for d in evaluations], x[b : b + 1], ends[:, b : b + 1]) for b in range(4)]
    total = single[0] + single[1] + single[2] + single[3]
    for name in ("gram", "moments", "squares"):
        assert np.allclose(getattr(whole, name), getattr(total, name), rtol=1e-12)


@given(data=st.data())
@settings(max_examples=15)
def test_a_rehearsal_visits_every_compute_step_with_its_newest_evaluations(generator, data):
    steps = data.draw(step_sets(STEPS))
    rehearsal = Rehearsal(taken(generator, [1], SIGMAS), steps)
    drive(rehearsal, generator, [1])
    assert list(rehearsal.visits) == [steps[k::-1][:HISTORY] for k in range(len(steps))]
    for key, seen in rehearsal.visits.items():
        m, ends = len(key), STEPS - key[0]
        assert seen.gram.shape == (2, m, m) and seen.moments.shape == (2, m, ends) and seen.squares.shape == (2, ends)


# ---- Rehearsal


@given(data=st.data())
@settings(max_examples=25)
def test_a_rehearsal_equals_rollouts_with_the_same_steps(recording, generator, data):
    steps, case = data.draw(step_sets(STEPS)), data.draw(st.sampled_from([0, 1, 2]))
    rehearsal = Rehearsal(taken(generator, [case + 1], recording.sigmas), steps)
    rows = {}

    def noted(d, step):
        rows[step] = None
        return d

    ours = drive(rehearsal, generator, [case + 1], velocity=noted)
    theirs, _ = Rollouts(generator, [case + 1], [recording.trajectories[case]]).run(steps)
    assert list(rows) == list(steps) and rehearsal.evaluations == len(steps)
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


@given(data=st.data())
@settings(max_examples=15)
def test_a_rehearsal_fits_the_weights_of_rollouts(recording, generator, data):
    steps = data.draw(step_sets(STEPS))
    rehearsal, rows = Rehearsal(taken(generator, [1, 2], recording.sigmas), steps), []
    observed = rehearsal.observe

    def observe(*args):
        observed(*args)
        rows.append(rehearsal._row)

    rehearsal.observe = observe
    drive(rehearsal, generator, [1, 2])
    _, theirs = Rollouts(generator, [1, 2], recording.trajectories[:2]).run(steps)
    for (start, end), our, their in zip(rehearsal.schedule.segments, rows, theirs, strict=True):
        if end > start + 1:
            # Nearly collinear velocities leave weights undetermined, so compare what they give.
            assert np.allclose(our, their, atol=2e-2)


def test_a_rehearsal_of_every_step_is_the_recorded_run(recording, generator):
    rehearsal = Rehearsal(taken(generator, [1], recording.sigmas), range(STEPS))
    assert torch.equal(drive(rehearsal, generator, [1])[0], recording.trajectories[0].x[-1])


def test_a_rehearsal_lands_nearer_than_holding(recording, generator):
    steps = (0, 2, 4, 7)
    rehearsal = Rehearsal(taken(generator, [1], recording.sigmas), steps)
    full = recording.trajectories[0].x[-1]
    hold = CachedRun(make_schedule(sigmas=tuple(recording.sigmas), compute_steps=steps, predictor={"kind": "hold"}))
    ours, held = drive(rehearsal, generator, [1]), drive(hold, generator, [1])
    assert (ours - full).norm() < 0.5 * (held - full).norm()


@pytest.mark.parametrize("steps", [(0, 1, 2), (0, 3)])
def test_a_stage_between_two_compute_steps_is_finite(generator, steps):
    rehearsal = Rehearsal(taken(generator, [1], SIGMAS), steps)
    x = generator.noise(1)[None]
    rehearsal.observe(0, generator.velocity(x, 1.0, [1]), x)
    middle = rehearsal.predict(0, float(SIGMAS[:2].mean()))
    assert torch.isfinite(middle).all()
    if steps[1] == 1:  # as any cached run does there
        assert torch.equal(middle, rehearsal.predict(0))


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 3, 16, 8), (1, 4, 16, 16)])
def test_a_rehearsal_of_another_latent_is_refused(generator, shape):
    rehearsal = Rehearsal(taken(generator, [1], SIGMAS), (0, 3))
    with pytest.raises(OTCacheError, match="did not go as the recorded run"):
        rehearsal.observe(0, torch.zeros(shape), torch.zeros(shape))


def test_a_rehearsal_with_an_evaluation_more_is_refused(generator):
    rehearsal = Rehearsal(taken(generator, [1], SIGMAS), (0, 3))
    x = generator.noise(1)[None]
    rehearsal.observe(0, x, x)
    with pytest.raises(OTCacheError, match="did not go as the recorded run"):
        rehearsal.observe(1, x, x)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_rehearsal_that_is_not_finite_is_refused(generator, value):
    rehearsal = Rehearsal(taken(generator, [1], SIGMAS), (0, 3))
    with pytest.raises(OTCacheError, match="not finite"):
        drive(rehearsal, generator, [1], velocity=lambda d, step: d * value if step else d)


@pytest.mark.parametrize("steps", [(), (1, 2), (0, 2, 2), (0, STEPS)])
def test_steps_that_do_not_fit_are_refused(generator, steps):
    with pytest.raises(OTCacheError):
        Rehearsal(taken(generator, [1], SIGMAS), steps)


@pytest.mark.parametrize("shape", [(1, 50), (2, 4, 60), (1, 2, 3, 8, 9)])
def test_latents_of_any_dimension_are_recorded_and_rehearsed(shape):
    class Curved:
        """A velocity that turns with sigma."""

        def noise(self, case):
            return torch.randn(shape[1:], generator=torch.Generator().manual_seed(case))

        def velocity(self, x, sigma, cases):
            return x * (0.5 + sigma) + sigma**2

    cases = list(range(shape[0]))
    recording = taken(Curved(), cases, SIGMAS)
    full = drive(Recorder(SIGMAS), Curved(), cases)
    rehearsal = Rehearsal(recording, (0, 2, 5, 8))
    landed = drive(rehearsal, Curved(), cases)
    assert landed.shape == shape and (landed - full).norm() < 0.05 * full.norm()
