import numpy as np
import pytest
from fake_scorer import FakeScorer, valley
from hypothesis import given
from hypothesis import strategies as st
from strategies import step_sets

from otcache_core.calibration.scoring import Scorer
from otcache_core.commands.annealing import anneal_steps, relocate
from otcache_core.schedules.schedule import uniform_steps

STEPS, BUDGET = 20, 5
BEST = (0, 3, 7, 12, 15)


class Noted(FakeScorer):
    """Notes every schedule that it is asked to score."""

    def __init__(self, landscape=None):
        super().__init__(STEPS, landscape or valley(BEST))
        self.scored = []

    def score(self, steps):
        self.scored.append(tuple(steps))
        return super().score(steps)


def is_valid(path, budget, steps) -> bool:
    return len(path) == budget and path[0] == 0 and path[-1] < steps and list(path) == sorted(set(path))


@given(st.data(), st.integers(0, 2**32 - 1))
def test_a_move_relocates_one_step_to_a_free_place(data, seed):
    steps = data.draw(st.integers(1, 30))
    path = data.draw(step_sets(steps))
    moved = relocate(path, steps, np.random.default_rng(seed))
    assert is_valid(moved, len(path), steps) and all(type(step) is int for step in moved)
    stuck = len(path) in (1, steps)
    assert len(set(moved) - set(path)) == (0 if stuck else 1)


@given(st.integers(1, STEPS), st.integers(1, 30), st.integers(0, 5))
def test_results_are_valid_never_worse_than_uniform_and_bounded_in_work(budget, trials, seed):
    scorer = Noted(lambda steps: [np.random.default_rng([seed, *steps]).lognormal(0, 0.7, size=6)])
    steps, score = anneal_steps(scorer, budget, trials, seed)
    assert is_valid(steps, budget, STEPS)
    assert len(scorer.scored) <= trials + 1 and scorer.scored[0] == uniform_steps(budget, STEPS)
    assert score == pytest.approx(min(map(scorer.score, set(scorer.scored))), rel=1e-9)
    assert score == pytest.approx(scorer.score(steps), rel=1e-9)
    assert score <= scorer.score(uniform_steps(budget, STEPS)) * (1 + 1e-9)


def test_seeded_runs_repeat_exactly_and_seeds_differ():
    scorers = [Noted() for _ in range(3)]
    first, second, _ = (anneal_steps(s, BUDGET, 30, seed) for s, seed in zip(scorers, (3, 3, 4), strict=True))
    assert first == second and scorers[0].scored == scorers[1].scored != scorers[2].scored


def test_a_valley_is_descended():
    scorer = Noted()
    steps, score = anneal_steps(scorer, BUDGET, 200)
    assert score < 0.5 * scorer.score(uniform_steps(BUDGET, STEPS))


@pytest.mark.parametrize("budget", [1, STEPS])
def test_forced_budgets_have_one_answer(budget):
    landscape = {1: [[0.5] * 3], STEPS: [[1e-12] * 3]}[budget]
    assert anneal_steps(Noted(lambda _: landscape), budget, 10)[0] == uniform_steps(budget, STEPS)


def test_a_real_scorer_is_annealed(recording):
    scorer = Scorer(recording.generator, recording.cases, recording.trajectories)
    steps, score = anneal_steps(scorer, 4, 12)
    assert score == pytest.approx(scorer.score(steps)) and score <= scorer.score(uniform_steps(4, 12))
