import numpy as np
import pytest
import torch
from mixture import MixtureGenerator, linear_sigmas

from otcache_core.calibration.lessons import lesson
from otcache_core.calibration.solving import solve
from otcache_core.sampling.rollout import record

SIGMAS = linear_sigmas(50, 3.0)


class Astray(MixtureGenerator):
    """Gives `value` for the last evaluation of the rehearsals that `wrong` numbers; a run in full made the others before."""

    def __init__(self, wrong: set[int], value: float):
        super().__init__()
        self.wrong, self.value, self.rehearsal, self.told = wrong, value, -1, False

    def velocity(self, x, sigma, cases):
        self.rehearsal += self.told and sigma == SIGMAS[0]
        wrong = self.rehearsal in self.wrong and sigma < 0.6 * SIGMAS[0]
        return super().velocity(x, sigma, cases) * (self.value if wrong else 1.0)


def learnt(wrong: set[int], value: float = torch.nan):
    generator = Astray(wrong, value)
    full = record(generator, 1, SIGMAS)
    generator.told = True
    return lesson(generator, [1], [full])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_rehearsal_that_is_not_finite_counts_as_gone_astray_and_the_others_teach(value):
    whole, rest = learnt(set()), learnt({0}, value)
    small, large = sorted(whole.errors)
    assert rest.errors == {small: 1.0, large: whole.errors[large]}
    assert not rest.holds_at(large) and solve([rest], SIGMAS, large).predictor.kind == "fitted"
    assert set(rest.visits) < set(whole.visits)
    for seen in rest.visits.values():
        assert np.isfinite(seen.gram).all() and np.isfinite(seen.moments).all()


@pytest.mark.parametrize("wrong", [{1}, {0, 1}])
def test_where_the_largest_rehearsal_is_not_finite_steps_are_held(wrong):
    known = learnt(wrong)
    assert known.holds_at(6) and solve([known], SIGMAS, 6).predictor.kind == "hold"
