"""Every model at every reuse level: exact where all is computed, N / 3 evaluations where asked for, and better with more.

benchmarks/matrix.py prints the same cells.
"""

import pytest
import torch
from matrix_cells import BUDGET, LEVELS, STEPS, counted, flat, measure, own_schedule, two_experts
from matrix_models import MODELS, build
from sampling import Cached, ksampler


@pytest.fixture(scope="module")
def case(host, request):
    found = build(MODELS[request.param])
    if found is None:
        pytest.skip(f"this ComfyUI has no {MODELS[request.param].cls}")
    assert sum(p.numel() for p in found.model.model.diffusion_model.parameters()) < 3e6
    return found


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", MODELS, indirect=True)
def test_a_model(host, case, level, request):
    tiny = MODELS[request.node.callspec.params["case"]]
    found = measure(host, case, level)
    assert found.exact and found.finite, found
    assert found.made == found.wanted == BUDGET
    reason = tiny.no_blocks if level == "blocks" else ""
    assert (found.used, found.reason) == ("output" if reason else level, reason)
    assert 0 < found.error < 0.8
    finer = measure(host, case, level, steps=2 * STEPS, budget=2 * BUDGET)
    assert finer.made == 2 * BUDGET and finer.error < found.error, f"{found.error} -> {finer.error}"
    assert len(found.streams) == (2 if tiny.audio else 0)
    assert all(0 < fine < coarse < 0.8 for coarse, fine in zip(found.streams, finer.streams, strict=True)), found.streams


@pytest.mark.parametrize("case", [name for name, tiny in MODELS.items() if not tiny.no_blocks], indirect=True)
def test_a_pass_replayed_where_it_was_made_is_itself(host, case):
    """Whatever the blocks do with their inputs: MiniMax H3's write into them."""
    from comfy.patcher_extension import WrappersMP

    reuse, model, made = host.module("nodes.host.blocks").BlockReuse(), case.model.clone(), []

    def twice(executor, *args, **kwargs):
        reuse.capture(0)
        full = reuse.apply_model(executor, *args, **kwargs)
        reuse.replay(0, lambda steps: [[1.0]])
        made.append((full, reuse.apply_model(executor, *args, **kwargs)))
        return full

    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", twice)
    with counted(case) as (_, first, last):
        ksampler(host, case, model, steps=2)
    assert not reuse.problem and len(first) == len(last) == len(made)
    for full, again in made:
        torch.testing.assert_close(again, full, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["FLUX.1", "Qwen-Image", "Wan 2.1 t2v", "SDXL"])
def test_half_precision(host, name, dtype, level):
    """As large models are run: only the network is in half precision, the latents between stay in single."""
    case = build(MODELS[name], dtype=dtype)
    assert case.blocks[0].state_dict().popitem()[1].dtype == case.model.model.get_dtype() == getattr(torch, dtype)
    found = measure(host, case, level)
    assert found.exact and found.finite and found.made == found.wanted == BUDGET, found
    assert 0 < found.error < 0.8


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("switch,extra", [(6, 0), (5, 0), (4, 1)])
def test_two_experts_with_one_schedule(host, level, switch, extra):
    """Wan 2.2: a model for high noise and one for low, each slice of KSamplerAdvanced starting with a computed step.

    It stands for the nearest of the whole's, 0, 3, 6 and 9: at 5 for the next one, at 4 for one that the other expert made.
    """
    found = two_experts(host, level, switch)
    assert found.exact and found.finite and found.used == level and not found.reason
    assert found.made == found.wanted == BUDGET + extra
    assert 0 < found.error < 0.8


@pytest.mark.parametrize("case", ["LTX-2 (video, audio)"], indirect=True)
def test_weights_for_a_video_alone_hold_with_audio_by_their_low_band(host, case):
    one = own_schedule(host, case.model, BUDGET, kind="fitted")
    kind = type(one.predictor)(kind="fitted", bands=2)
    two = one.replace(predictor=kind, weights=tuple((*row, *(5.0 * w for w in row)) for row in one.weights))
    ours, again = (flat(ksampler(host, case, Cached(host, case.model, schedule).model)) for schedule in (one, two))
    torch.testing.assert_close(ours, again)
