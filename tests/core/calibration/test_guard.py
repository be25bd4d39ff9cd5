import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import step_sets

from otcache_core.calibration import graph, inner_products
from otcache_core.calibration.guard import (
    GUARDED,
    STATE_AWARE,
    Guarded,
    cheapest,
    geodesic_points,
    guard,
    with_one_less,
    with_one_more,
)
from otcache_core.calibration.scoring import Scorer
from otcache_core.errors import OTCacheError
from otcache_core.sampling.rollout import FITTED
from otcache_core.schedules.transport import interpolate

ANCHOR, REFERENCE = (0, 2, 5), (0, 1, 2, 4, 6, 8, 10)


@pytest.fixture(scope="module")
def costs(recording):
    return graph.edge_costs(inner_products.recorded(recording.trajectories), FITTED)[0]


@pytest.fixture
def scorer(recording):
    return Scorer(recording.generator, recording.cases, recording.trajectories, fit_cases=1)


@given(st.data())
def test_one_more_and_one_less_undo_each_other(data):
    steps = data.draw(st.integers(2, 20))
    path = data.draw(step_sets(steps))
    more = with_one_more(path, steps)
    assert len(more) == len(set(more)) == steps - len(path)
    for other in more:
        assert list(other) == sorted(set(other)) and len(other) == len(path) + 1 and other[0] == 0 and other[-1] < steps
        assert path in with_one_less(other)
    assert len(with_one_less(path)) == len(path) - 1 and all(other[0] == 0 for other in with_one_less(path))


def test_cheapest_is_by_the_graphs_cost(costs):
    schedules = with_one_more((0, 3, 7), 12)
    ranked = sorted(graph.path_cost(costs, path) for path in schedules)
    assert [graph.path_cost(costs, path) for path in cheapest(costs, schedules, 3)] == ranked[:3]


@pytest.mark.parametrize("budget", range(1, 13))
def test_points_of_the_geodesic_begin_with_the_interpolation(recording, budget):
    points = geodesic_points(ANCHOR, REFERENCE, recording.sigmas, budget)
    assert next(iter(points)) == interpolate(ANCHOR, REFERENCE, recording.sigmas, budget)
    assert next(iter(points.values())) == "geodesic" and all(len(path) == budget for path in points)
    assert len(points) == 1 or budget <= len(REFERENCE)


def test_the_best_of_all_proposals_is_kept_and_none_is_considered_twice(scorer):
    here, proposals = Guarded(), {(0, 1, 2): "a", (0, 3, 7): "b", (0, 2, 5): "c"}
    here.consider(scorer, proposals)
    best = min(proposals, key=scorer.score)
    assert here.best.steps == best and here.best.source == proposals[best] and here.score == scorer.score(best)
    here.consider(scorer, proposals)
    here.consider(scorer, {(0, 10, 11): "worse"})
    assert here.best.steps == best and [c.source for c in here.candidates] == ["a", "b", "c", "worse"]
    assert sum(c.kept for c in here.candidates) == 1


def test_every_budget_keeps_the_best_it_tried_whatever_the_order_of_budgets(recording, scorer, costs):
    names = (*GUARDED, STATE_AWARE)
    paths = {name: graph.peak_suppressed_paths(costs, range(1, 13), gamma) for gamma, name in enumerate(names, 2)}
    told = []
    found = guard(scorer, ANCHOR, REFERENCE, paths, costs, [5, 3, 4, 12, 1], progress=lambda *news: told.append(news))
    assert list(found) == [1, 3, 4, 5, 12] and [news[:2] for news in told] == [(i + 1, 10) for i in range(10)]
    for budget, here in found.items():
        tried = [candidate.steps for candidate in here.candidates]
        assert all(len(steps) == budget for steps in tried) and len(set(tried)) == len(tried)
        assert here.candidates[0].steps == interpolate(ANCHOR, REFERENCE, recording.sigmas, budget)
        assert here.best.kept and here.score == pytest.approx(scorer.score(here.best.steps))
        assert all(paths[name][budget] in tried for name in GUARDED)
        assert here.score <= min(scorer.score(paths[name][budget]) for name in GUARDED) * (1 + 1e-9)
    sources = [candidate.source for budget in (3, 4, 5) for candidate in found[budget].candidates]
    assert "neighbour" in sources
    assert any("one step more" in source for source in sources) or any("one step less" in source for source in sources)


@pytest.mark.parametrize("allowance", [0, 30, 120])
def test_the_guard_asks_for_no_more_than_it_is_given(recording, scorer, costs, allowance):
    """Beyond the geodesics, which are always tried, no candidate begins that may not fit."""
    names, budgets, begin = (*GUARDED, STATE_AWARE), [3, 4, 5], recording.generator.evaluations
    paths = {name: graph.peak_suppressed_paths(costs, range(1, 13), gamma) for gamma, name in enumerate(names, 2)}
    spent = lambda: (recording.generator.evaluations - begin) / len(recording.cases)  # noqa: E731
    found = guard(scorer, ANCHOR, REFERENCE, paths, costs, budgets, remaining=lambda share: share * allowance - spent())
    assert spent() <= max(allowance, sum(budgets))
    tried = sum(len(here.candidates) for here in found.values())
    assert tried == 3 if allowance == 0 else tried > 3


def test_the_rising_sweep_leaves_a_little_for_the_falling_one(scorer, costs):
    """Each budget has its equal part of the rising sweep's; without a rest nothing would be tried on the way down."""
    names, budgets, shares = (*GUARDED, STATE_AWARE), [3, 4, 5, 6], []
    paths = {name: graph.peak_suppressed_paths(costs, range(1, 13), gamma) for gamma, name in enumerate(names, 2)}
    guard(scorer, ANCHOR, REFERENCE, paths, costs, budgets, remaining=lambda share: shares.append(share) or np.inf)
    rising, falling = [share for share in shares if share < 1], [share for share in shares if share == 1]
    assert len(falling) == 3 and shares == [*rising, *falling]
    assert sorted(set(rising)) == pytest.approx([max(rising) * part / 4 for part in (1, 2, 3, 4)])
    assert 0.85 <= max(rising) <= 0.97


def test_a_geodesic_needs_an_anchor_below_its_reference(scorer, costs):
    with pytest.raises(OTCacheError, match="anchor's budget 7"):
        guard(scorer, REFERENCE, REFERENCE, {name: {4: (0, 1, 2, 3)} for name in (*GUARDED, STATE_AWARE)}, costs, [4])


def test_candidates_that_diverge_lose(scorer):
    here, run = Guarded(), scorer.groups[0].run

    def broken(steps, rows=None):
        if steps == (0, 3, 7):
            raise OTCacheError("not finite")
        return run(steps, rows)

    scorer.groups[0].run = broken
    here.consider(scorer, {(0, 3, 7): "broken", (0, 1, 2): "sound"})
    assert here.best.source == "sound" and np.isfinite(here.score)
