"""What tells one model or setting from every other, and what it is used for: nobody takes over another's measurements."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sampling import Cached, forwards, ksampler, make_schedule

KEY = "diffusion_model.double_blocks.0.img_mlp.0.weight"
LARGEST_SEED = 0xFFFFFFFFFFFFFFFF


@pytest.fixture(scope="module")
def identity(host):
    return host.module("nodes.host.identity")


@pytest.fixture(scope="module")
def mark(identity):
    return identity.model_fingerprint


def built(host, change=lambda weights: None):
    """A fresh model of the small network, with weights that `change` may write to."""
    library = host.module("otcache_core.demo.model")
    config = library.FluxConfig(hidden_size=32, axes_dim=(8, 12, 12), depth=1, depth_single_blocks=1, vec_in_dim=16,
                                context_in_dim=16)  # fmt: skip
    random = torch.Generator().manual_seed(5)
    shapes = library.FluxTransformer(config).state_dict()
    weights = {name: torch.randn(value.shape, generator=random) * 0.15 for name, value in shapes.items()}
    change(weights)
    return host.module("nodes.host.demo_flux").build_model(config, weights)


def with_lora(model, strength: float, seed: int = 0):
    from comfy.weight_adapter.lora import LoRAAdapter

    random = torch.Generator().manual_seed(seed)
    height, width = model.model.state_dict()[KEY].shape
    up, down = torch.randn(height, 4, generator=random), torch.randn(4, width, generator=random)
    clone = model.clone()
    assert clone.add_patches({KEY: LoRAAdapter(set(), (up, down, 4.0, None, None, None))}, strength) == [KEY]
    return clone


def load(model) -> None:
    import comfy.model_management

    comfy.model_management.load_models_gpu([model], force_full_load=True)


# -- the same model ------------------------------------------------------------------------------------------


def test_a_model_built_twice_or_cloned_is_the_same(host, mark):
    model = built(host)
    assert mark(model) == mark(built(host)) == mark(model.clone()) == mark(model)


def test_loading_changes_nothing(host, mark):
    """With weights patched in place and objects put in, by this clone and by others."""
    model = built(host)
    shifted, = host.run("ModelSamplingSD3", model=model, shift=5.0)
    clones = [model, with_lora(model, 0.5), with_lora(model, 0.5, seed=1), shifted, with_lora(shifted, 0.5)]
    expected = list(map(mark, clones))
    assert len(set(expected)) == len(clones)
    original = model.model.state_dict()[KEY].clone()
    for number, clone in enumerate(clones):
        load(clone)
        assert torch.equal(model.model.state_dict()[KEY], original) == (number in (0, 3))
        assert list(map(mark, clones)) == expected
    model.detach()
    assert list(map(mark, clones)) == expected


def test_sampling_and_our_cache_change_nothing(host, demo_small, mark):
    model = with_lora(demo_small.model, 0.3)
    before = mark(model)
    ksampler(host, demo_small, model)
    assert mark(model) == before
    cached = Cached(host, model, make_schedule(host, 12, 4))
    ksampler(host, demo_small, cached.model)
    assert mark(cached.model) == mark(model) == before


ELSEWHERE = """
import sys, tempfile
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from in_process import boot
with tempfile.TemporaryDirectory() as base:
    host = boot(Path(sys.argv[2]), Path(sys.argv[3]), Path(base))
    model, positive, negative, vae, latent = host.run("OTDemoModel")
    shifted, = host.run("ModelSamplingSD3", model=model, shift=5.0)
    rescaled, = host.run("RescaleCFG", model=shifted, multiplier=0.7)
    identity = host.module("nodes.host.identity")
    print("marks", identity.model_fingerprint(rescaled), identity.fingerprint(vae, positive, {"b", "a", "c"}))
"""


def test_another_process_finds_the_same(host, demo, identity):
    import folder_paths

    here = Path(__file__).parent
    command = [sys.executable, "-c", ELSEWHERE, str(here), str(Path(folder_paths.__file__).parent), str(here.parents[1])]
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    shifted, = host.run("ModelSamplingSD3", model=demo.model, shift=5.0)
    rescaled, = host.run("RescaleCFG", model=shifted, multiplier=0.7)
    mine = identity.model_fingerprint(rescaled), identity.fingerprint(demo.vae, demo.positive, {"c", "b", "a"})
    assert f"marks {' '.join(mine)}" in told


# -- another model -------------------------------------------------------------------------------------------


def scaled(factor, only=""):
    def change(weights):
        for name, value in weights.items():
            if only in name:
                value *= factor

    return change


def test_slightly_different_models_differ(host, mark):
    model = built(host)
    shift, rescale = (lambda **inputs: host.run("ModelSamplingSD3", model=model, **inputs)[0],
                      lambda **inputs: host.run("RescaleCFG", model=model, **inputs)[0])  # fmt: skip
    merged = [host.run("ModelMergeSimple", model1=model, model2=built(host, scaled(1.5)), ratio=ratio)[0]
              for ratio in (0.9, 0.91)]  # fmt: skip
    other = host.run("ModelMergeSimple", model1=model, model2=built(host, scaled(1.51)), ratio=0.9)[0]
    wrapped = []
    for strength in (0.5, 0.6):
        wrapped.append(model.clone())
        wrapped[-1].set_model_unet_function_wrapper(wrapper(strength))
    models = [
        model, built(host, scaled(1.01)), built(host, scaled(1.01, "double_blocks.0.img_mlp.0.weight")),
        with_lora(model, 0.05), with_lora(model, 0.06), with_lora(model, 0.05, seed=1), with_lora(with_lora(model, 0.05), 0.05),
        shift(shift=3.0), shift(shift=3.01), rescale(multiplier=0.5), rescale(multiplier=0.6), *merged, other, *wrapped,
    ]  # fmt: skip
    assert len(set(map(mark, models))) == len(models)


def wrapper(strength):
    def apply(apply_model, args):
        return apply_model(args["input"], args["timestep"], **args["c"]) * strength

    return apply


# -- what weights may be -------------------------------------------------------------------------------------


class Opaque(torch.Tensor):
    """As packs that run quantised files store weights: raw bytes that answer with another shape and must not be touched."""

    @property
    def shape(self):
        return torch.Size([64, 64])

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func.__name__ == "__get__":  # an attribute
            return super().__torch_function__(func, types, args, kwargs or {})
        raise AssertionError(f"{func} dequantises the whole weight")


def network(weight) -> torch.nn.Module:
    module = torch.nn.Module()
    module._parameters["weight"] = weight
    return module


def quantised(host, factor: float):
    comfy_quant = pytest.importorskip("comfy.quant_ops", reason="this ComfyUI has no quantised tensors")
    if not getattr(comfy_quant, "_CK_AVAILABLE", False):
        pytest.skip("comfy_kitchen is not installed")
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)) * factor
    return comfy_quant.QuantizedTensor.from_float(weight, "TensorCoreFP8E4M3Layout", scale="recalculate")


def test_quantised_weights_are_told_apart_by_codes_and_scales(host, identity):
    marks = [identity.fingerprint(network(quantised(host, factor))) for factor in (1.0, 1.0, 1.01)]
    assert marks[0] == marks[1] != marks[2]


def test_bytes_that_stand_for_weights_are_read_as_they_are(identity):
    raw = torch.arange(2048, dtype=torch.int32).view(torch.uint8)
    weights = [torch.Tensor._make_subclass(Opaque, raw + more) for more in (0, 0, 1)]
    marks = [identity.fingerprint(network(weight)) for weight in weights]
    assert marks[0] == marks[1] != marks[2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.bool, torch.complex64])
def test_weights_of_every_type_and_layout(identity, dtype):
    def marks(weight):
        return identity.fingerprint(network(weight))

    weight = (torch.arange(12 * 20).reshape(12, 20) % 7).to(dtype)
    other = weight.clone()
    other[6] = torch.tensor(3 if dtype != torch.bool else False).to(dtype)
    across = weight.view(torch.uint8) if dtype == torch.float8_e4m3fn else weight
    assert marks(weight) == marks(across.T.contiguous().T.view(weight.dtype) if across is weight else weight)
    assert marks(weight) != marks(other) and marks(weight) != marks(weight.reshape(20, 12))
    assert len({marks(weight[:0]), marks(weight[0, 0].clone()), marks(weight.to("meta"))}) == 3


def test_only_a_few_elements_of_a_weight_are_read(host, monkeypatch):
    weights, read = host.module("nodes.host.weight_samples"), []
    to_host = weights._to_host
    monkeypatch.setattr(weights, "_to_host", lambda runs: read.extend(map(len, runs)) or to_host(runs))
    weights.weight_words({"large": torch.zeros(4096, 1024), "small": torch.zeros(3)})
    assert read == [weights.RUN * 4, 3 * 4]


# -- values of every kind ------------------------------------------------------------------------------------


class Control:
    """As a ControlNet in a conditioning: an object with a strength, a hint and what it keeps while it runs."""

    def __init__(self, strength=1.0, hint=0.5):
        self.strength, self.hint, self.previous = strength, torch.full([1, 3, 600, 600], hint), None
        self.model = torch.nn.Linear(3, 3, bias=False)
        torch.nn.init.constant_(self.model.weight, 0.1)


def test_objects_functions_and_tensors_in_a_conditioning_count(identity):
    hint = Control()
    hint.hint[..., 300:320] = 0.25  # a part of what is too large to be read whole
    module = Control()
    torch.nn.init.constant_(module.model.weight, 0.2)
    chained = Control()
    chained.previous = Control(0.5)
    values = [Control(), Control(0.9), Control(hint=0.4), hint, module, chained, Control, wrapper(1.0), wrapper(2.0), "1", 1,
              1.0, True, None, b"1", [1], (1, [2]), {1: 2}, {"1": 2}, {1, 2}, torch.ones(2),
              torch.ones(2).double()]  # fmt: skip
    marks = [identity.fingerprint(["control", value]) for value in values]
    assert len(set(marks)) == len(marks)
    assert marks == [identity.fingerprint(["control", copy.deepcopy(value)]) for value in values]


def test_values_that_hold_themselves_are_read(identity):
    loop, other = Control(), Control()
    loop.previous, other.previous = loop, other
    nested = [1]
    nested.append(nested)
    assert identity.fingerprint(loop) == identity.fingerprint(other) != identity.fingerprint(Control())
    assert identity.fingerprint(nested)


def test_settings_that_differ_a_little_differ(host, demo_small):
    setting = host.module("nodes.host.setting")

    def mark(**changes):
        given = {"positives": [demo_small.positive], "negative": demo_small.negative, "latent": demo_small.latent, "seed": 3,
                 "count": 2, "steps": 12, "cfg": 7.5, "sampler": "euler", "scheduler": "simple", "denoise": 1.0}  # fmt: skip
        return setting.make_setting(demo_small.model, **given | changes).fingerprint()

    [[context, extra]] = demo_small.positive
    controls = [[[[context, extra | {"control": Control(strength)}]]] for strength in (0.5, 0.6)]
    marks = [mark(), mark(cfg=7.45), mark(seed=4), mark(count=3), mark(steps=13), mark(scheduler="beta"), mark(denoise=0.9),
             mark(negative=demo_small.positive), mark(latent={"samples": demo_small.latent["samples"] + 0.01}),
             *(mark(positives=control) for control in controls)]  # fmt: skip
    assert len(set(marks)) == len(marks) and mark() == marks[0]


# -- what it is used for -------------------------------------------------------------------------------------


class Decoder:
    """Decodes three channels of a latent, enlarged to a picture."""

    def __init__(self, gain: float = 1.0):
        self.gain = gain

    def decode(self, samples):
        picture = torch.nn.functional.interpolate(self.gain * samples[:, :3] / 8 + 0.5, scale_factor=8)
        return picture.clamp(0, 1).movedim(1, -1)


def reference(host, case, model, **inputs):
    options = {"positive": case.positive, "negative": case.negative, "latent_image": case.latent, "steps": 12, "cfg": 4.0,
               "cases": 2, "seed": 3, "budget": 5}  # fmt: skip
    return host.run("OTReferenceSchedule", model=model, **options | inputs)[:2]


def anchor(host, model, found, storage, vae=None):
    schedule, calibration = found
    return host.run("OTAnchorSearch", model=model, vae=vae or Decoder(), calibration=calibration, reference=schedule, budget=3,
                    trials=4, storage=str(storage), metric="rmse")[0]  # fmt: skip


def test_a_changed_model_takes_nothing_over_and_the_first_one_finds_its_own(host, demo_small, tmp_path):
    """One storage and one user folder for a model, the same with a weak LoRA, and the first again."""
    first, second = demo_small.model, with_lora(demo_small.model, 0.02)
    found = {name: (model, reference(host, demo_small, model)) for name, model in (("first", first), ("second", second))}
    made = {name: anchor(host, *pair, tmp_path / "a.db") for name, pair in found.items()}
    assert made["first"].score != made["second"].score
    for name, (model, calibrated) in found.items():
        with forwards(model) as sigmas:
            assert anchor(host, model, calibrated, tmp_path / "a.db") == made[name]
        assert not sigmas
    with forwards(first) as sigmas:  # and pictures of another VAE are other measurements
        anchor(host, first, found["first"][1], tmp_path / "a.db", Decoder(0.99))
    assert sigmas


def test_a_search_on_another_model_than_the_recorded_one_is_refused(host, demo_small, tmp_path):
    calibrated = reference(host, demo_small, demo_small.model)
    for other in (with_lora(demo_small.model, 0.5), host.run("ModelSamplingSD3", model=demo_small.model, shift=5.0)[0]):
        with pytest.raises(Exception, match="not the one that was recorded") as error:
            anchor(host, other, calibrated, tmp_path / "a.db")
        assert "\n" not in str(error.value)


def test_what_an_object_on_the_model_counts_while_it_runs_does_not_make_another_model_of_it(host, demo_small, tmp_path):
    seen = SimpleNamespace(count=0)

    def apply(apply_model, args):
        seen.count += 1
        return apply_model(args["input"], args["timestep"], **args["c"])

    model = demo_small.model.clone()
    model.set_model_unet_function_wrapper(apply)
    calibrated = reference(host, demo_small, model)
    assert seen.count and anchor(host, model, calibrated, tmp_path / "a.db").budget == 3


def test_recordings_of_two_models_do_not_overwrite_each_other(host, demo_small):
    """One is cancelled, the other is recorded whole, and the first goes on where it stopped."""
    import comfy.model_management

    first, second = (with_lora(demo_small.model, strength) for strength in (0.02, 0.03))

    def cancel(number):
        if number == 18:  # in the second of two runs of 12 steps
            comfy.model_management.interrupt_current_processing(True)

    with pytest.raises(comfy.model_management.InterruptProcessingException), forwards(first, cancel):
        reference(host, demo_small, first, seed=77)
    reference(host, demo_small, second, seed=77)
    with forwards(first) as sigmas:
        reference(host, demo_small, first, seed=77)
    with forwards(first) as whole:
        reference(host, demo_small, first, seed=77)
    assert len(sigmas) == len(whole) - 11


def test_the_largest_seed_wraps(host, demo_small):
    calibration = reference(host, demo_small, demo_small.model, seed=LARGEST_SEED)[1]
    assert [case.seed for case in calibration.setting.cases] == [LARGEST_SEED, 0]
    for case, run in zip(calibration.setting.cases, calibration.observed.trajectories, strict=True):
        sampled = ksampler(host, demo_small, seed=case.seed)
        torch.testing.assert_close(run.x[-1], sampled[0], atol=1e-4, rtol=1e-4)


# -- strange objects -----------------------------------------------------------------------------------------


def test_functions_are_told_apart_by_their_code(identity):
    assert identity.fingerprint(lambda x: x * 2) != identity.fingerprint(lambda x: x * 3)
    assert identity.fingerprint(lambda x: x * 2) == identity.fingerprint(lambda x: x * 2)


def test_modules_and_objects_that_cannot_be_read_count_by_name(identity):
    import json

    class Hostile:
        def __getattr__(self, name):
            raise RuntimeError(name)

    def patch(x):
        return json, torch, x

    assert identity.fingerprint(patch, json, torch, Hostile())


def test_slots_count(identity):
    class Slotted:
        __slots__ = ("value",)

        def __init__(self, value):
            self.value = value

    assert identity.fingerprint(Slotted(1)) != identity.fingerprint(Slotted(2))
    assert identity.fingerprint(Slotted(1)) == identity.fingerprint(Slotted(1))


def test_tensors_of_every_make(identity):
    dense = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    quantised = torch.quantize_per_tensor(dense, 0.1, 0, torch.qint8)
    others = [dense, dense.to_sparse(), dense.to_sparse_csr(), quantised, (dense * 1j).conj(), dense * 0.5]
    assert len({identity.fingerprint(tensor) for tensor in others}) == len(others)
