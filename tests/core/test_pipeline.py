from dataclasses import replace

import numpy as np
import pytest
import torch
from mixture import MixtureGenerator, linear_sigmas

from otcache_core.errors import OTCacheError
from otcache_core.graph import recorded
from otcache_core.metrics import DEFAULT, geometric_mean
from otcache_core.pipeline import (
    Settings,
    calibrate,
    graph_paths,
    measure_growth,
    record_cases,
)
from otcache_core.rollout import FITTED, Counted, Rollouts, sample
from otcache_core.schedule import load_schedule, parse_schedule, uniform_steps
from otcache_core.scoring import Scorer
from otcache_core.solvers import euler
from otcache_core.transport import interpolate

STEPS, SHIFT, CASES, BUDGETS = 20, 3.0, [1, 2, 3], range(4, 8)
SIGMAS = linear_sigmas(STEPS, SHIFT)
SETTINGS = Settings(budgets=BUDGETS, reference_budget=7, anchor_budget=4, trials=6, model="mixture")


class Run:
    """One calibration, what it reported and what it cost."""

    def __init__(self, settings=SETTINGS, cases=CASES):
        self.told, counted = [], Counted(MixtureGenerator())
        self.result = calibrate(counted, cases, SIGMAS, settings, lambda *news: self.told.append(news))
        self.evaluations = counted.evaluations


@pytest.fixture(scope="module")
def done() -> Run:
    return Run()


@pytest.fixture(scope="module")
def scorer(done) -> Scorer:
    return Scorer(MixtureGenerator(), CASES, done.result.trajectories)


def everything(result):
    return [result.reference, result.anchor, *result.schedules.values()]


def test_every_budget_asked_for_has_a_schedule(done):
    assert list(done.result.schedules) == list(done.result.geodesic) == list(done.result.candidates) == list(BUDGETS)
    assert all(schedule.budget == budget for budget, schedule in done.result.schedules.items())
    assert done.result.reference.budget == 7 and done.result.anchor.budget == 4
    stages = [schedule.stage for schedule in everything(done.result)]
    assert stages == ["reference", "anchor", *["interpolated"] * len(BUDGETS)]
    assert len({schedule.name for schedule in everything(done.result)}) == len(stages)


def test_schedules_say_where_they_come_from_and_survive_a_file(done, tmp_path):
    for schedule in everything(done.result):
        assert schedule.sigmas == tuple(SIGMAS.tolist()) and schedule.predictor == FITTED
        assert (schedule.model, schedule.metric, schedule.cases) == ("mixture", DEFAULT, ("1", "2", "3"))
        assert parse_schedule(schedule.model_dump_json()) == schedule
        schedule.save(tmp_path / "a.json")
        assert load_schedule(tmp_path / "a.json") == schedule
    assert done.result.anchor.prepared == tuple(done.result.schedules.values())


def test_the_guarded_schedule_is_never_worse_than_the_geodesic_nor_any_other_candidate(done, scorer):
    for budget, schedule in done.result.schedules.items():
        assert schedule.score == pytest.approx(scorer.score(schedule.compute_steps), rel=1e-9)
        assert schedule.score <= scorer.score(done.result.geodesic[budget]) * (1 + 1e-9)
        tried = done.result.candidates[budget]
        assert schedule.score == pytest.approx(min(scorer.score(candidate.steps) for candidate in tried), rel=1e-9)


def test_one_candidate_a_budget_is_kept_and_named(done):
    for budget, tried in done.result.candidates.items():
        kept = [candidate for candidate in tried if candidate.kept]
        assert [candidate.steps for candidate in kept] == [done.result.schedules[budget].compute_steps]
        assert len({candidate.steps for candidate in tried}) == len(tried)
        assert kept[0].source == done.result.schedules[budget].provenance
        assert tried[0].steps == done.result.geodesic[budget] and tried[0].source.startswith("geodesic")
        assert all(len(candidate.steps) == budget for candidate in tried)


def test_the_geodesic_begins_at_the_anchor_and_ends_at_the_reference(done):
    anchor, reference = done.result.anchor.compute_steps, done.result.reference.compute_steps
    assert done.result.geodesic[4] == anchor and done.result.geodesic[7] == reference
    for budget in BUDGETS:
        assert interpolate(anchor, reference, SIGMAS, budget) == done.result.geodesic[budget]


def test_budgets_beyond_anchor_and_reference_are_interpolated_too(done):
    anchor, reference = done.result.anchor.compute_steps, done.result.reference.compute_steps
    for budget in (1, 2, 3, 12, 20):
        path = interpolate(anchor, reference, SIGMAS, budget)
        assert len(path) == budget and path[0] == 0 and list(path) == sorted(set(path)) and path[-1] < STEPS


def test_weights_are_those_of_a_fit_on_all_cases(done):
    rollouts = Rollouts(MixtureGenerator(), CASES, done.result.trajectories)
    for schedule in everything(done.result):
        assert schedule.weights == rollouts.run(schedule.compute_steps)[1]


def test_the_evaluations_of_all_stages_are_all_there_are(done):
    spent = done.result.evaluations
    assert list(spent) == ["record", "error growth", "reference", "search", "guard", "final weights"]
    assert all(count >= 0 for count in spent.values()) and spent["record"] == STEPS
    assert sum(spent.values()) * len(CASES) == pytest.approx(done.evaluations)


def test_progress_is_told_after_every_unit_of_work(done):
    assert [news[:3] for news in done.told] == [
        *(("record", i + 1, 3) for i in range(3)),
        *(("search", i + 1, 6) for i in range(6)),
        *(("guard", i + 1, 8) for i in range(8)),
    ]
    assert all(isinstance(note, str) for *_, note in done.told)


def test_calibrations_repeat_exactly(done):
    again = Run()
    assert everything(again.result) == everything(done.result) and again.evaluations == done.evaluations


def test_recordings_are_the_full_runs(done):
    assert len(done.result.trajectories) == len(CASES)
    full = euler(MixtureGenerator(), CASES, SIGMAS)
    for run, latent in zip(done.result.trajectories, full, strict=True):
        torch.testing.assert_close(run.x[-1], latent, atol=1e-12, rtol=0)


def test_schedules_beat_euler_with_as_many_evaluations_on_cases_never_seen(done):
    generator, cases = MixtureGenerator(), list(range(50, 62))
    full = euler(generator, cases, SIGMAS)

    def error(latents):
        return geometric_mean((latents - full).square().flatten(1).mean(1).sqrt().numpy())

    for budget, schedule in done.result.schedules.items():
        ours = error(sample(generator, cases, schedule))
        assert ours < error(euler(generator, cases, linear_sigmas(budget, SHIFT)))
        grid = np.append(SIGMAS[list(schedule.compute_steps)], SIGMAS[-1])
        assert ours < error(euler(generator, cases, grid))


def test_more_budget_is_better(done):
    scores = [schedule.score for schedule in done.result.schedules.values()]
    assert scores[-1] < scores[0]


def test_more_cases_than_weights_are_fitted_on(done):
    """Their final weights are fitted on all of them, which is counted too."""
    cases = [1, 2, 3, 4, 5, 6]
    run = Run(replace(SETTINGS, budgets=[5], trials=2), cases)
    rollouts = Rollouts(MixtureGenerator(), cases, run.result.trajectories)
    for schedule in everything(run.result):
        assert schedule.weights == rollouts.run(schedule.compute_steps)[1]
    assert sum(run.result.evaluations.values()) * 6 == pytest.approx(run.evaluations)


def test_a_single_case_and_a_single_budget_are_enough():
    run = Run(replace(SETTINGS, budgets=[6], trials=2), cases=[1])
    assert list(run.result.schedules) == [6] and sum(run.result.evaluations.values()) == run.evaluations


# -- what can go wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budgets": [4, 21]}, "budget is 21, .*1 to the 20"),
        ({"budgets": [0]}, "budget is 0, "),
        ({"budgets": [4.5]}, "budget is 4.5, "),
        ({"reference_budget": 25}, "reference budget is 25, "),
        ({"anchor_budget": 0}, "anchor budget is 0, "),
        ({"anchor_budget": 7}, "anchor's budget 7 must be below the reference's budget 7"),
        ({"anchor_budget": 9}, "anchor's budget 9 must be below"),
        ({"law": "cubic"}, 'law is "cubic"'),
        ({"metric": "fid"}, 'metric is "fid"'),
        ({"trials": 0}, "trials is 0"),
        ({"gamma": 0.5}, "gamma is 0.5"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_any_evaluation(change, message):
    counted = Counted(MixtureGenerator())
    with pytest.raises(OTCacheError, match=message):
        calibrate(counted, CASES, SIGMAS, replace(SETTINGS, **change))
    assert counted.evaluations == 0


def test_default_settings_fit_fifty_steps_but_not_twenty():
    Settings().check(50)
    with pytest.raises(OTCacheError, match="budget is 21"):
        Settings().check(20)


def test_an_empty_calibration_set_is_our_error():
    for run, options in ((calibrate, [SETTINGS]), (record_cases, [])):
        with pytest.raises(OTCacheError, match="calibration set is empty"):
            run(MixtureGenerator(), [], SIGMAS, *options)


@pytest.mark.parametrize("sigmas", [SIGMAS[::-1], np.append(SIGMAS[:-1], SIGMAS[-2]), np.append(SIGMAS[:-1], np.nan)])
def test_a_grid_that_does_not_fall_is_our_error(sigmas):
    counted = Counted(MixtureGenerator())
    with pytest.raises(OTCacheError, match="sigmas"):
        calibrate(counted, CASES, sigmas, SETTINGS)
    assert counted.evaluations == 0


class Broken(MixtureGenerator):
    """Not a number from the given evaluation on."""

    def __init__(self, after: int):
        super().__init__()
        self.after = after

    def velocity(self, x, sigma, cases):
        d = super().velocity(x, sigma, cases)
        return d * torch.nan if self.evaluations > self.after else d


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("after", [0, 30, 60, 75, 100])
def test_a_generator_that_is_not_finite_is_our_error_in_every_stage(after):
    """While recording, in the run that measures growth, for the reference and in the search."""
    with pytest.raises(OTCacheError, match="not (a )?finite") as error:
        calibrate(Broken(after), CASES, SIGMAS, SETTINGS)
    assert "\n" not in str(error.value)


class Stop(Exception):
    pass


@pytest.mark.parametrize(("stage", "at"), [("record", 2), ("search", 3), ("guard", 1)])
def test_raising_in_progress_interrupts_and_a_second_call_goes_on(done, tmp_path, stage, at):
    settings, told = replace(SETTINGS, storage=str(tmp_path / "study.db")), []

    def stop(*news):
        told.append(news[:2])
        if news[:2] == (stage, at):
            raise Stop

    with pytest.raises(Stop):
        calibrate(MixtureGenerator(), CASES, SIGMAS, settings, stop)
    assert told[-1] == (stage, at)
    resumed = Run(settings)
    finished = {"record": 0, "search": 3, "guard": 6}[stage]
    assert [done for name, done, *_ in resumed.told if name == "search"] == list(range(finished + 1, 7))
    assert everything(resumed.result) == everything(done.result)


# -- its parts -----------------------------------------------------------------------------------------------


def test_growth_is_measured_by_one_held_run_of_half_the_steps(done):
    counted = Counted(MixtureGenerator())
    kappa = measure_growth(counted, CASES[:2], done.result.trajectories[:2])
    steps = uniform_steps(10, STEPS)
    assert kappa.shape == (STEPS,) and np.isfinite(kappa).all() and kappa.any()
    assert counted.evaluations == 2 * sum(step != k for k, step in enumerate(steps))


def test_graphs_answer_every_budget_without_the_model(done):
    paths, costs = graph_paths(recorded(done.result.trajectories), np.zeros(STEPS), [3, 6])
    assert costs.shape == (STEPS, STEPS, STEPS + 1) and set(paths) == set(done.result.paths)
    for by_budget in paths.values():
        assert {budget: len(path) for budget, path in by_budget.items()} == {3: 3, 6: 6}
