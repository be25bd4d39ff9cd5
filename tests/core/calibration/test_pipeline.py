from dataclasses import replace

import numpy as np
import pytest
import torch
from mixture import Broken, MixtureGenerator, linear_sigmas

from otcache_core.calibration.error_growth import output_gains
from otcache_core.calibration.graph import peak_suppressed_paths
from otcache_core.calibration.guard import GUARDED, STATE_AWARE
from otcache_core.calibration.inner_products import recorded
from otcache_core.calibration.metrics import DEFAULT, geometric_mean
from otcache_core.calibration.pipeline import Latents, Settings, calibrate, prepare, reference_schedule
from otcache_core.calibration.recording import analyse, graph_paths, measure_growth, record_cases
from otcache_core.calibration.scoring import MARGIN, Scorer
from otcache_core.errors import OTCacheError
from otcache_core.sampling.rollout import FITTED, Counted, Rollouts, sample
from otcache_core.sampling.solvers import euler
from otcache_core.schedules.schedule import load_schedule, parse_schedule, uniform_steps
from otcache_core.schedules.transport import interpolate

STEPS, SHIFT, CASES, BUDGETS = 20, 3.0, [1, 2, 3], range(4, 8)
SIGMAS = linear_sigmas(STEPS, SHIFT)
SETTINGS = Settings(budgets=BUDGETS, reference_budget=7, anchor_budget=4, trials=6, model="mixture")


class Run:
    """One calibration, what it reported and what it cost."""

    def __init__(self, settings=SETTINGS, cases=CASES, generator=None):
        self.told, counted = [], Counted(generator or MixtureGenerator())
        self.result = calibrate(counted, cases, SIGMAS, settings, lambda *news: self.told.append(news))
        self.evaluations = counted.evaluations


@pytest.fixture(scope="module")
def done() -> Run:
    return Run()


@pytest.fixture(scope="module")
def scorer(done) -> Scorer:
    return Scorer(MixtureGenerator(), CASES, done.result.observed.trajectories)


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
        metric = "latent rmse" if schedule is done.result.reference else DEFAULT
        assert (schedule.model, schedule.metric, schedule.cases) == ("mixture", metric, ("1", "2", "3"))
        assert parse_schedule(schedule.model_dump_json()) == schedule
        schedule.save(tmp_path / "a.json")
        assert load_schedule(tmp_path / "a.json") == schedule
    assert done.result.anchor.prepared == tuple(done.result.schedules.values())


def test_the_guarded_schedule_is_never_worse_than_the_geodesic_nor_any_other_candidate(done, scorer):
    for budget, schedule in done.result.schedules.items():
        assert schedule.score == pytest.approx(scorer.score(schedule.compute_steps), rel=1e-9)
        assert schedule.score <= scorer.score(done.result.geodesic[budget]) * (1 + 1e-9)
        tried = done.result.candidates[budget]
        # Up to the margin by which a candidate may look worse on the first cases and be dropped in error.
        assert schedule.score <= min(scorer.score(candidate.steps) for candidate in tried) * (1 + MARGIN)


def test_schedules_say_how_many_decibels_their_pictures_have(done, scorer):
    for schedule in (done.result.anchor, *done.result.schedules.values()):
        assert schedule.psnr == pytest.approx(scorer.psnr(schedule.compute_steps)) and 0 < schedule.psnr < 120
    assert done.result.reference.psnr is None  # its latents were judged


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
    rollouts = Rollouts(MixtureGenerator(), CASES, done.result.observed.trajectories)
    for schedule in everything(done.result):
        assert schedule.weights == rollouts.run(schedule.compute_steps)[1]


def test_the_evaluations_of_all_stages_are_all_there_are(done):
    spent = done.result.evaluations
    assert list(spent) == ["record", "error growth", "reference", "search", "guard", "final weights"]
    assert all(count >= 0 for count in spent.values()) and spent["record"] == STEPS
    assert sum(spent.values()) * len(CASES) == pytest.approx(done.evaluations)


def test_progress_is_told_before_and_after_every_unit_of_work(done):
    units = {"record": 3, "error growth": 1, "graphs": 2 * STEPS + max(BUDGETS), "reference": 1, "pictures": 1, "search": 6,
             "guard": 8, "final weights": 5}  # fmt: skip
    told = [(stage, done, total) for stage, total in units.items() for done in range(total + 1)]
    assert [news[:3] for news in done.told] == told, "each stage from 0, when it begins, to its end"
    assert all(isinstance(note, str) for *_, note in done.told)


@pytest.mark.parametrize("done", [1, STEPS + 1, 3 * STEPS])
def test_the_graphs_can_be_interrupted(done):
    def progress(stage, so_far, total, note):
        if (stage, so_far) == ("graphs", done):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analyse(MixtureGenerator(), CASES[:1], SIGMAS, progress=progress, most=STEPS)


def test_calibrations_repeat_exactly(done):
    again = Run()
    assert everything(again.result) == everything(done.result) and again.evaluations == done.evaluations


def test_recordings_are_the_full_runs(done):
    assert len(done.result.observed.trajectories) == len(CASES)
    full = euler(MixtureGenerator(), CASES, SIGMAS)
    for run, latent in zip(done.result.observed.trajectories, full, strict=True):
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
    rollouts = Rollouts(MixtureGenerator(), cases, run.result.observed.trajectories)
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
        ({"metric": "fid"}, 'metric is "fid"'),
        ({"trials": 0}, "trials is 0"),
        ({"gamma": 0.5}, "gamma is 0.5"),
        ({"seed": -1}, "seed is -1"),
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
    finished = {"record": [], "search": [3], "guard": [6]}[stage]  # what was found is told before anything is tried
    searched = [done for name, done, *_ in resumed.told if name == "search"]
    assert searched == [0, *finished, *range(max(finished, default=0) + 1, 7)]
    assert everything(resumed.result) == everything(done.result)


# -- the allowance -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cases", [[1], [1, 2], [1, 2, 3, 4, 5, 6]])
@pytest.mark.parametrize("allowance", [5.0, 5.9])
def test_a_calibration_keeps_within_its_allowance(cases, allowance):
    free = Run(cases=cases)
    assert free.evaluations > allowance * STEPS * len(cases), "the allowance is no limit here"
    run = Run(replace(SETTINGS, allowance=allowance), cases)
    assert run.evaluations <= allowance * STEPS * len(cases)
    assert list(run.result.schedules) == list(BUDGETS)


def test_without_an_allowance_the_geodesic_is_all_that_is_tried():
    run = Run(replace(SETTINGS, allowance=0.0))
    for budget, tried in run.result.candidates.items():
        assert [(candidate.steps, candidate.kept) for candidate in tried] == [(run.result.geodesic[budget], True)]


def test_a_reference_made_elsewhere_is_retimed(done):
    observed = analyse(MixtureGenerator(), CASES, SIGMAS)
    other = analyse(MixtureGenerator(), CASES, linear_sigmas(30, SHIFT))
    reference = reference_schedule(MixtureGenerator(), other, replace(SETTINGS, reference_budget=9))
    result = prepare(MixtureGenerator(), observed, reference, SETTINGS)
    assert result.reference.sigmas == tuple(SIGMAS.tolist()) and result.reference.budget == 9
    assert list(result.schedules) == list(BUDGETS)


def test_stages_one_by_one_are_the_calibration(done):
    generator = MixtureGenerator()
    observed = analyse(generator, CASES, SIGMAS)
    reference = reference_schedule(generator, observed, SETTINGS)
    result = prepare(generator, observed, reference, SETTINGS)
    assert everything(result) == everything(done.result) and result.evaluations == done.result.evaluations


def test_the_reference_is_the_best_graph_path_by_its_latents(done):
    scorer = Scorer(Latents(MixtureGenerator()), CASES, done.result.observed.trajectories, "rmse")
    tried = [done.result.observed.paths[name][7] for name in (*GUARDED, STATE_AWARE)]
    best, score = scorer.choose(tried)
    assert (done.result.reference.compute_steps, done.result.reference.score) == (best, score)
    assert score <= min(scorer.score(steps) for steps in tried) * 1.2


@pytest.mark.parametrize("at", [1, 5, 8])
def test_a_guard_that_was_interrupted_goes_on_from_its_memory(done, tmp_path, at):
    settings = replace(SETTINGS, storage=str(tmp_path / "study.db"), memory=str(tmp_path / "memory"))

    def stop(stage, number, *rest):
        if (stage, number) == ("guard", at):
            raise Stop

    with pytest.raises(Stop):
        calibrate(MixtureGenerator(), CASES, SIGMAS, settings, stop)
    resumed = Run(settings)
    assert everything(resumed.result) == everything(done.result)
    spent, full = resumed.result.evaluations, done.result.evaluations
    # Early on there is little to remember, and what it shared with the search is computed again.
    assert spent["guard"] < full["guard"] or at == 1
    assert at < 8 or spent["guard"] == 0
    finished = Run(settings)
    assert all(finished.result.evaluations[stage] == 0 for stage in ("error growth", "reference", "guard", "final weights"))
    assert finished.result.evaluations["record"] == 1, "each run that is found is checked with one evaluation"
    assert everything(finished.result) == everything(done.result)


def slightly_changed(factor: float = 1.003) -> MixtureGenerator:
    """Another model of the same class, as after a LoRA at low strength."""
    generator = MixtureGenerator()
    generator.means *= factor
    return generator


def test_a_model_that_was_changed_is_calibrated_as_with_a_fresh_memory(done, tmp_path):
    """And the first model, calibrated again, finds all that it had."""
    settings = replace(SETTINGS, storage=str(tmp_path / "study.db"), memory=str(tmp_path))
    Run(settings)
    changed, fresh = (Run(chosen, generator=slightly_changed()) for chosen in (settings, SETTINGS))
    assert everything(changed.result) == everything(fresh.result) != everything(done.result)
    for generator, first in ((MixtureGenerator(), done), (slightly_changed(), fresh)):
        again = Run(settings, generator=generator)
        assert everything(again.result) == everything(first.result)
        assert all(again.result.evaluations[stage] == 0 for stage in ("search", "guard", "final weights"))


def test_measurements_of_the_same_identity_are_shared_by_machines_that_round_differently(done, tmp_path):
    settings = replace(SETTINGS, storage=str(tmp_path / "study.db"), memory=str(tmp_path), identity="a")
    Run(settings)
    shared = Run(settings, generator=slightly_changed(1 + 1e-5)).result
    assert all(shared.evaluations[stage] == 0 for stage in ("search", "guard", "final weights"))
    other = Run(replace(settings, identity="b"), generator=slightly_changed())
    assert everything(other.result) == everything(Run(generator=slightly_changed()).result)


def test_an_interrupted_recording_finds_what_it_has(done, tmp_path):
    def stop(stage, number, *rest):
        if (stage, number) == ("record", 2):
            raise Stop

    with pytest.raises(Stop):
        record_cases(MixtureGenerator(), CASES, SIGMAS, stop, tmp_path)
    counted = Counted(MixtureGenerator())
    found = record_cases(counted, CASES, SIGMAS, folder=tmp_path)
    assert counted.evaluations == STEPS + 2  # each run that is found is checked with one evaluation
    for a, b in zip(found, done.result.observed.trajectories, strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.d, b.d)


def test_recordings_of_another_model_are_made_anew(tmp_path):
    record_cases(MixtureGenerator(seed=1), CASES, SIGMAS, folder=tmp_path)
    found = record_cases(MixtureGenerator(), CASES, SIGMAS, folder=tmp_path)
    for a, b in zip(found, record_cases(MixtureGenerator(), CASES, SIGMAS), strict=True):
        assert torch.equal(a.d, b.d)


@pytest.mark.parametrize(("factor", "found"), [(1 + 1e-6, True), (1.003, False)])
def test_a_recording_is_found_by_its_own_model_but_for_rounding(tmp_path, factor, found):
    record_cases(MixtureGenerator(), CASES, SIGMAS, folder=tmp_path)
    counted = Counted(slightly_changed(factor))
    record_cases(counted, CASES, SIGMAS, folder=tmp_path)
    assert counted.evaluations == len(CASES) * (1 if found else STEPS + 1)


# -- its parts -----------------------------------------------------------------------------------------------


def test_growth_is_measured_by_one_held_run_of_half_the_steps(done):
    counted = Counted(MixtureGenerator())
    kappa = measure_growth(counted, CASES[:2], done.result.observed.trajectories[:2])
    steps = uniform_steps(10, STEPS)
    assert kappa.shape == (STEPS,) and np.isfinite(kappa).all() and kappa.any()
    assert counted.evaluations == 2 * sum(step != k for k, step in enumerate(steps))


def test_graphs_answer_every_budget_without_the_model(done):
    seen = recorded(done.result.observed.trajectories)
    paths, costs = graph_paths(seen, np.zeros(STEPS), 6)
    assert len(costs) == STEPS and set(paths) == set(done.result.observed.paths)
    for by_budget in paths.values():
        assert {budget: len(path) for budget, path in by_budget.items()} == {budget: budget for budget in range(1, 7)}


def test_one_graph_weighs_edges_by_the_root_of_their_errors_growth(done):
    """The root: between ignoring that errors grow and trusting one number a step for a whole Jacobian."""
    seen, kappa = recorded(done.result.observed.trajectories), np.linspace(-2, 6, STEPS)
    paths, costs = graph_paths(seen, kappa, 8)
    gains = np.sqrt(output_gains(seen.sigmas, kappa))
    assert paths["graph, fitted, gains"] == peak_suppressed_paths(costs, range(1, 9), 4.0, gains)
    assert paths["graph, fitted, gains"] != peak_suppressed_paths(costs, range(1, 9), 4.0, gains**10)
    assert paths["graph, fitted, gains"] != paths["graph, fitted"]


def test_a_budget_that_was_not_solved_is_when_it_is_asked_for(done):
    seen = recorded(done.result.observed.trajectories)
    few, _ = graph_paths(seen, np.zeros(STEPS), 0)
    all_of_them, _ = graph_paths(seen, np.zeros(STEPS), STEPS)
    for name, by_budget in few.items():
        assert not by_budget and by_budget[5] == all_of_them[name][5] and len(by_budget) == 5
        assert by_budget[STEPS] == tuple(range(STEPS)) and by_budget == all_of_them[name]
        for budget in (0, STEPS + 1):
            with pytest.raises(OTCacheError, match=f"budget is {budget}"):
                _ = by_budget[budget]


def test_only_budgets_that_are_asked_for_are_solved(done):
    """At many steps all of them take the longest."""
    assert {max(by_budget) for by_budget in done.result.observed.paths.values()} == {max(BUDGETS)}
