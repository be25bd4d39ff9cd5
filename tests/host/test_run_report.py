"""The line of a finished run: numbers with their nouns, and a measured speed-up that can be true."""

import random
from itertools import product

import pytest


@pytest.fixture(scope="module")
def module(host):
    return host.module("nodes.host.run_report")


def report(module, seconds, computed, **fields):
    given = {"steps": len(computed), "evaluations": sum(computed), "asked": len(computed), "level": "output"}
    return module.Report(**given | fields, seconds=tuple(seconds), computed=tuple(computed))


@pytest.mark.parametrize("seed, kept", list(product(range(20), (2, 3, 10))))
def test_no_measured_speedup_exceeds_the_ideal_one(module, seed, kept):
    """However the clock smears a GPU's work over evaluations: it works on while the next ones are asked for."""
    chance = random.Random(seed)
    computed = [True] * kept + [False] * 40
    chance.shuffle(computed)
    seconds = [chance.lognormvariate(0, 1.5) if made else 0.0 for made in computed]
    told = report(module, seconds, computed)
    assert 1 <= told.measured_speedup <= told.ideal_speedup * (1 + 1e-12)


def test_an_evaluation_that_waited_does_not_make_the_full_run_longer(module):
    computed = [True, False] * 5
    told = report(module, [1, 0, 1, 0, 1, 0, 30, 0, 1, 0], computed)
    assert told.measured_speedup == pytest.approx((34 + 5) / 34)
    assert told.measured_spread > 0.3  # and shows how little is known


def test_the_spread_is_two_standard_errors(module):
    """Of many runs whose evaluations take as long as chance has it, 19 of 20 lie within it."""
    chance, computed, near = random.Random(0), [True, False, False] * 10, 0
    for _ in range(400):
        seconds = [chance.gauss(1.0, 0.1) if made else 0.01 for made in computed]
        told = report(module, seconds, computed)
        truth = (sum(seconds) - 0.2 + 20 * 1.0) / sum(seconds)
        near += abs(told.measured_speedup - truth) <= told.measured_spread
    assert 0.88 <= near / 400 <= 0.99


@pytest.mark.parametrize("seconds, computed", [([1, 0, 1, 0], [1, 0, 1, 0]), ([1, 1], [1, 1]), ([], []), ([0, 0], [1, 0])])
def test_too_little_has_no_spread(module, seconds, computed):
    assert report(module, seconds, [bool(made) for made in computed]).measured_spread is None


def test_the_line_shows_both(module):
    text = report(module, [1, 0, 1.2, 0, 0.9, 0, 1.1, 0], [True, False] * 4, evaluations=4).text
    assert text.startswith("4 model evaluations for 8 steps; 2.00x faster ideally, ") and " \u00b1 0." in text
    assert "measured" not in report(module, [1], [True]).text


@pytest.mark.parametrize("evaluations, steps, words", [
    (1, 20, "1 model evaluation for 20 steps;"),
    (2, 2, "2 model evaluations for 2 steps;"),
    (1, 1, "1 model evaluation for 1 step;"),
])  # fmt: skip
def test_one_is_no_plural(module, evaluations, steps, words):
    made = [at < evaluations for at in range(steps)]
    assert report(module, [1.0] * steps, made).text.startswith(words)
