import weakref

import numpy as np
import pytest
import torch
from mixture import MixtureGenerator, linear_sigmas

from otcache_core.calibration.metrics import DEFAULT, distance, geometric_mean, psnr
from otcache_core.calibration.scoring import Scorer
from otcache_core.errors import OTCacheError
from otcache_core.sampling.rollout import Counted, Rollouts, record
from otcache_core.sampling.trajectory import TrajectoryStore
from otcache_core.schedules.schedule import Predictor


def real(recording, generator=None, cases=None, **options) -> Scorer:
    count = len(recording.cases) if cases is None else cases
    return Scorer(
        generator or recording.generator, recording.cases[:count], recording.trajectories[:count], **options
    )


@pytest.mark.parametrize(("cases", "fitted"), [(1, 1), (2, 2), (3, 2), (4, 2), (6, 3), (8, 4), (12, 4)])
def test_half_of_the_cases_are_fitted_on_within_limits(cases, fitted):
    generator, seeds = MixtureGenerator(), list(range(cases))
    scorer = Scorer(generator, seeds, [record(generator, seed, linear_sigmas(4)) for seed in seeds])
    assert [len(group.cases) for group in scorer.groups] == [fitted, *[1] * (cases - fitted)]
    assert scorer.fits_some == (fitted < cases)


def test_a_score_is_the_geometric_mean_of_distances_from_the_full_pictures(recording):
    path, generator, metric = (0, 2, 5, 9), recording.generator, distance(DEFAULT)
    _, rows = Rollouts(generator, recording.cases[:2], recording.trajectories[:2]).run(path)
    values, decibels = [], []
    for case, run in zip(recording.cases, recording.trajectories, strict=True):
        latents, _ = Rollouts(generator, [case], [run]).run(
            path, rows
        )  # the third case has not been fitted on
        values.extend(metric(generator.decode(latents), generator.decode(run.x[-1:])))
        decibels.extend(psnr(generator.decode(latents), generator.decode(run.x[-1:])))
    scorer = real(recording, fit_cases=2)
    assert np.allclose(np.concatenate(list(scorer.distances(path))), values, rtol=1e-5)
    assert scorer.score(path) == pytest.approx(geometric_mean(values), rel=1e-5)
    assert scorer.psnr(path) == pytest.approx(np.mean(decibels), rel=1e-5)
    before = Scorer(generator, recording.cases, recording.trajectories, fit_cases=2)  # with a file of before
    before.log.put([path, 0], scorer.log.get([path, 0])[:2])
    assert before.score(path) == scorer.score(path) and before.psnr(path) is None


def test_cases_are_run_group_by_group_and_known_ones_not_again(recording):
    counted = Counted(recording.generator)
    scorer = real(recording, counted, fit_cases=1)
    distances = scorer.distances((0, 3, 7))
    first = next(distances)
    assert counted.evaluations == 2 and first.shape == (1,)
    again = list(scorer.distances((0, 3, 7)))  # goes on where the other stopped
    assert counted.evaluations == 6 and len(again) == 3 and again[0] == first
    assert np.array_equal(np.concatenate(list(scorer.distances((0, 3, 7)))), np.concatenate(again))
    scorer.score((0, 3, 7))
    assert counted.evaluations == 6


def test_iterations_that_take_turns_give_what_one_alone_gives(recording):
    counted, path = Counted(recording.generator), (0, 3, 7)
    alone = list(real(recording, fit_cases=1).distances(path))
    scorer = real(recording, counted, fit_cases=1)
    first, second = scorer.distances(path), scorer.distances(path)
    turns = [next(first), next(second), next(second), next(first), next(first), next(second)]
    assert all(np.array_equal(turns[i], alone[group]) for i, group in enumerate([0, 0, 1, 1, 2, 2]))
    assert [*first] == [*second] == [] and np.array_equal(list(scorer.distances(path)), alone)
    assert counted.evaluations == 6  # nothing is run twice


def test_a_candidate_that_waits_holds_no_pictures(recording, monkeypatch):
    scorer, alive = real(recording, fit_cases=1), []
    decode = scorer.generator.decode

    def watched(latents):
        pictures = decode(latents)
        alive.append(weakref.ref(pictures))
        return pictures

    monkeypatch.setattr(scorer.generator, "decode", watched)
    waiting = scorer.distances((0, 3, 7))
    next(waiting)
    next(waiting)
    assert len(alive) == 2 and all(pictures() is None for pictures in alive)


@pytest.mark.parametrize(("fit_cases", "extra"), [(2, 2 * 3), (3, 0)])
def test_final_rows_are_fitted_on_all_cases_and_leave_the_score_alone(recording, fit_cases, extra):
    counted, path = Counted(recording.generator), (0, 3, 7)
    scorer = real(recording, counted, fit_cases=fit_cases)
    score, before = scorer.score(path), counted.evaluations
    assert scorer.final_rows(path) == Rollouts(recording.generator, recording.cases, recording.trajectories).run(path)[1]
    assert counted.evaluations == before + extra
    assert scorer.score(path) == score and counted.evaluations == before + extra


@pytest.mark.parametrize("fit_cases", [1, 2, 3, 99])
def test_every_case_is_scored_once_whatever_the_number_of_fit_cases(recording, fit_cases):
    scorer = real(recording, fit_cases=fit_cases)
    assert [case for group in scorer.groups for case in group.cases] == recording.cases
    assert len(np.concatenate(list(scorer.distances((0, 4))))) == 3


@pytest.mark.parametrize("kind", ["hold", "linear", "fitted"])
def test_more_steps_and_the_full_budget_are_scored_sensibly(recording, kind):
    scorer = real(recording, predictor=Predictor(kind=kind))
    assert scorer.score(tuple(range(12))) < 1e-6 < scorer.score((0, 2, 4, 6, 8, 10)) < scorer.score((0,))


def test_choose_takes_the_best_candidate(recording):
    scorer = real(recording)
    candidates = [(0, 3, 6, 9), (0, 1, 2, 3), (0, 2, 5, 9), (0, 3, 6, 9), (0, 9, 10, 11)]
    winner, score = scorer.choose(candidates, margin=1e9)
    assert score == min(map(scorer.score, candidates)) == scorer.score(winner) and winner in candidates


@pytest.mark.parametrize(("margin", "winner"), [(0.0, "steady"), (0.5, "late"), (2.0, "later")])
def test_choose_keeps_candidates_within_the_margin(recording, monkeypatch, margin, winner):
    scorer = real(recording, fit_cases=1)
    table = {"steady": [0.1, 0.1, 0.1], "late": [0.12, 0.01, 0.01], "later": [0.2, 1e-3, 1e-3]}
    monkeypatch.setattr(scorer, "distances", lambda steps: iter([np.array([v]) for v in table[steps]]))
    assert scorer.choose(list(table), margin) == (winner, pytest.approx(geometric_mean(table[winner])))


@pytest.mark.parametrize(("first", "runs"), [(0.105, 3), (0.115, 1)])
def test_by_default_choose_drops_what_is_a_tenth_worse_after_one_case(recording, monkeypatch, first, runs):
    scorer, asked = real(recording, fit_cases=1), []
    table = {"leader": [0.1, 0.1, 0.1], "other": [first, 0.1, 0.1]}

    def distances(steps):
        for value in table[steps]:
            asked.append(steps)
            yield np.array([value])

    monkeypatch.setattr(scorer, "distances", distances)
    assert scorer.choose(list(table))[0] == "leader" and asked.count("other") == runs


def test_choose_never_drops_what_it_knows_in_full(recording):
    """It may be overtaken on the first cases only."""
    scorer = real(recording, fit_cases=1)
    known, leader = (0, 3, 6, 9), (0, 2, 5, 9)
    scorer._seen[known] = [np.array([v]) for v in (0.5, 0.1, 0.1)]
    scorer._seen[leader] = [np.array([0.1]), np.array([0.9])]
    scorer.groups[2].run = lambda steps, rows: (recording.generator.noise(9)[None], ())
    assert scorer.choose([known, leader])[0] == known


def test_choose_drops_hopeless_candidates_early(recording):
    counted = Counted(recording.generator)
    scorer = real(recording, counted, fit_cases=1)
    good, hopeless = (0, 2, 5, 9), (0, 9, 10, 11)
    assert scorer.choose([good, hopeless])[0] == good
    assert counted.evaluations == 3 * 3 + 3  # all cases of the good one, only the first of the other


@pytest.mark.parametrize(("cases", "fit_cases"), [(0, 3), (3, 0)])
def test_a_scorer_without_cases_is_our_error(recording, cases, fit_cases):
    with pytest.raises(OTCacheError):
        real(recording, cases=cases, fit_cases=fit_cases)


def test_a_scorer_takes_spooled_trajectories(recording):
    spool = TrajectoryStore(max_bytes=0)
    for run in recording.trajectories:
        spool.append(run)
    spooled = Scorer(recording.generator, recording.cases, spool, fit_cases=2)
    assert spooled.score((0, 4, 8)) == real(recording, fit_cases=2).score((0, 4, 8))


def test_choosing_among_diverging_candidates_is_our_error(recording):
    scorer = real(recording, predictor=Predictor(kind="hold"))
    for group in scorer.groups:
        group.generator = Counted(recording.generator)
        group.generator.velocity = lambda x, sigma, cases: x * torch.nan
    with pytest.raises(OTCacheError):
        scorer.choose([(0, 3, 6), (0, 4, 8)])


class Swapping(MixtureGenerator):
    """Its decoder has no room beside its model; `moves` counts how often they change places."""

    def __init__(self, swaps=True):
        super().__init__()
        self.swaps, self.moves, self.there = swaps, 0, "model"

    def _needs(self, which):
        self.moves, self.there = self.moves + (which != self.there), which

    def velocity(self, x, sigma, cases):
        self._needs("model")
        return super().velocity(x, sigma, cases)

    def decode(self, x):
        self._needs("decoder")
        return super().decode(x)


CANDIDATES = [(0, 3, 6, 9), (0, 2, 5, 9), (0, 1, 4, 8), (0, 2, 6, 10)]


def test_candidates_are_sampled_before_they_are_decoded_where_model_and_decoder_change_places(recording):
    moves, found = {}, {}
    for swaps in (False, True):
        generator = Swapping(swaps)
        scorer = real(recording, Counted(generator), fit_cases=1)
        found[swaps] = [*scorer.choose(CANDIDATES, margin=1e9), scorer.generator.evaluations, scorer.generator.decoded]
        moves[swaps] = generator.moves
    assert found[True] == found[False] and found[True][2:] == [30, 3 + 4 * 3]
    # To the decoder and back once for each group of cases, and once for the full runs'; otherwise for each candidate too.
    assert moves == {False: 1 + 2 * 4 * 3, True: 1 + 2 * 3}


def test_what_is_known_or_diverges_is_not_sampled_again_for_it(recording):
    generator = Counted(Swapping())
    scorer = real(recording, generator, fit_cases=1)
    scorer.score(CANDIDATES[0])
    before = generator.evaluations
    run = scorer.groups[0].run
    scorer.groups[0].run = lambda steps, rows: run(steps, rows) if steps != CANDIDATES[1] else run((), rows)
    scorer.judge_together(CANDIDATES[:3], range(3))
    assert generator.evaluations - before == 2 * 3 and generator.decoded == 3 + 3 + 3
    with pytest.raises(OTCacheError):
        list(scorer.distances(CANDIDATES[1]))


@pytest.mark.parametrize("room", [0, 1])
def test_latents_wait_within_their_limit(recording, monkeypatch, room):
    generator = Swapping()
    scorer = real(recording, generator, fit_cases=1)
    monkeypatch.setattr(scorer._judge, "room", room * 3 * 16 * 16 * 8)  # float64
    scorer.judge_together(CANDIDATES, [0])
    assert generator.moves == 1 + 2 * (4 if room == 0 else 2)
    assert [len(list(scorer.distances(path))) for path in CANDIDATES] == [3] * 4
