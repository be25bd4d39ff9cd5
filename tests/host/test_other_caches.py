"""Another cache on the same model, under any name: ours steps aside or says so, whichever node comes first, and nothing breaks.

The caches are imitations of how packs take hold of a model (other_caches.py); none of the packs is installed here. Core's two
are refused by name (test_hooks_in_full.py).
"""

import other_caches
import pytest
import torch
from sampling import Cached, ksampler, make_schedule, sample_custom

ASIDE = [
    other_caches.whole_output,
    other_caches.network_output,
    other_caches.residual_of_all_blocks,
    other_caches.patched_blocks,
]


def distance(ours, core) -> float:
    return float((ours - core).norm() / core.norm())


def run(host, case, put, first, level):
    """(samples, report) of a run with `put`'s cache and ours, in the order of the nodes."""
    schedule = make_schedule(host, 12, 4)
    if first == "ours":
        cached = Cached(host, case.model, schedule, level)
        return ksampler(host, case, put(cached.model)), cached.reports[0]
    cached = Cached(host, put(case.model), schedule, level)
    return ksampler(host, case, cached.model), cached.reports[0]


@pytest.mark.parametrize("level", ["output", "blocks"])
@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("put", ASIDE)
def test_a_cache_that_answers_in_place_of_the_network(host, demo_small, put, first, level):
    core, alone = ksampler(host, demo_small), ksampler(host, demo_small, put(demo_small.model))
    ours, report = run(host, demo_small, put, first, level)
    assert "another cache" in report.reason
    made = [step for step, computed in enumerate(report.computed) if computed]
    assert len(made) >= 6 and made[-3:] == [9, 10, 11]  # from where it showed, all is computed or theirs
    assert ours.isfinite().all() and distance(ours, core) < 3 * distance(alone, core)


@pytest.mark.parametrize("level", ["output", "blocks"])
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_a_cache_that_leaves_out_a_part_of_the_network(host, level, first):
    from matrix_models import MODELS, build

    case = build(MODELS["FLUX.1"])
    core = ksampler(host, case)
    ours, report = run(host, case, other_caches.residual_after_the_first_block, first, level)
    assert "ran only in part: another cache or a patch" in report.note
    assert ours.isfinite().all() and distance(ours, core) < 0.5


@pytest.mark.parametrize("level", ["output", "blocks"])
def test_a_sampler_that_skips_evaluations_itself(host, demo_small, level):
    """It asks for what it needs: nothing is to be skipped of that, or each is located at its own noise level."""
    fsampler = other_caches.by_the_sampler()
    core = sample_custom(host, demo_small, demo_small.model, other_caches.by_the_sampler(lambda i: False))
    alone = sample_custom(host, demo_small, demo_small.model, fsampler)
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4), level)
    ours = sample_custom(host, demo_small, cached.model, fsampler)
    report, = cached.reports
    assert report.asked == 8 and report.reason
    assert torch.equal(ours, alone) and distance(ours, core) < 0.5
