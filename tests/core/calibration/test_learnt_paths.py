from driving import taken
from mixture import MixtureGenerator, linear_sigmas

from otcache_core.calibration.graph import edge_costs, peak_suppressed_paths
from otcache_core.calibration.inner_products import recorded
from otcache_core.calibration.learnt_paths import GAMMA, TAKEN_BACK, fitted_paths
from otcache_core.sampling.rollout import FITTED

STEPS = 40


def test_only_where_gaps_are_long_early_errors_count_less():
    seen = recorded(taken(MixtureGenerator(), [1], linear_sigmas(STEPS, 3.0)).trajectories)
    found = fitted_paths(seen, 20, whole=True)
    costs, gains = edge_costs(seen, FITTED)[0], 1 - TAKEN_BACK * seen.sigmas / seen.sigmas[0]
    long, short = range(1, STEPS * 2 // 5), range(STEPS * 2 // 5, 21)
    assert found == peak_suppressed_paths(costs, long, GAMMA, gains) | peak_suppressed_paths(costs, short, GAMMA)
    for elsewhere in (gains, None):
        assert found != peak_suppressed_paths(costs, range(1, 21), GAMMA, elsewhere)
