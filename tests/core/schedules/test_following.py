import numpy as np
import pytest
from mixture import linear_sigmas

from otcache_core.schedules.following import FEWEST, followed, ruled
from otcache_core.schedules.interpolation import budget_for_speedup
from otcache_core.schedules.presets import preset, preset_names, shifted_sigmas
from otcache_core.schedules.retiming import retime
from otcache_core.schedules.rules import StepRules
from otcache_core.schedules.schedule import make_schedule, uniform_steps

GRID = shifted_sigmas(50, 3.158)
SCHEDULE = preset("lemica-flux1-dev-10")
FITTED = make_schedule(sigmas=tuple(np.linspace(1, 0, 21)), compute_steps=(0, 4, 9, 14), predictor={"kind": "fitted"},
                       weights=((1.0,), (1.3, -0.3), (1.4, -0.5, 0.1), (1.5, -0.6, 0.1)),
                       provenance="learnt from 1 run")  # fmt: skip


@pytest.mark.parametrize("begins", [True, False])
def test_without_rules_a_run_that_goes_all_the_way_is_only_retimed(begins):
    for sigmas in (SCHEDULE.sigmas, shifted_sigmas(28, 3.0), shifted_sigmas(8, 1.0)):
        assert followed(SCHEDULE, sigmas, begins) == (retime(SCHEDULE, sigmas), "")


def test_slices_of_one_run_add_up_to_its_budget():
    slices = [GRID[:21], GRID[20:]]
    assert sum(followed(SCHEDULE, part, begins=not i)[0].budget for i, part in enumerate(slices)) in (10, 11)


@pytest.mark.parametrize("first,share", [(30, 4), (45, 3), (10, 8)])
def test_a_run_that_begins_lower_keeps_the_share_of_the_budget(first, share):
    sigmas = GRID[first:]
    found, told = followed(SCHEDULE, sigmas, begins=True)
    assert found.budget == share and bool(told) == (retime(SCHEDULE, sigmas).budget != share)
    steps = shifted_sigmas(200, 3.158)[200 - 20 :]  # 20 steps at denoise 0.1
    found, told = followed(SCHEDULE, steps, begins=True)
    assert retime(SCHEDULE, steps).budget < found.budget == 4 and "10 of 50" in told


def test_where_nothing_was_fitted_a_lower_run_has_even_steps():
    found, _ = followed(SCHEDULE, shifted_sigmas(200, 3.158)[180:], begins=True)
    assert found.compute_steps == (0, 5, 10, 15) and found.predictor.kind == "linear" and found.spans is None


def test_a_speedup_holds_for_the_steps_of_every_run():
    schedule = SCHEDULE.replace(speedup=5.0)
    for steps, budget in ((50, 10), (20, 4), (30, 6), (8, 3), (2, 2), (25, 5), (100, 20)):
        found, told = followed(schedule, shifted_sigmas(steps, 3.158), begins=True)
        assert found.budget == budget and bool(told) == (budget != min(10, steps))
    assert followed(schedule, GRID[40:], begins=False)[0] == retime(schedule, GRID[40:])  # a slice of its own grid


def test_rules_hold_on_the_grid_of_the_run():
    asked = StepRules(start_percent=0.2, max_skips=3, forced={30: True, 4: True}).on_grid(SCHEDULE.sigmas)
    schedule = SCHEDULE.replace(rules=asked)
    for steps in (20, 50, 80):
        found, told = followed(schedule, shifted_sigmas(steps, 3.158), begins=True)
        assert found.compute_steps[: steps // 5] == tuple(range(steps // 5))
        assert max(np.diff((*found.compute_steps, steps))) <= 4
        assert round(30 / 50 * steps) in found.compute_steps
        assert told == f"{found.budget} instead of 10 evaluations by the range, max_skips, forced steps"


def test_weights_of_changed_steps_are_those_of_the_segments_they_lie_in():
    schedule = FITTED.replace(rules=StepRules(forced={11: True, 4: False}).on_grid(FITTED.sigmas))
    found = ruled(schedule)
    assert found.compute_steps == (0, 9, 11, 14) and [len(row) for row in found.weights] == [1, 2, 3, 3]
    assert found.provenance == "changed steps; learnt from 1 run" and np.isfinite(np.concatenate(found.weights)).all()
    assert np.allclose([sum(row) for row in found.weights], 1.0, atol=0.25)


def test_rules_that_change_nothing_leave_every_weight():
    schedule = FITTED.replace(rules=StepRules(forced={4: True, 5: False}, max_skips=9).on_grid(FITTED.sigmas))
    assert ruled(schedule) is schedule and ruled(FITTED) is FITTED


def test_everything_computed_stays_so_but_for_what_is_forced_off():
    full = FITTED.replace(compute_steps=tuple(range(20)), weights=tuple((1.0,) for _ in range(20)))
    assert ruled(full.replace(rules=StepRules(start_percent=0.5, max_skips=2).on_grid(full.sigmas))).budget == 20
    found = ruled(full.replace(rules=StepRules(forced={7: False}).on_grid(full.sigmas)))
    assert found.compute_steps == tuple(i for i in range(20) if i != 7)


# -- a share of the steps, whatever their number --------------------------------------------------------------


@pytest.mark.parametrize("name", preset_names())
@pytest.mark.parametrize("steps", [8, 20, 28, 50, 100])
def test_a_preset_makes_as_many_evaluations_as_its_speedup_leaves(name, steps):
    grid = linear_sigmas(steps, 3.0)
    found, _ = followed(preset(name).replace(speedup=3.0), grid)
    assert found.budget == max(budget_for_speedup(steps, 3.0), FEWEST) and found.steps == steps
    assert followed(preset(name), grid) == (retime(preset(name), grid), "")


def test_the_steps_of_a_speedup_are_read_off_the_schedules_warp():
    """Half of a schedule's evaluations are every second of them, also on its own grid."""
    published = preset("lemica-flux1-dev-20")
    found, says = followed(published.replace(speedup=5.0), published.sigmas)
    assert found.compute_steps == published.compute_steps[::2] and "speed-up of 5 that was asked for" in says


def test_a_slice_keeps_the_share():
    grid, schedule = linear_sigmas(40, 3.0), preset("lemica-flux1-dev-20").replace(speedup=2.5)
    for part in (grid[:21], grid[20:], grid[10:15]):
        assert followed(schedule, part)[0].budget == max(int((len(part) - 1) / 2.5), FEWEST)


def test_an_anchor_gives_the_budget_of_that_share_with_its_weights():
    grid = linear_sigmas(20, 3.0)
    six, ten = (make_schedule(sigmas=grid, compute_steps=uniform_steps(b, 20), predictor={"kind": "linear"}) for b in (6, 10))
    anchor = six.replace(prepared=(six, ten), speedup=2.0)
    assert followed(anchor, grid)[0].compute_steps == ten.compute_steps
    assert followed(anchor.replace(speedup=20 / 6), grid)[0].compute_steps == six.compute_steps
    assert followed(anchor, linear_sigmas(40, 3.0))[0].budget == 20
