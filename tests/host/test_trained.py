"""The trained models of the benchmarks in ComfyUI: their kind, their size, and that they draw what they were told."""

import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LARGEST = 8_000_000  # bytes of weights


@pytest.fixture(scope="module")
def drawn(host):
    """`proof_cases.drawn`, with its modules found where the benchmarks are started; after ComfyUI's."""
    sys.path.append(str(BENCHMARKS))
    import proof_cases

    return proof_cases.drawn


def trained() -> list[str]:
    """The models whose weights lie there."""
    return sorted(path.stem for path in (BENCHMARKS / "trained" / "weights").glob("*.safetensors"))


@pytest.mark.parametrize("kind", trained())
def test_it_is_of_its_kind_and_small(drawn, kind):
    import comfy.model_sampling

    sampling = drawn(kind, 1, 1).model.get_model_object("model_sampling")
    assert isinstance(sampling, comfy.model_sampling.EPS if kind == "unet" else comfy.model_sampling.CONST)
    assert (BENCHMARKS / "trained" / "weights" / f"{kind}.safetensors").stat().st_size <= LARGEST


@pytest.mark.parametrize("kind", trained())
def test_a_prompt_is_drawn_nearer_to_its_own_drawing_than_to_anothers(host, drawn, kind):
    """Grounds, skies and houses differ; four scenes, each against all four drawings."""
    import numpy as np
    from sampling import ksampler
    from trained import drawings
    from trained.models import MODELS

    case, rng = drawn(kind, 5, 4), np.random.default_rng(5)
    scenes, drifts = drawings.sample_scenes(4, rng)
    latent, side = MODELS[kind].latent, MODELS[kind].side
    known = drawings.stills(scenes, side, rng) if kind == "unet" else drawings.clips(scenes, drifts, latent[1], side, rng)
    made = ksampler(host, case, steps=10, cfg=3.0, scheduler="karras" if kind == "unet" else "simple")
    assert made.shape == known.shape and made.isfinite().all()
    apart = torch.cdist(made.flatten(1), known.flatten(1))
    assert (apart.argmin(1) == torch.arange(4)).float().mean() >= 0.75
