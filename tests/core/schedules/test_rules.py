import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otcache_core.errors import OTCacheError
from otcache_core.schedules.rules import Rules, StepRules, forced_steps, ruled_steps
from tools.rules_vectors import FILE, text_of_vectors

EVEN = tuple(np.linspace(1, 0, 21))


def chosen(steps=(0, 10), sigmas=EVEN, **asked):
    asked["forced"] = forced_steps(asked.get("forced", ""))
    return ruled_steps(steps, sigmas, StepRules(**asked).on_grid(sigmas))


def test_no_rules_change_nothing():
    assert chosen() == (0, 10) and Rules().named == ""


def test_outside_the_range_every_step_is_computed():
    """As with ConditioningSetTimestepRange, a step on the bound lies within."""
    assert chosen(start_percent=0.2) == (0, 1, 2, 3, 10)
    assert chosen(end_percent=0.8) == (0, 10, 17, 18, 19)
    assert chosen(start_percent=0.22, end_percent=0.78) == (0, 1, 2, 3, 4, 10, 16, 17, 18, 19)
    everything = tuple(range(20))
    assert chosen(start_percent=1.0) == chosen(start_percent=0.6, end_percent=0.4) == everything
    assert chosen(end_percent=0.0) == everything


def test_a_share_of_sampling_may_stand_for_other_noise_levels():
    rules = StepRules(start_percent=0.5).on_grid(EVEN, lambda share: (1 - share) ** 2)
    assert rules.start == 0.25 and ruled_steps((0,), EVEN, rules) == tuple(range(15))


def test_the_cap_spreads_what_it_adds():
    assert chosen(max_skips=5) == (0, 5, 10, 15)
    assert chosen(max_skips=9) == (0, 10)
    assert chosen(max_skips=1) == tuple(range(0, 20, 2))


@given(st.integers(1, 80), st.integers(1, 12), st.data())
def test_no_gap_exceeds_the_cap_and_no_fewer_would_do(steps, most, data):
    own = data.draw(st.sets(st.integers(1, max(steps - 1, 1)), max_size=steps - 1)) | {0}
    own = tuple(sorted(step for step in own if step < steps))
    found = chosen(own, tuple(np.linspace(1, 0, steps + 1)), max_skips=most)
    assert set(own) <= set(found) and found[0] == 0
    assert max(np.diff((*found, steps))) <= most + 1
    assert len(found) == sum(-(-gap // (most + 1)) for gap in np.diff((*own, steps)))


def test_forced_steps_come_last_and_move_no_other():
    assert chosen(forced="+3 -11") == (0, 2)
    capped = chosen(max_skips=5)
    assert chosen(max_skips=5, forced="+8 -6") == tuple(sorted({*capped, 7} - {5}))
    assert chosen(start_percent=0.2, forced="-3") == (0, 1, 3, 10)
    assert chosen(forced="+1") == (0, 10)
    asked = StepRules(forced=forced_steps("+3 -40, -25"))
    assert asked.on_grid(EVEN) == StepRules(forced={2: True}).on_grid(EVEN)
    assert asked.left_out(20) == "forced names step 25, 40, but there are 20 steps: left out" and not asked.left_out(40)


def test_forced_steps_are_found_by_noise_level_on_another_grid():
    rules = StepRules(forced={4: True, 12: False}).on_grid(EVEN)
    finer = np.linspace(1, 0, 41)
    assert ruled_steps((0, 24), finer, rules) == (0, 8)
    later = np.linspace(0.5, 0, 11)  # a slice that does not hold the first of them
    assert ruled_steps((0, 2, 5), later, rules) == (0, 5)


@pytest.mark.parametrize("text,found", [("", {}), (" ", {}), ("+3 -7", {2: True, 6: False}), ("-7,+3,", {2: True, 6: False})])
def test_forced_text(text, found):
    assert forced_steps(text.strip(",")) == found


@pytest.mark.parametrize("text,says", [
    ("3", "'3', but must be step numbers with a sign, such as +3 -7"), ("+x", "must be step numbers"),
    ("+0", "must be step numbers"), ("+3.5", "must be step numbers"), ("+\u0663", "must be step numbers"),
    ("+3 -3", "step 3 twice"), ("-1", "the first step is always computed"), ("+123456", "must be step numbers"),
    (" ".join(f"+{step}" for step in range(1, 1002)), "at most 1000"),
])  # fmt: skip
def test_other_text_is_refused_in_a_sentence(text, says):
    with pytest.raises(OTCacheError, match=r"\.$") as error:
        forced_steps(text)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_the_browser_is_tested_with_the_same():
    assert FILE.read_text(encoding="utf-8") == text_of_vectors(), (
        "tests/web/rules.json is out of date; run: python -m tools.rules_vectors, then npm test"
    )
