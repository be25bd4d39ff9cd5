"""What people are told of a calibration while it runs, on a clock that only evaluations and judged pictures move."""

from dataclasses import replace

import numpy as np
import pytest
from mixture import MixtureGenerator, linear_sigmas

from otcache_core.calibration.forecast import WORDS, Forecast, in_words, observing, preparing
from otcache_core.calibration.metrics import LATENT
from otcache_core.calibration.pipeline import Settings, prepare, reference_schedule
from otcache_core.calibration.recording import analyse
from otcache_core.sampling.rollout import Counted

STEPS, CASES, BUDGETS = 50, [1, 2], range(8, 16)
SIGMAS = linear_sigmas(STEPS, 3.0)
SETTINGS = Settings(budgets=BUDGETS, reference_budget=15, anchor_budget=8, trials=30)
ENTRY = 0.01  # seconds of what needs no model, so that time never stands still


class Slow(MixtureGenerator):
    """Its evaluations and pictures take seconds of a clock of its own."""

    def __init__(self, evaluation=1.0, picture=0.1):
        super().__init__()
        self.now, self._evaluation, self._picture = 0.0, evaluation, picture

    def velocity(self, x, sigma, cases):
        self.now += self._evaluation * len(cases)
        return super().velocity(x, sigma, cases)

    def decode(self, x):
        self.now += self._picture * len(x)
        return super().decode(x)


class Told:
    """What a forecast said at every report and evaluation: (time, fraction, seconds left, stage, done, words)."""

    def __init__(self, generator, stages, monkeypatch, stop=None):
        monkeypatch.setattr("otcache_core.sampling.generator.time.perf_counter", lambda: generator.now)
        self.generator, self.said, self._stop = generator, [], stop
        self.forecast = Forecast(stages, lambda: generator.now)
        self.counted = Counted(generator, lambda _: self._note())
        self.forecast.follow(self.counted)
        self._report = (next(iter(stages)), 0, 1, "")

    def __call__(self, *report):
        self.generator.now += ENTRY
        self._report = report
        self.forecast(*report)
        self._note()
        if report[:2] == self._stop:
            raise KeyboardInterrupt

    def _note(self):
        stage, done, *_ = self._report
        said = self.generator.now, self.forecast.fraction, self.forecast.seconds, stage, done, in_words(*self._report)
        self.said.append(said)

    def check(self, wrong, after=0.1):
        """Steady, complete, and honest by the factor `wrong`, or 5 % of all, once the share `after` of the time has passed."""
        times, fractions, *_ = zip(*self.said, strict=True)
        assert list(fractions) == sorted(fractions) and fractions[0] < 0.1 and fractions[-1] == pytest.approx(1.0, abs=1e-6)
        whole = times[-1] - times[0]
        for now, fraction, seconds, *_ in self.said:
            share = (now - times[0]) / whole
            assert abs(fraction - share) < 0.2, (share, fraction)
            if after < share < 0.9:
                left, slack = (1 - share) * whole, 0.05 * whole
                assert left / wrong - slack < seconds < left * wrong + slack, (share, seconds, whole)


@pytest.fixture(scope="module")
def observed():
    return analyse(MixtureGenerator(), CASES, SIGMAS, most=15)


@pytest.fixture(scope="module")
def reference(observed):
    return reference_schedule(MixtureGenerator(), observed, SETTINGS)


def test_recording_is_told_from_the_first_evaluation_to_the_end(monkeypatch):
    told = Told(Slow(), observing(len(CASES), STEPS, 15, 15), monkeypatch)
    observed = analyse(told.counted, CASES, SIGMAS, progress=told, most=15)
    reference_schedule(told.counted, observed, SETTINGS, told)
    told.check(wrong=1.4, after=0.02)
    stages = list(dict.fromkeys(stage for *_, stage, _, _ in told.said))
    assert stages == ["record", "error growth", "graphs", "reference"], "no stage is silent"
    spent = np.diff([now for now, *_ in told.said])
    assert spent.max() < 0.05 * told.generator.now, "nothing is silent for long"


@pytest.mark.parametrize("picture", [0.1, 30.0], ids=["judging is quick", "judging takes most of the time"])
@pytest.mark.parametrize("trials", [10, 30])
def test_preparing_is_told_with_what_judging_costs(monkeypatch, observed, reference, picture, trials):
    settings = replace(SETTINGS, trials=trials)
    told = Told(Slow(picture=picture), preparing(len(CASES), STEPS, settings), monkeypatch)
    prepare(told.counted, observed, reference, settings, told)
    told.check(wrong=1.8)
    stages = list(dict.fromkeys(stage for *_, stage, _, _ in told.said))
    assert stages == ["pictures", "search", "guard", "final weights"]


def test_preparing_without_a_decoder_is_told_too(monkeypatch, observed, reference):
    settings = replace(SETTINGS, metric=LATENT)
    told = Told(Slow(), preparing(len(CASES), STEPS, settings), monkeypatch)
    prepare(told.counted, observed, reference, settings, told)
    told.check(wrong=1.8)
    stages = list(dict.fromkeys(stage for *_, stage, _, _ in told.said))
    assert stages == ["search", "guard", "final weights"] and not told.counted.decoded


def resumed_at(stop, settings, monkeypatch, observed, reference) -> tuple[Told, Told]:
    """What was said until an interruption after `stop`, and by the session that went on."""
    stages = preparing(len(CASES), STEPS, settings)
    first = Told(Slow(), stages, monkeypatch, stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(first.counted, observed, reference, settings, first)
    again = Told(Slow(), stages, monkeypatch)
    prepare(again.counted, observed, reference, settings, again)
    return first, again


def test_what_an_earlier_session_did_counts_as_done(monkeypatch, observed, reference, tmp_path):
    settings = replace(SETTINGS, storage=str(tmp_path / "study.db"), memory=str(tmp_path), identity="mixture")
    first, again = resumed_at(("guard", 3), settings, monkeypatch, observed, reference)
    resumed = [said for said in again.said if said[3:5] == ("search", SETTINGS.trials)]
    assert resumed and resumed[0][1] > 0.2, "the search is done, and shown so at once"
    begun = next(fraction for _, fraction, _, stage, done, _ in again.said if (stage, done) == ("guard", 3))
    assert begun == pytest.approx(first.said[-1][1], abs=0.1)
    now, _, seconds, *_ = next(said for said in again.said if said[3:5] == ("guard", 5))
    assert seconds == pytest.approx(again.generator.now - now, rel=0.6)


def test_a_resumed_search_goes_on_at_its_trial(monkeypatch, observed, reference, tmp_path):
    settings = replace(SETTINGS, storage=str(tmp_path / "study.db"))
    first, again = resumed_at(("search", 12), settings, monkeypatch, observed, reference)
    told = [words for *_, stage, _, words in again.said if stage == "search"]
    assert told[1].startswith("searching the smallest budget, trial 12 of 30, best ")
    fractions = [fraction for _, fraction, _, stage, done, _ in again.said if (stage, done) == ("search", 12)]
    assert fractions[0] == pytest.approx(first.said[-1][1], abs=0.1)


def test_a_recording_that_goes_on_is_timed_by_what_it_makes(monkeypatch, tmp_path):
    analyse(MixtureGenerator(), CASES[:1], SIGMAS, folder=tmp_path)
    told = Told(Slow(), observing(len(CASES), STEPS, 15, 15), monkeypatch)
    observed = analyse(told.counted, CASES, SIGMAS, progress=told, folder=tmp_path, most=15)
    reference_schedule(told.counted, observed, SETTINGS, told)
    now, fraction, seconds, *_ = next(said for said in told.said if said[3:5] == ("record", 1))
    assert fraction > 0.2 and seconds == pytest.approx(told.generator.now - now, rel=0.3)


def test_nothing_is_promised_before_an_evaluation_was_timed():
    forecast = Forecast(preparing(2, STEPS, SETTINGS), lambda: 0.0)
    assert forecast.seconds is None and forecast.fraction == 0
    forecast.follow(Counted(MixtureGenerator()), pace=2.0)
    assert forecast.seconds > 2.0 * 8 * SETTINGS.trials


def test_every_stage_has_words():
    planned = {*observing(2, STEPS, 15, 15, taught=1), *preparing(2, STEPS, SETTINGS)}
    assert planned == set(WORDS)
    for stage in planned:
        assert not any(jargon in in_words(stage, 1, 2) for jargon in ("guard", "record ", "B =", "sweep"))
