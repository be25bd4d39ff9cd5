"""Every situation at every reuse level with euler, and with one sampler of each kind at output level.

benchmarks/matrix.py prints the same cells, with more samplers.
"""

import shutil

import pytest
from matrix_cells import BUDGET, LEVELS, own_schedule, sampler_kind
from matrix_models import MODELS, build, version
from matrix_situations import SITUATIONS, cell_of
from sampling import Cached, ksampler


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
    found = cell_of(host, cases(SITUATIONS[name].model), name, level, "euler")
    assert found.exact and found.finite, found
    assert found.made == found.wanted == SITUATIONS[name].evaluations, found
    reason = SITUATIONS[name].no_blocks
    if level == "blocks" and reason:
        assert reason in found.reason and found.used == "output"
    else:
        assert not found.reason and found.used == level
    assert 0 < found.error < 1


@pytest.mark.parametrize("sampler", ["uni_pc", "heun", "dpm_2", "dpm_adaptive", "euler_ancestral_cfg_pp"])
@pytest.mark.parametrize("name", ["inpainting", "PerpNeg", "time ranges", "context windows", "LoRA hook"])
def test_other_samplers(host, cases, name, sampler):
    if (name, sampler) == ("context windows", "dpm_2") and version() < (0, 25):
        pytest.skip("this ComfyUI's own context windows stop at noise levels between two steps")
    found = cell_of(host, cases(SITUATIONS[name].model), name, "output", sampler)
    assert found.good, found
    assert bool(found.reason) == (sampler_kind(sampler) == "in full")
    assert (found.error == 0) == bool(found.reason)


@pytest.mark.parametrize("first", ["ours", "compile"])
def test_a_compiled_model(host, cases, first):
    """The hooks lie outside the compiled network: the count stays exact and no step's decision is compiled into it."""
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler, and there is no g++")
    case = cases("FLUX.1")
    case.model.cached_patcher_init = (rebuilt, (case.model.model,))  # as loaders set it: the node builds the model anew
    schedule = own_schedule(host, case.model, BUDGET)

    def compiled(model):
        return host.run("TorchCompileModel", model=model, backend="inductor")[0]

    plain = ksampler(host, case, Cached(host, case.model, schedule).model)
    source = compiled(case.model) if first == "compile" else case.model
    cached = Cached(host, source, schedule)
    model = cached.model if first == "compile" else compiled(cached.model)
    ours = ksampler(host, case, model)
    assert [report.evaluations for report in cached.reports] == [BUDGET] and not cached.reports[0].reason
    assert (ours - plain).norm() < 1e-3 * plain.norm()


def rebuilt(model, disable_dynamic=True):
    import comfy.model_management as management
    import comfy.model_patcher

    return comfy.model_patcher.ModelPatcher(model, management.get_torch_device(), management.unet_offload_device())
