"""Every situation at every reuse level with euler, and with one sampler of each kind at output level.

benchmarks/matrix.py prints the same cells, with more samplers.
"""

import shutil

import pytest
import torch
from matrix_cells import BUDGET, LEVELS, STEPS, compiled, own_schedule, sampler_kind
from matrix_models import MODELS, build, version
from matrix_situations import SITUATIONS, cell_of
from sampling import Cached


@pytest.fixture(scope="module")
def cases(host):
    made = {}

    def case(name):
        if name not in made:
            made[name] = build(MODELS[name])
        return made[name]

    yield case
    made.clear()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", SITUATIONS)
def test_euler(host, cases, name, level):
    situation = SITUATIONS[name]
    if situation.node and situation.node not in host.classes or cases(situation.model) is None:
        pytest.skip("this ComfyUI has no such node or model")
    found = cell_of(host, cases(situation.model), name, level, "euler")
    assert found.exact and found.finite, found
    if situation.in_full:
        assert situation.in_full in found.reason and found.error == 0 and found.made == found.wanted == found.asked, found
        return
    wanted = situation.with_blocks if level == "blocks" and situation.with_blocks else situation.evaluations
    assert found.made == found.wanted == wanted, found
    reason = situation.no_blocks
    if level == "blocks" and reason:
        assert reason in found.reason and found.used == "output"
    else:
        assert not found.reason and found.used == level
    assert 0 < found.error < 1


OTHERS = [
    (name, sampler)
    for name in ("inpainting", "PerpNeg", "time ranges", "context windows", "LoRA hook")
    for sampler in ("uni_pc", "heun", "dpm_2", "euler_ancestral_cfg_pp")
]


@pytest.mark.parametrize("name,sampler", [*OTHERS, ("inpainting", "dpm_adaptive")])  # which makes hundreds of evaluations
def test_other_samplers(host, cases, name, sampler):
    if name == "context windows" and sampler == "dpm_2" and version() < (0, 25):
        pytest.skip("this ComfyUI's own context windows stop at noise levels between two steps")
    found = cell_of(host, cases(SITUATIONS[name].model), name, "output", sampler)
    assert found.good, found
    assert bool(found.reason) == (sampler_kind(sampler) == "in full")
    assert (found.error == 0) == bool(found.reason)


@pytest.mark.parametrize("level", LEVELS)
def test_what_previews_show_is_what_the_steps_use(host, cases, level):
    """The denoised latent that callbacks get, skipped steps included, is the one of which Euler makes the next latent."""
    import comfy.sample
    import comfy.samplers

    case = cases("FLUX.1")
    schedule = own_schedule(host, case.model, BUDGET)
    sigmas = comfy.samplers.calculate_sigmas(case.model.get_model_object("model_sampling"), "simple", STEPS)

    def run(model):
        seen = []
        noise = comfy.sample.prepare_noise(case.latent["samples"], 7)
        out = comfy.sample.sample(
            model, noise, STEPS, 4.0, "euler", "simple", case.positive, case.negative, case.latent["samples"], seed=7,
            callback=lambda step, x0, x, total: seen.append((step, x0.clone(), x.clone(), total)))  # fmt: skip
        return out, seen

    cached = Cached(host, case.model, schedule, level)
    (out, ours), (_, core) = run(cached.model), run(case.model)
    assert cached.reports[0].evaluations == BUDGET and len(core) == STEPS
    assert [(step, total) for step, _, _, total in ours] == [(step, STEPS) for step in range(STEPS)]
    after = [x for _, _, x, _ in ours[1:]] + [out]
    for (step, x0, x, _), (_, wanted, _, _) in zip(ours, core, strict=True):
        assert x0.isfinite().all() and (x0 - wanted).norm() < 0.8 * wanted.norm()
        following = x + (x - x0) / sigmas[step] * (sigmas[step + 1] - sigmas[step])
        torch.testing.assert_close(case.model.model.process_latent_out(following) if step == STEPS - 1 else following,
                                   after[step])  # fmt: skip
    assert torch.equal(ours[0][1], core[0][1])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("first", ["ours", "compile"])
def test_a_compiled_model(host, cases, first, level):
    """The hooks lie outside the compiled network: the count stays exact and no step's decision is compiled into it."""
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler, and there is no g++")
    found = compiled(host, cases("FLUX.1"), level, first)
    assert found.good and found.made == BUDGET and found.used == "output"
    assert ("compiled as a whole" in found.reason) == (level == "blocks") and 0 < found.error < 0.5
