import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from fake_scorer import FakeScorer, valley
from hypothesis import given, settings
from hypothesis import strategies as st
from mixture import MixtureGenerator, linear_sigmas
from strategies import step_sets

from otcache_core.calibration.scoring import Scorer
from otcache_core.calibration.search import MOVE, local_move, search_steps, step_parameters, suggest_steps
from otcache_core.calibration.study import import_optuna, open_storage, open_study, study_name
from otcache_core.errors import OTCacheError
from otcache_core.sampling.rollout import Counted, record
from otcache_core.schedules.schedule import Predictor

import_optuna()  # quiet logging, as in a real search
STEPS, BUDGET = 20, 5
START, BEST = (0, 4, 8, 12, 16), (0, 3, 7, 12, 15)
FINISHED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


def fake(landscape=None) -> FakeScorer:
    return FakeScorer(STEPS, landscape or valley(BEST))


def real(recording, generator=None, cases=None, **options) -> Scorer:
    count = len(recording.cases) if cases is None else cases
    return Scorer(
        generator or recording.generator, recording.cases[:count], recording.trajectories[:count], **options
    )


def stored(storage, scorer, budget=BUDGET, context=""):
    return open_study(scorer, budget, str(storage), context).get_trials(deepcopy=False)


# -- candidates ----------------------------------------------------------------------------------------------


@given(st.data())
def test_any_parameters_give_distinct_rising_steps(data):
    steps = data.draw(st.integers(2, 30))
    budget = data.draw(st.integers(2, steps))
    parameters = {f"step_{k}": data.draw(st.integers(k, steps - budget + k)) for k in range(1, budget)}
    path = suggest_steps(optuna.trial.FixedTrial(parameters), budget, steps)
    assert len(path) == budget and path[0] == 0 and path[-1] < steps
    assert list(path) == sorted(set(path))


@given(st.data())
def test_every_schedule_can_be_suggested(data):
    steps = data.draw(st.integers(2, 30))
    path = data.draw(step_sets(steps, data.draw(st.integers(2, steps))))
    assert suggest_steps(optuna.trial.FixedTrial(step_parameters(path)), len(path), steps) == path


@given(st.data(), st.integers(0, 2**32 - 1))
@settings(max_examples=200)
def test_a_local_move_shifts_at_most_two_steps_a_little(data, seed):
    steps = data.draw(st.integers(2, 30))
    path = data.draw(step_sets(steps, data.draw(st.integers(2, steps))))
    moved = local_move(path, steps, np.random.default_rng(seed))
    shifts = np.abs(np.subtract(moved, path))
    assert (
        len(moved) == len(path) and moved[0] == 0 and moved[-1] < steps and list(moved) == sorted(set(moved))
    )
    assert np.count_nonzero(shifts) <= 2 and shifts.max() <= 2 * MOVE
    assert all(type(step) is int for step in moved)


def test_a_local_move_never_stays_where_one_step_is_moved_and_prefers_near_places():
    """With one free step only a second shift may undo the first."""
    random, path = np.random.default_rng(0), (0, 10)
    arrived = [local_move(path, 20, random)[1] - 10 for _ in range(2000)]
    counts = {shift: arrived.count(shift) for shift in range(-2 * MOVE, 2 * MOVE + 1)}
    assert counts[0] < 0.2 * len(arrived)
    near, far = counts[1] + counts[-1], counts[MOVE] + counts[-MOVE]
    assert near > 1.5 * far > 0


def test_a_step_without_a_free_place_beside_it_stays():
    assert local_move((0, 1, 2), 3, np.random.default_rng(0)) == (0, 1, 2)


# -- the search itself ---------------------------------------------------------------------------------------


def test_seeded_searches_repeat_exactly_and_seeds_differ():
    scorers = [fake() for _ in range(3)]
    first, second, other = (
        search_steps(scorer, BUDGET, 24, [START], seed=seed)
        for scorer, seed in zip(scorers, (3, 3, 4), strict=True)
    )
    assert first == second and scorers[0].calls == scorers[1].calls
    assert scorers[0].calls != scorers[2].calls and other[1] < fake().score(START)


def test_a_real_search_repeats_exactly_and_reports_the_true_score(recording):
    steps, score = search_steps(real(recording), 4, 10, [(0, 3, 6, 9)])
    assert search_steps(real(recording), 4, 10, [(0, 3, 6, 9)]) == (steps, score)
    assert score == pytest.approx(real(recording).score(steps), rel=1e-9)
    assert score <= real(recording).score((0, 3, 6, 9)) * (1 + 1e-9)


@given(seed=st.integers(0, 2**32 - 1), starts=st.lists(step_sets(STEPS, BUDGET), min_size=1, max_size=4))
@settings(max_examples=15)
def test_the_result_is_never_worse_than_the_best_start(seed, starts):
    def landscape(steps):  # without any structure that a search could use
        return [np.random.default_rng([seed, *steps]).lognormal(0, 0.7, size=6)]

    scorer = fake(landscape)
    steps, score = search_steps(scorer, BUDGET, 8, starts, seed=seed % 1000)
    assert score == pytest.approx(scorer.score(steps), rel=1e-9)
    assert score <= min(map(scorer.score, starts)) * (1 + 1e-9)
    assert scorer.tried[: len(set(starts))] == list(dict.fromkeys(starts))


def test_a_start_that_is_slightly_worse_at_first_and_much_better_later_wins():
    other = (0, 1, 2, 3, 4)

    def landscape(steps):
        later = {START: 0.1, other: 1e-3}.get(steps, 1.0)
        return [{START: [0.1] * 3, other: [0.11] * 3}.get(steps, [1.0] * 3), [later], [later], [later]]

    scorer = fake(landscape)
    assert search_steps(scorer, BUDGET, 6, [START, other])[0] == other


def test_a_valley_is_descended():
    scorer = fake()
    _, score = search_steps(scorer, BUDGET, 60, [START])
    assert score < 0.8 * scorer.score(START)


def test_poor_candidates_are_dropped_before_all_cases_have_run():
    scorer = fake()
    search_steps(scorer, BUDGET, 40, [BEST])
    assert len(scorer.calls) < 40 * 4 and scorer.tried.count(BEST) >= 1


def test_starts_of_another_budget_or_outside_the_grid_are_left_out():
    scorer = fake()
    search_steps(scorer, BUDGET, 1, [(0, 3), (0, 1, 2, 3, STEPS), START])
    assert scorer.tried == [START]


def test_a_search_without_starts_works():
    assert len(search_steps(fake(), BUDGET, 5)[0]) == BUDGET


def test_budget_one_has_one_answer_and_costs_one_score(recording):
    counted = Counted(recording.generator)
    scorer = real(recording, counted)
    assert search_steps(scorer, 1, 50) == ((0,), scorer.score((0,)))
    assert counted.evaluations == 0  # the first evaluation is the recorded one


def test_a_full_budget_has_one_answer_and_no_error(recording):
    counted = Counted(recording.generator)
    steps, score = search_steps(real(recording, counted), 12, 4)
    assert steps == tuple(range(12)) and score < 1e-6
    assert counted.evaluations == 0


@pytest.mark.parametrize("budget", [0, STEPS + 1, 2.5])
def test_a_budget_out_of_range_is_refused(budget):
    with pytest.raises(OTCacheError, match=f"budget is {budget}"):
        search_steps(fake(), budget)


@pytest.mark.parametrize("trials", [0, -3])
def test_a_search_needs_a_trial(trials):
    with pytest.raises(OTCacheError, match=f"trials is {trials}"):
        search_steps(fake(), BUDGET, trials)


def test_progress_is_told_after_every_trial():
    told = []
    _, score = search_steps(fake(), BUDGET, 12, [START], progress=told.append)
    assert [now.done for now in told] == list(range(1, 13)) and {now.wanted for now in told} == {12}
    scores = [now.score for now in told]
    assert scores == sorted(scores, reverse=True) and scores[-1] == score


def test_a_standing_tells_what_every_trial_found():
    told, scorer = [], fake()
    steps, score = search_steps(scorer, BUDGET, 40, [START], progress=told.append)
    groups = [[scorer.landscape(path)[group] for at, group in scorer.calls if at == path] for path in scorer.tried]
    trials = told[-1].trials
    for trial, values in zip(trials, groups, strict=True):
        assert trial.score == pytest.approx(np.exp(np.log(np.concatenate(values)).mean()))
        assert trial.dropped or len(values) % 4 == 0
    assert {trial.dropped for trial in trials} == {False, True}
    assert min(trial.score for trial in trials if not trial.dropped) == pytest.approx(score) == told[-1].score
    assert told[-1].steps == steps and [now.trials for now in told] == [trials[: k + 1] for k in range(40)]


def test_a_standing_has_no_score_for_a_trial_that_diverged(recording):
    told, bad = [], (0, 3, 6, 9)
    scorer = real(recording)
    run = scorer.groups[0].run

    def broken(steps, rows=None):
        if steps == bad:
            raise OTCacheError("not finite")
        return run(steps, rows)

    scorer.groups[0].run = broken
    search_steps(scorer, 4, 3, [(0, 2, 5, 8), bad], progress=told.append)
    first, second, _ = told[-1].trials
    assert not first.dropped and second.dropped and np.isnan(second.score)


def test_duplicates_cost_no_evaluations(recording):
    counted, everything = Counted(recording.generator), Counted(recording.generator)
    # Two free steps of a grid of twelve, next to each other or one apart: few schedules, many trials.
    generator, sigmas = MixtureGenerator(), linear_sigmas(4)
    runs = [record(generator, case, sigmas) for case in recording.cases]
    search_steps(Scorer(counted, recording.cases, runs), 3, 20, [(0, 1, 2)])
    all_of_them = Scorer(everything, recording.cases, runs)
    for path in ((0, 1, 2), (0, 1, 3), (0, 2, 3)):
        all_of_them.score(path)
    assert 0 < counted.evaluations <= everything.evaluations


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_search_whose_every_candidate_diverges_ends_with_our_error():
    scorer = fake()

    def landscape(steps):
        if len(scorer.calls) > 100:
            raise RuntimeError("still searching")
        return [[np.nan] * 3]

    scorer.landscape = landscape
    with pytest.raises(OTCacheError):
        search_steps(scorer, BUDGET, 4)


def test_a_search_that_diverged_begins_anew(tmp_path):
    """With the same storage: once all is repaired it runs, starts included, and until then it says what is wrong."""
    storage, told = str(tmp_path / "a.db"), []
    for _ in range(2):
        with pytest.raises(OTCacheError, match="not finite"):
            search_steps(fake(lambda steps: [[np.nan] * 3]), BUDGET, 4, [BEST], storage=storage)
    found, _ = search_steps(fake(valley(BEST)), BUDGET, 4, [BEST], storage=storage, progress=told.append)
    assert found == BEST and [standing.done for standing in told] == [1, 2, 3, 4]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_single_diverging_candidate_does_not_win_or_stop_the_search():
    scorer = fake(lambda steps: [[np.nan] * 3] if steps == START else valley(BEST)(steps))
    steps, score = search_steps(scorer, BUDGET, 6, [START, BEST])
    assert steps != START and score <= scorer.score(BEST)


# -- storage -------------------------------------------------------------------------------------------------

WORKER = """
import sys, time
from mixture import MixtureGenerator, linear_sigmas
from otcache_core.sampling.rollout import Counted, record
from otcache_core.calibration.scoring import Scorer
from otcache_core.calibration.search import search_steps

storage, after = sys.argv[1], int(sys.argv[2])
finished, armed = 0, False

def tick(_):
    if armed and finished >= after:
        print("inside a trial", flush=True)
        time.sleep(600)

def progress(now):
    global finished
    finished = now.done

generator, sigmas = MixtureGenerator(), linear_sigmas(12, shift=3.0)
runs = [record(generator, case, sigmas) for case in (1, 2, 3, 4)]
scorer = Scorer(Counted(generator, tick), [1, 2, 3, 4], runs)
armed = True
search_steps(scorer, 4, 14, [(0, 3, 6, 9), (0, 2, 4, 6)], storage=storage, progress=progress)
"""


@pytest.mark.parametrize("after", [0, 5])
def test_a_search_killed_inside_a_trial_goes_on_where_it_stopped(tmp_path, after):
    storage = tmp_path / "study.db"
    core = Path(__file__).parents[1]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(core), str(core.parent.parent)]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", WORKER, str(storage), str(after)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as worker:
        line = worker.stdout.readline()
        worker.kill()  # SIGKILL: no handler, no clean-up
    assert line == "inside a trial\n" and worker.returncode != 0

    generator, sigmas = MixtureGenerator(), linear_sigmas(12, shift=3.0)
    scorer = Scorer(generator, [1, 2, 3, 4], [record(generator, case, sigmas) for case in (1, 2, 3, 4)])
    before = stored(storage, scorer, 4)
    finished = [trial for trial in before if trial.state in FINISHED]
    killed = [trial for trial in before if trial.state == optuna.trial.TrialState.RUNNING]
    assert len(finished) == after and len(killed) == 1

    told = []
    starts = [(0, 3, 6, 9), (0, 2, 4, 6)]
    steps, score = search_steps(
        scorer, 4, 14, starts, storage=str(storage), progress=lambda now: told.append(now.done)
    )
    now = stored(storage, scorer, 4)
    assert told == [*([after] if after else []), *range(after + 1, 15)], "where it stands, and each trial"
    assert len([trial for trial in now if trial.state in FINISHED]) == 14
    for trial in finished:  # none lost, none changed
        same = now[trial.number]
        assert (same.state, same.params, same.value) == (trial.state, trial.params, trial.value)
    done = [trial for trial in now if trial.state in FINISHED]
    assert killed[0].params in [trial.params for trial in done[after:]]
    assert all(step_parameters(start) in [trial.params for trial in done] for start in starts)
    complete = [trial.value for trial in done if trial.state == optuna.trial.TrialState.COMPLETE]
    assert score == pytest.approx(np.exp(min(complete)))
    assert score == pytest.approx(scorer.score(steps), rel=1e-9)
    assert score <= min(map(scorer.score, starts)) * (1 + 1e-9)


def test_a_finished_search_is_read_back_without_any_evaluation(tmp_path):
    first = search_steps(fake(), BUDGET, 8, [START], storage=str(tmp_path / "study.db"))
    again = fake()
    assert search_steps(again, BUDGET, 8, [START], storage=str(tmp_path / "study.db")) == first
    assert again.calls == []


def test_more_trials_go_on_with_a_finished_search(tmp_path):
    storage = str(tmp_path / "study.db")
    _, before = search_steps(fake(), BUDGET, 8, [START], storage=storage)
    again = fake()
    _, after = search_steps(again, BUDGET, 12, [START], storage=storage)
    assert len(again.tried) == 4 and after <= before


def test_a_resumed_search_goes_on_as_an_unbroken_one_would(tmp_path):
    unbroken, first, second = fake(), fake(), fake()
    search_steps(unbroken, BUDGET, 16, [START])
    search_steps(first, BUDGET, 8, [START], storage=str(tmp_path / "study.db"))
    search_steps(second, BUDGET, 16, [START], storage=str(tmp_path / "study.db"))
    assert first.tried + second.tried == unbroken.tried


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("at", [0, 1])
def test_a_start_interrupted_by_an_exception_is_tried_again(tmp_path, at):
    starts, scorer = [START, BEST], fake()

    def landscape(steps):
        if steps == starts[at]:
            raise Interrupted
        return valley(BEST)(steps)

    scorer.landscape = landscape
    with pytest.raises(Interrupted):
        search_steps(scorer, BUDGET, 6, starts, storage=str(tmp_path / "study.db"))
    resumed = fake()
    search_steps(resumed, BUDGET, 6, starts, storage=str(tmp_path / "study.db"))
    assert set(starts) <= {*scorer.tried, *resumed.tried}


def test_a_start_killed_before_its_parameters_were_stored_is_tried_again(tmp_path):
    scorer, storage = fake(), str(tmp_path / "study.db")
    study = open_study(scorer, BUDGET, storage)
    study.enqueue_trial(step_parameters(START))
    study.ask()  # RUNNING, nothing suggested: what a kill at this moment leaves
    search_steps(scorer, BUDGET, 4, [START], storage=storage)
    assert START in scorer.tried


def test_two_workers_share_one_study(tmp_path):
    storage, first, second = str(tmp_path / "study.db"), fake(), fake()

    def landscape(steps):
        if len(first.tried) == 3 and not second.calls:
            search_steps(second, BUDGET, 6, [START], storage=storage)
        return valley(BEST)(steps)

    first.landscape = landscape
    search_steps(first, BUDGET, 10, [START], storage=storage)
    states = [trial.state for trial in stored(storage, first)]
    assert sum(state in FINISHED for state in states) >= 10 and optuna.trial.TrialState.FAIL not in states


def test_different_problems_in_one_storage_do_not_mix(tmp_path):
    storage = str(tmp_path / "study.db")
    search_steps(fake(), BUDGET, 4, [START], storage=storage)
    for other, budget, context in ((fake(), BUDGET, "another model"), (fake(valley((0, 1, 2, 3))), 4, "")):
        search_steps(other, budget, 3, storage=storage, context=context)
        assert len(other.tried) == 3
    assert len(stored(storage, fake())) == 4


def test_study_names_differ_for_different_problems_and_only_for_those(recording):
    longer = [record(recording.generator, case, linear_sigmas(13)) for case in recording.cases]
    scorers = [
        real(recording),
        real(recording, cases=2),
        real(recording, metric="rmse"),
        real(recording, predictor=Predictor(kind="linear")),
        real(recording, predictor=Predictor(kind="linear", damping=0.5)),
        real(recording, predictor=Predictor(kind="fitted")),
        real(recording, ridge=1e-2),
        real(recording, fit_cases=1),
        Scorer(recording.generator, recording.cases, longer),
    ]
    names = [study_name(scorer, 4) for scorer in scorers]
    names += [study_name(scorers[0], 5), study_name(scorers[0], 4, "model")]
    names += [study_name(scorers[0], 4, "", "model"), study_name(scorers[0], 4, "", "another")]
    assert len(set(names)) == len(names)
    assert study_name(real(recording, max_bytes=1), 4) == names[0]


def of_model(runs: float) -> FakeScorer:
    """A scorer of a model that nothing but its full runs tells from others."""
    scorer = fake()
    scorer.signature = [[[runs, 2.0]], [[3.0, 4.0]]]
    return scorer


def test_each_model_finds_its_own_study_of_one_storage(tmp_path):
    """A is searched, B, which differs by a percent, and A again; rounding does not make another model of it."""
    storage, first, other = str(tmp_path / "study.db"), of_model(1.0), of_model(1.01)
    for scorer in (first, other):
        search_steps(scorer, BUDGET, 4, [START], storage=storage)
        assert len(scorer.tried) == 4
    for again in (of_model(1.0), of_model(1.01), of_model(1.0001)):
        search_steps(again, BUDGET, 4, [START], storage=storage)
        assert again.calls == []
    assert len(optuna.get_all_study_names(open_storage(storage))) == 2


def test_models_are_told_apart_by_their_identity_where_they_have_one(tmp_path):
    storage = str(tmp_path / "study.db")
    for identity, runs, tried in (("a", 1.0, 4), ("a", 1.5, 0), ("b", 1.0, 4), ("", 1.0, 4)):
        scorer = of_model(runs)
        search_steps(scorer, BUDGET, 4, [START], storage=storage, identity=identity)
        assert len(scorer.tried) == tried


def test_a_study_killed_before_it_knew_its_model_is_taken_up_by_that_model_alone(tmp_path):
    storage, mine = str(tmp_path / "study.db"), of_model(1.0)
    name = open_study(mine, BUDGET).study_name
    optuna.create_study(study_name=name, storage=open_storage(storage))
    assert open_study(of_model(1.01), BUDGET, storage).study_name != name
    assert open_study(mine, BUDGET, storage).study_name == name
    assert open_study(of_model(1.0001), BUDGET, storage).study_name == name


def test_studies_of_version_0_1_in_the_same_file_are_left_alone(tmp_path):
    """They were named by rounded statistics of pictures and do not say which model they are of."""
    storage = str(tmp_path / "study.db")
    old = optuna.create_study(study_name=f"otcache-B{BUDGET}-0123456789abcdef", storage=open_storage(storage))
    trial = optuna.trial.create_trial(
        params=step_parameters(BEST), value=-9.0, user_attrs={"steps": BEST},
        distributions={f"step_{k}": optuna.distributions.IntDistribution(k, STEPS) for k in range(1, BUDGET)},
    )  # fmt: skip
    old.add_trial(trial)
    scorer = fake()
    _, score = search_steps(scorer, BUDGET, 4, [START], storage=storage)
    assert len(scorer.tried) == 4 and score > np.exp(-9.0)
    assert optuna.load_study(study_name=old.study_name, storage=open_storage(storage)).best_value == -9.0


@pytest.mark.parametrize("storage", [None, "study.db"])
def test_a_negative_seed_is_refused(tmp_path, storage):
    with pytest.raises(OTCacheError, match="seed is -1"):
        search_steps(fake(), BUDGET, 4, seed=-1, storage=storage and str(tmp_path / storage))


def test_a_path_and_a_url_name_the_same_storage(tmp_path):
    search_steps(fake(), BUDGET, 3, storage=str(tmp_path / "study.db"))
    again = fake()
    search_steps(again, BUDGET, 3, storage=f"sqlite:///{tmp_path}/study.db")
    assert again.calls == []


def unopenable(tmp_path, what) -> str:
    path = tmp_path / "study.db"
    if what == "folder missing":
        return str(tmp_path / "missing" / "study.db")
    if what == "a folder":
        path.mkdir()
    elif what == "junk":
        path.write_bytes(b"no database" * 1000)
    elif what == "cut short":
        search_steps(fake(), BUDGET, 2, storage=str(path))
        path.write_bytes(path.read_bytes()[:20_000])
    elif what == "another program's database":
        path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    else:
        return what
    return str(path)


@pytest.mark.parametrize(
    "what",
    [
        "folder missing", "a folder", "junk", "cut short", "another program's database", "://", "nosuch://host/db",
        "mysql://user@127.0.0.1:1/db", "postgresql://user@127.0.0.1:1/db",
    ],
)  # fmt: skip
def test_a_storage_that_cannot_be_opened_is_one_line_that_names_it(tmp_path, what):
    storage = unopenable(tmp_path, what)
    with pytest.raises(OTCacheError) as error:
        search_steps(fake(), BUDGET, 2, storage=storage)
    assert "\n" not in str(error.value) and storage in str(error.value)


def test_a_read_only_storage_is_our_error(tmp_path):
    search_steps(fake(valley((0, 1, 2, 3))), 4, 2, storage=str(tmp_path / "study.db"))
    with pytest.raises(OTCacheError):
        search_steps(fake(), BUDGET, 2, storage=f"sqlite:///file:{tmp_path}/study.db?mode=ro&uri=true")


@pytest.mark.parametrize("name", ["a b #ü.db", "a+b@c:d.db", "what?.db", "100%25.db"])
@pytest.mark.skipif(os.name == "nt", reason="not file names there")
def test_a_path_is_taken_as_it_is(tmp_path, name):
    search_steps(fake(), BUDGET, 2, storage=str(tmp_path / name))
    assert os.listdir(tmp_path) == [name]


def test_an_empty_storage_path_is_our_error():
    with pytest.raises(OTCacheError):
        search_steps(fake(), BUDGET, 2, storage="")
