"""The models that speed.py times: of the real ones' size, which is told without their gigabytes."""

import sys
from pathlib import Path

import pytest

BILLIONS = {"FLUX.1": 11.9, "Qwen-Image": 20.4, "HunyuanVideo": 12.8}  # as their makers give them
BUDGETS = {"FLUX.1": 11, "Qwen-Image": 10, "HunyuanVideo": 13}


@pytest.mark.parametrize("name", BILLIONS)
def test_a_model_is_as_large_as_the_real_one(host, name):
    """On torch's meta device."""
    from matrix_models import make

    sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
    import speed

    model = make(speed.described(name, None, small=False), "bfloat16", "meta")
    parameters = list(model.diffusion_model.parameters())
    assert sum(p.numel() for p in parameters) / 1e9 == pytest.approx(BILLIONS[name], rel=0.01)
    assert speed.MODELS[name].budget == BUDGETS[name]
    narrow = make(speed.described(name, 1, small=True), "float32", "meta")
    assert sum(p.numel() for p in narrow.diffusion_model.parameters()) < 2e7
