import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import sigma_grids

from otcache_core.errors import OTCacheError
from otcache_core.schedules.presets import FILE, STARTS, preset, preset_names, shifted_sigmas, starting_grids
from otcache_core.schedules.retiming import retime
from otcache_core.schedules.schedule import parse_schedule, uniform_steps

NAMES = preset_names()


def test_names_are_unique_and_the_starts_are_among_them():
    entries = json.loads(FILE.read_text(encoding="utf-8"))
    assert len(entries) == len(set(NAMES)) == len(NAMES) > 0 and set(STARTS) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_a_valid_schedule_of_the_budget_in_its_name(name):
    schedule = preset(name)
    assert schedule.name == name and schedule.stage == "preset" and schedule.model and schedule.model_class
    assert schedule.budget == int(re.search(r"-(\d+)$", name)[1])
    assert schedule.steps in (40, 50) and schedule.predictor.kind in ("hold", "mean_velocity")
    assert schedule.sigmas == tuple(shifted_sigmas(schedule.steps, schedule.shift).tolist())
    assert re.search(r"arXiv \d{4}\.\d{5}", schedule.provenance)
    assert parse_schedule(schedule.model_dump_json()) == schedule


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("steps", "shift"), [(50, 3.0), (28, 3.0), (20, 1.0), (8, 2.3)])
def test_every_preset_can_be_carried_to_other_grids(name, steps, shift):
    published = preset(name)
    moved = retime(published, shifted_sigmas(steps, shift))
    assert moved.steps == steps and moved.budget == min(published.budget, steps)
    assert moved.predictor == published.predictor and published.provenance in moved.provenance


@pytest.mark.parametrize("name", ["", "flux", "meancache-qwen-image-11", "../published"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(OTCacheError) as error:
        preset(name)
    assert f'"{name}"' in str(error.value) and all(known in str(error.value) for known in NAMES)
    assert "\n" not in str(error.value)


@given(st.integers(1, 60), st.floats(0.1, 12))
def test_shifted_sigmas_fall_from_one_to_zero(steps, shift):
    sigmas = shifted_sigmas(steps, shift)
    assert sigmas.shape == (steps + 1,) and sigmas[0] == pytest.approx(1) and sigmas[-1] == 0 and (np.diff(sigmas) < 0).all()
    assert np.allclose(shifted_sigmas(steps, 1.0), np.linspace(1, 0, steps + 1))


@given(sigma_grids(max_steps=30), st.data())
def test_starting_grids_are_distinct_schedules_of_the_budget(sigmas, data):
    steps = len(sigmas) - 1
    budget = data.draw(st.integers(1, steps))
    grids = starting_grids(budget, sigmas)
    assert grids[0] == uniform_steps(budget, steps) and len(set(grids)) == len(grids)
    for path in grids:
        assert len(path) == budget and path[0] == 0 and path[-1] < steps and list(path) == sorted(set(path))


@pytest.mark.parametrize("name", STARTS)
def test_a_preset_is_a_starting_grid_of_its_own_budget_on_its_own_grid(name):
    schedule = preset(name)
    assert schedule.compute_steps in starting_grids(schedule.budget, schedule.sigmas)
