"""Which way skipped steps go, by what rehearsals of both came to."""

from dataclasses import replace

import numpy as np
import pytest
from mixture import MixtureGenerator, linear_sigmas

from otcache_core.calibration.fit_or_hold import added, doubtful, holds, nearer, relative, settles
from otcache_core.calibration.lessons import ELEMENTS, lesson, rehearsed
from otcache_core.calibration.solving import solve
from otcache_core.calibration.statistics import load_statistics
from otcache_core.errors import NotFiniteError
from otcache_core.sampling.cached_run import CachedRun
from otcache_core.sampling.patches import Patches
from otcache_core.sampling.rehearsal import Recording, Rehearsal
from otcache_core.sampling.response import Response
from otcache_core.sampling.rollout import record

SMALL, LARGE, OTHER = (0, 5, 8), (0, 2, 4, 6, 8, 9), (0, 1, 4, 6, 8, 9)


def outcomes(**errors):
    """Rehearsals with relative errors."""
    return {{"small": SMALL, "large": LARGE}[name]: (error**2 * 4.0, 4.0) for name, error in errors.items()}


@pytest.mark.parametrize(
    ("fitted", "held", "below", "between", "above"),
    [
        ({"small": 0.3, "large": 0.1}, {"large": 0.2}, False, False, False),
        ({"small": 0.3, "large": 0.1}, {"large": 0.05}, False, False, True),
        ({"small": 0.3, "large": 0.1}, {"large": 0.108}, False, False, True),  # nearer by what may be chance
        ({"small": 0.3, "large": 0.1}, {"small": 0.2, "large": 0.2}, False, True, False),
        ({"small": 0.3, "large": 0.29}, {"large": 0.4}, False, False, False),  # measured, whether it settles or not
        ({"small": 1.0, "large": 1.0}, {"large": 1.0}, True, True, True),  # both went astray
        ({"small": 0.6, "large": 0.55}, {"large": 0.9}, False, False, True),  # too far off to have fitted anything
        ({"small": 0.3, "large": 0.1}, {}, False, False, False),
        ({"small": 0.3, "large": 0.29}, {}, True, True, True),
        ({}, {}, False, False, False),
    ],
)
def test_the_nearer_way_is_taken_where_both_were_rehearsed(fitted, held, below, between, above):
    fitted, held = outcomes(**fitted), outcomes(**held)
    small, large = len(SMALL), len(LARGE)
    found = [holds(fitted, held, budget) for budget in (small - 1, small + 1, large, large + 4)]
    assert found == [below, between, above, above]


def test_errors_are_those_of_the_way_that_runs_go():
    fitted, held = outcomes(large=0.1, small=0.3), outcomes(large=0.05)
    assert list(relative(fitted).items()) == [(3, pytest.approx(0.3)), (6, pytest.approx(0.1))]
    assert nearer(fitted, held) == {3: pytest.approx(0.3), 6: pytest.approx(0.05)}
    assert settles(fitted) and not settles(outcomes(large=0.25, small=0.3))


def test_outcomes_of_equal_steps_are_added():
    assert added({SMALL: (1.0, 2.0)}, {SMALL: (3.0, 4.0), LARGE: (5.0, 6.0)}) == {SMALL: (4.0, 6.0), LARGE: (5.0, 6.0)}
    assert relative({LARGE: (1.0, 4.0), OTHER: (1.0, 4.0)}) == {6: pytest.approx(0.5)}


@pytest.fixture(scope="module")
def eulers():
    generator = MixtureGenerator()
    return lesson(generator, [1], [record(generator, 1, linear_sigmas(20, 2.0))])


@pytest.mark.parametrize(
    ("fitted", "doubted"),
    [
        ({"small": 0.3, "large": 0.16}, True),
        ({"small": 0.3, "large": 0.14}, False),
        ({"small": 1.0, "large": 1.0}, True),
        ({"small": 0.4}, False),
        ({"large": 0.6}, True),
        ({}, False),
    ],
)
def test_rehearsals_that_hardly_came_nearer_are_doubted(fitted, doubted):
    assert doubtful(outcomes(**fitted)) == doubted


UNEVEN = np.array([0.5, *[1.0] * 18, 1.5])


@pytest.mark.parametrize(("adds", "looks_back", "error"), [(False, True, 0.01), (False, False, 0.2), (True, True, 0.2)])
def test_others_rehearse_no_holding(eulers, adds, looks_back, error):
    """Where weights came nearer, of samplers that step as Euler, and of those that hold anyway."""
    full, ran = record(MixtureGenerator(), 1, eulers.sigmas).final[None], []
    moves = eulers.moves * (UNEVEN if looks_back else 1.0)
    known = replace(eulers, held=adds, moves=moves)
    recording = Recording(eulers.sigmas, full[None], None, Patches(full.shape, ELEMENTS), Response(moves))

    def run(rehearsal):
        ran.append(type(rehearsal))
        return full * (1.2 if len(ran) < 2 else 1 + error)

    assert not rehearsed(known, recording, [SMALL, LARGE], run, full).holds and ran == [Rehearsal, Rehearsal]


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("held", [0.0, 1.0, None])
def test_lessons_of_other_samplers_that_hardly_came_nearer_rehearse_the_largest_in_both_ways(eulers, held, told, tmp_path):
    """held: the error of holding, relative to the full run, None for one that is not finite. told: whether
    the sampler's moves are known."""
    generator = MixtureGenerator()
    full = record(generator, 1, eulers.sigmas).final[None]
    known, ran = replace(eulers, moves=eulers.moves * UNEVEN) if told else eulers, []

    def run(rehearsal):
        ran.append((type(rehearsal) is CachedRun, rehearsal.schedule.compute_steps, rehearsal.schedule.predictor.kind))
        if type(rehearsal) is not CachedRun:
            return full * 1.1
        if held is None:
            raise NotFiniteError("far astray")
        return full * (1 + held)

    response = Response(known.moves if told else None)
    recording = Recording(eulers.sigmas, full[None], None, Patches(full.shape, ELEMENTS), response)
    found = rehearsed(known, recording, [SMALL, LARGE], run, full)
    assert ran == [(False, SMALL, "fitted"), (False, LARGE, "fitted"), (True, LARGE, "hold")]
    assert list(found.holds) == [LARGE] and relative(found.holds)[6] == pytest.approx(1.0 if held is None else held, abs=1e-6)
    assert found.holds_at(6) == found.holds_at(9) == (held == 0.0) and not found.holds_at(5)
    assert (solve([found], known.sigmas, 6).predictor.kind == "hold") == (held == 0.0)
    assert found.errors == {3: pytest.approx(0.1), 6: pytest.approx(0.0 if held == 0.0 else 0.1, abs=1e-6)}
    found.save(tmp_path / "a.safetensors")
    read = load_statistics(tmp_path / "a.safetensors")
    assert read.holds == found.holds and (read + read).holds == added(found.holds, found.holds)
