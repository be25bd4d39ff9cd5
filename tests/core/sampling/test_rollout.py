import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mixture import Broken, MixtureGenerator, linear_sigmas
from strategies import step_sets

from otcache_core.errors import OTCacheError
from otcache_core.sampling.predictors import fit_weights
from otcache_core.sampling.rollout import FITTED, Counted, Rollouts, record, sample
from otcache_core.schedules.extrapolation import prior_weights
from otcache_core.schedules.schedule import HISTORY, Predictor, make_schedule

PREDICTORS = {kind: Predictor(kind=kind) for kind in ("hold", "linear", "quadratic", "fitted")} | {"two bands": FITTED}
KINDS = list(PREDICTORS)
STEPS = 12


def rollouts(recording, kind="fitted", generator=None, **options) -> Rollouts:
    return Rollouts(
        generator or recording.generator,
        recording.cases,
        recording.trajectories,
        PREDICTORS.get(kind) or Predictor(kind=kind),
        **options,
    )


def needs_evaluation(path) -> set[tuple[int, ...]]:
    """The prefixes of a path that are no part of the recorded run: a step was skipped before their end."""
    return {path[: k + 1] for k in range(len(path)) if path[k] != k}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=15)
def test_sharing_prefixes_changes_nothing(recording, kind, data):
    shared = rollouts(recording, kind)
    for path in data.draw(st.lists(step_sets(STEPS), min_size=2, max_size=6)):
        latents, rows = shared.run(path)
        fresh, fresh_rows = rollouts(recording, kind).run(path)
        assert torch.equal(latents, fresh) and rows == fresh_rows


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=15)
def test_every_prefix_is_evaluated_once_and_the_recorded_ones_never(recording, kind, data):
    counted = Counted(recording.generator)
    runs = rollouts(recording, kind, counted)
    needed = set()
    for path in data.draw(st.lists(step_sets(STEPS), min_size=1, max_size=8)):
        runs.run(path)
        needed |= needs_evaluation(path)
        assert counted.evaluations == len(needed) * len(recording.cases)


def test_it_tells_how_much_of_a_schedule_has_been_run_with_others(recording):
    runs = rollouts(recording)
    assert runs.begun((0, 2, 5, 7)) == 0
    _, rows = runs.run((0, 2, 5, 8))
    assert [runs.begun(path) for path in ((0, 2, 5, 7), (0, 2, 4, 7), (0, 2, 5, 8), (0, 1, 5))] == [3, 2, 4, 1]
    assert runs.begun((0, 2, 5, 8), rows) == 0  # with weights that are given it would be another run


@pytest.mark.parametrize("kind", ["fitted", "two bands"])
def test_a_contiguous_start_is_free_and_equals_the_recorded_run(recording, kind):
    counted = Counted(recording.generator)
    latents, rows = rollouts(recording, kind, counted).run(range(STEPS))
    assert counted.evaluations == 0
    assert torch.equal(
        latents,
        torch.stack([run.x[-2] + run.d[-1] * -float(recording.sigmas[-2]) for run in recording.trajectories]),
    )
    bands = PREDICTORS[kind].bands
    assert rows == ((1.0,) * bands, (1.0, 0.0) * bands, *((1.0, 0.0, 0.0) * bands,) * (STEPS - 2))
    torch.testing.assert_close(
        latents, torch.stack([run.x[-1] for run in recording.trajectories]), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("room", [0, 1, 3])
@given(data=st.data())
@settings(max_examples=8)
def test_forgetting_under_a_tiny_limit_changes_nothing_but_the_work(recording, kind, room, data):
    counted = Counted(recording.generator)
    one = 2 * 3 * 3 * 16 * 16 * 8  # latents and evaluations of three cases in float64
    small, large = rollouts(recording, kind, counted, max_bytes=room * one), rollouts(recording, kind)
    work = 0
    for path in data.draw(st.lists(step_sets(STEPS), min_size=2, max_size=5)):
        ours, theirs = small.run(path), large.run(path)
        assert torch.equal(ours[0], theirs[0]) and ours[1] == theirs[1]
        assert len(small._states) <= max(room, 1) and small._bytes == one * len(small._states)
        work += len(needs_evaluation(path)) * len(recording.cases)
        assert counted.evaluations <= work  # never more than without any sharing


@pytest.mark.parametrize("kind", ["fitted", "two bands"])
@given(data=st.data())
@settings(max_examples=15)
def test_given_rows_reproduce_the_fitted_run(recording, kind, data):
    path = data.draw(step_sets(STEPS))
    latents, rows = rollouts(recording, kind).run(path)
    again, same_rows = rollouts(recording, kind).run(path, rows)
    assert torch.equal(again, latents) and same_rows == rows


@given(data=st.data())
@settings(max_examples=15)
def test_runs_with_given_rows_and_fitted_ones_do_not_mix(recording, data):
    path = data.draw(step_sets(STEPS))
    shared = rollouts(recording)
    other_rows = tuple(tuple([0.5] + [0.25] * min(k, HISTORY - 1)) for k in range(len(path)))
    fitted, given_rows = shared.run(path), shared.run(path, other_rows)
    assert torch.equal(rollouts(recording).run(path, other_rows)[0], given_rows[0])
    assert torch.equal(shared.run(path)[0], fitted[0])
    # Given rows are used wherever a step is predicted.
    for k, (start, end) in enumerate(zip(path, (*path[1:], STEPS), strict=True)):
        assert given_rows[1][k] == ((1.0,) + (0.0,) * min(k, 2) if end == start + 1 else other_rows[k])


def test_runs_with_given_rows_share_what_their_rows_have_in_common(recording):
    counted = Counted(recording.generator)
    shared, path = rollouts(recording, generator=counted), (0, 2, 5, 9)
    rows = ((1.0,), (1.2, -0.2), (1.1, -0.1, 0.0), (1.0, 0.0, 0.0))
    shared.run(path, rows)
    assert counted.evaluations == 3 * 3
    shared.run(
        path, (*rows[:3], (1.5, -0.5, 0.0))
    )  # only the last segment differs, after the last evaluation
    assert counted.evaluations == 3 * 3
    shared.run(path, (rows[0], (1.3, -0.3), *rows[2:]))
    assert counted.evaluations == 3 * 3 + 3 * 2


@pytest.mark.parametrize("kind", ["fitted", "two bands"])
def test_fitted_rows_of_unseen_cases_equal_a_stepwise_run(recording, kind):
    """The weights of one group, given to another group, mean the same as in a schedule file."""
    path, predictor = (0, 1, 4, 8), PREDICTORS[kind]
    _, rows = rollouts(recording, kind).run(path)
    generator, cases = MixtureGenerator(), [7, 8]
    runs = [record(generator, case, recording.sigmas) for case in cases]
    ours, _ = Rollouts(generator, cases, runs, predictor).run(path, rows)
    schedule = make_schedule(
        sigmas=recording.sigmas, compute_steps=path, predictor=predictor, weights=rows
    )
    torch.testing.assert_close(ours, sample(generator, cases, schedule), atol=1e-12, rtol=1e-12)


def test_each_segment_is_fitted_to_land_on_the_recorded_latent(recording):
    path, runs = (0, 3, 7), rollouts(recording, ridge=1e-9)
    node = runs.state_at(path[:2])
    recorded = torch.stack([run.x[7] for run in recording.trajectories])
    span = float(recording.sigmas[7] - recording.sigmas[3])
    row = fit_weights(
        node.d,
        (recorded - node.x) / span,
        prior_weights(recording.sigmas[[3, 0]], recording.sigmas[3:8]),
        1e-9,
    )
    landed = node.x + span * (row[0] * node.d[0] + row[1] * node.d[1])
    torch.testing.assert_close(runs.state_at(path).x, landed, atol=1e-12, rtol=0)
    for change in ((1e-3, 0.0), (0.0, -1e-3)):
        other = node.x + span * ((row[0] + change[0]) * node.d[0] + (row[1] + change[1]) * node.d[1])
        assert ((landed - recorded) ** 2).sum() < ((other - recorded) ** 2).sum()


def test_two_bands_are_fitted_by_default_and_land_nearer_than_one(recording):
    path, runs = (0, 3, 7), Rollouts(recording.generator, recording.cases, recording.trajectories)
    assert runs.predictor == FITTED == Predictor(kind="fitted", bands=2)
    recorded = torch.stack([run.x[3] for run in recording.trajectories])
    ours, theirs = (((r.state_at(path[:2]).x - recorded) ** 2).sum() for r in (runs, rollouts(recording)))
    assert ours < theirs
    assert [len(row) for row in runs.run(path)[1]] == [2, 4, 6]


def test_more_budget_than_the_history_keeps_only_the_history(recording):
    state = rollouts(recording).state_at((0, 2, 4, 6, 8))
    assert len(state.d) == HISTORY and all(len(row) <= HISTORY for row in state.rows)


def test_record_is_plain_euler(recording):
    x = recording.generator.noise(2)
    run = record(recording.generator, 2, recording.sigmas)
    assert torch.equal(run.x[0], x)
    for i in range(STEPS):
        d = recording.generator.velocity(x[None], float(recording.sigmas[i]), [2])[0]
        x = x + d * float(recording.sigmas[i + 1] - recording.sigmas[i])
        assert torch.equal(run.d[i], d) and torch.equal(run.x[i + 1], x)


def test_recording_a_diverging_case_is_our_error():
    with pytest.raises(OTCacheError, match="step .* not finite"):
        record(Broken(after=3), 1, linear_sigmas(8))


def test_a_rollout_that_diverges_is_our_error_when_weights_are_fitted(recording):
    runs = rollouts(recording, generator=Broken(after=0))
    with pytest.raises(OTCacheError, match="not (a )?finite"):
        runs.run((0, 2, 5))


@pytest.mark.parametrize("kind", ["hold", "linear"])
def test_a_rollout_that_diverges_is_our_error_for_extrapolations_too(recording, kind):
    with pytest.raises(OTCacheError):
        rollouts(recording, kind, Broken(after=0)).run((0, 2, 5))


def test_a_predictor_that_rollouts_do_not_know_is_refused(recording):
    with pytest.raises(OTCacheError, match="mean_velocity"):
        rollouts(recording, "mean_velocity").run((0, 3, 6))


@pytest.mark.parametrize("steps", [(), (3, 6), (0, 6, 3), (0, 3, 3), (0, STEPS)])
def test_invalid_compute_steps_are_refused(recording, steps):
    with pytest.raises(OTCacheError):
        rollouts(recording).run(steps)


def test_counted_counts_every_case_of_every_evaluation(recording):
    ticks = []
    counted = Counted(recording.generator, ticks.append)
    noise = counted.noise(3)
    assert torch.equal(noise, recording.generator.noise(3)) and counted.evaluations == 0
    x = torch.stack([noise, noise])
    assert torch.equal(counted.velocity(x, 0.5, [3, 3]), recording.generator.velocity(x, 0.5, [3, 3]))
    counted.velocity(x[:1], 0.5, [3])
    counted.decode(x)
    assert counted.evaluations == 3 and ticks == [2, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_counted_equals_what_the_generator_itself_saw(recording, kind):
    inner = MixtureGenerator()
    counted = Counted(inner)
    predictor = PREDICTORS[kind]
    schedule = make_schedule(
        sigmas=recording.sigmas,
        compute_steps=(0, 2, 7),
        predictor=predictor,
        weights=[row * predictor.bands for row in ((1.0,), (1.2, -0.2), (1.0, 0.5, -0.5))],
    )
    sample(counted, recording.cases, schedule)
    assert counted.evaluations == inner.evaluations == 3 * len(recording.cases)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_interrupt_leaves_rollouts_usable(recording, kind, at):
    class Interrupted(Exception):
        pass

    def tick(evaluations):
        if evaluations == at * len(recording.cases):
            raise Interrupted

    counted = Counted(recording.generator, tick)
    runs, path = rollouts(recording, kind, counted), (0, 2, 5, 9)
    with pytest.raises(Interrupted):
        runs.run(path)
    before = counted.evaluations
    latents, rows = runs.run(path)
    fresh, fresh_rows = rollouts(recording, kind).run(path)
    assert torch.equal(latents, fresh) and rows == fresh_rows
    # What was evaluated before the interrupt was kept.
    assert counted.evaluations - before == (3 - (at - 1)) * len(recording.cases)


@pytest.mark.parametrize("kind", KINDS)
def test_rollouts_leave_the_recordings_alone(recording, kind):
    before = [(run.x.clone(), run.d.clone()) for run in recording.trajectories]
    rollouts(recording, kind).run((0, 1, 2, 6, 9))
    for run, (x, d) in zip(recording.trajectories, before, strict=True):
        assert torch.equal(run.x, x) and torch.equal(run.d, d)


def test_long_schedules_do_not_exhaust_the_stack():
    generator, sigmas = MixtureGenerator(components=1), np.linspace(1, 0, 1601)
    generator.means = generator.means[..., :1, :1]
    generator.noise = lambda case: torch.ones(3, 1, 1).double()
    run = record(generator, 1, sigmas)
    Rollouts(generator, [1], [run], Predictor(kind="hold")).run((0, *range(2, 1600)))
