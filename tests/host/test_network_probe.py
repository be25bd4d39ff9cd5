"""Whether the network ran: counted in ComfyUI's own passes, whatever stands between the guider and the blocks."""

from unittest.mock import patch

import pytest
from matrix_models import MODELS, build
from sampling import ksampler

RUNS = ("FLUX.1", "Qwen-Image", "Wan 2.1 t2v", "Z-Image", "SD 3.5", "SD 1.5", "HiDream", "Cosmos Predict 2")


class Probed:
    """`model` with a probe on it; `seen` has (rows, work, ran) of every evaluation."""

    def __init__(self, host, model, network=True):
        from comfy.patcher_extension import WrappersMP

        self.probe = host.module("nodes.host.network_probe").NetworkProbe()
        self.model, self.seen = model.clone(), []
        if network:
            self.probe.watch(model.model.diffusion_model)

        def predict_noise(executor, *args, **kwargs):
            self.probe.begin()
            out = executor(*args, **kwargs)
            self.seen.append((self.probe.rows, self.probe.work, self.probe.ran))
            return out

        def apply_model(executor, *args, **kwargs):
            return self.probe.apply_model(executor, *args, **kwargs)

        self.model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "probe", predict_noise)
        self.model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "probe", apply_model)


@pytest.fixture
def probed(host):
    made = []

    def probe(model, **options):
        made.append(Probed(host, model, **options))
        return made[-1]

    yield probe
    for each in made:
        each.probe.close()


@pytest.mark.parametrize("name", RUNS)
def test_every_evaluation_of_every_model_is_seen(host, probed, name):
    case = build(MODELS[name])
    if case is None:
        pytest.skip("this ComfyUI has no such model")
    both = probed(case.model)
    ksampler(host, case, both.model, steps=4)
    assert len(set(both.seen)) == 1
    rows, work, ran = both.seen[0]
    assert rows == 2 and work >= 2 * len(case.blocks) and ran
    one = probed(case.model)
    ksampler(host, case, one.model, steps=4, cfg=1.0)
    assert set(one.seen) == {(1, work // 2, True)}
    one.probe.close()
    both.probe.close()
    assert not any(module._forward_pre_hooks for module in case.model.model.diffusion_model.modules())


def test_blocks_that_another_cache_leaves_out_are_missed(host, demo_small, probed):
    """All of them, as TeaCache's copy of forward does; or all but the first, as WaveSpeed's list of blocks does."""
    found = probed(demo_small.model)
    network = demo_small.model.model.diffusion_model
    single = network.single_blocks
    for left in ([], [network.double_blocks[0]]):
        calls = []

        def forward(self, args, extra, left=left, calls=calls):
            calls.append(self)
            if len(calls) > 2 and self not in left:
                return {name: args[name] for name in ("img", "txt") if name in args}
            return extra["original_block"](args)

        model = found.model.clone()
        for name, blocks in (("double_block", network.double_blocks), ("single_block", single)):
            for i, block in enumerate(blocks):
                model.set_model_patch_replace(lambda args, extra, block=block: forward(block, args, extra), "dit", name, i)
        found.seen.clear()
        ksampler(host, demo_small, model, steps=3)
        assert [work for _, work, _ in found.seen] == [4, 2 * len(left), 2 * len(left)]
        assert [ran for *_, ran in found.seen] == [True, bool(left), bool(left)]


def test_a_model_that_is_not_called_did_not_run(host, demo_small, probed):
    found = probed(demo_small.model)
    answers = iter([False, True, True])

    def skipping(apply, inputs):
        return inputs["input"] if next(answers) else apply(inputs["input"], inputs["timestep"], **inputs["c"])

    model = found.model.clone()
    model.set_model_unet_function_wrapper(skipping)
    ksampler(host, demo_small, model, steps=3)
    assert [(rows, ran) for rows, _, ran in found.seen] == [(2, True), (0, False), (0, False)]


def test_without_blocks_to_count_the_calls_count(host, demo_small, probed):
    found = probed(demo_small.model, network=False)
    ksampler(host, demo_small, found.model, steps=3)
    assert found.seen == [(2, None, True)] * 3


def test_what_is_compiled_is_left_alone(host, demo_small):
    import torch

    probe = host.module("nodes.host.network_probe").NetworkProbe()
    network = demo_small.model.model.diffusion_model
    probe.watch(torch.compile(network, backend="eager"))
    with patch.object(network.double_blocks[0], "_compiled_call_impl", lambda *_: None):
        probe.watch(network)
    assert not any(module._forward_pre_hooks for module in network.modules())
