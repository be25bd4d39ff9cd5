"""Where OT Auto Cache keeps what it learnt: which model finds it, and files that are damaged, foreign or in the way."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from learning import STEPS, Auto, lessons, run, teach
from sampling import ksampler


@pytest.fixture
def key(host):
    return host.module("nodes.host.learned").model_key


def lora(case, strength=0.3):
    """Patches as LoRA loaders make them, of one weight of `case`'s model."""
    import comfy.lora

    weight = "diffusion_model.double_blocks.0.img_mlp.0"
    rows, columns = case.model.get_model_object(f"{weight}.weight").shape
    generator = torch.Generator().manual_seed(9)
    loaded = {f"{weight}.lora_A.weight": torch.randn(4, columns, generator=generator) * strength,
              f"{weight}.lora_B.weight": torch.randn(rows, 4, generator=generator) * strength}  # fmt: skip
    return comfy.lora.load_lora(loaded, {weight: f"{weight}.weight"})


def with_lora(case):
    model = case.model.clone()
    assert model.add_patches(lora(case), 1.0)
    return model


def tiny(host, name="FLUX.1", seed=5, **kwargs):
    from matrix_models import MODELS, build

    return build(MODELS[name], seed, **kwargs)


# --- which model it is -------------------------------------------------------------------------------------------


def test_the_same_model_has_the_same_key(host, demo, learnt, key):
    import comfy.model_management as management

    known = key(demo.model)
    patched = with_lora(demo)
    shifted, = host.run("ModelSamplingSD3", model=demo.model, shift=5.0)
    flux, = host.run("ModelSamplingFlux", model=demo.model, max_shift=1.15, base_shift=0.5, width=512, height=512)
    both, = host.run("ModelSamplingSD3", model=patched, shift=2.0)
    variants = [demo.model.clone(), patched, shifted, flux, both, Auto(host, patched).model, patched.clone(),
                host.run("RescaleCFG", model=demo.model, multiplier=0.7)[0]]  # fmt: skip
    assert {key(model) for model in variants} == {known}
    for model in variants:  # each is loaded while the others are looked at, its LoRA in the weights
        management.load_models_gpu([model])
        assert {key(one) for one in (*variants, demo.model)} == {known}
    management.unload_all_models()
    assert {key(one) for one in (*variants, demo.model)} == {known}


def test_a_lora_a_shift_and_everything_else_use_what_was_learnt(host, demo, learnt):
    teach(host, demo)
    shifted, = host.run("ModelSamplingSD3", model=with_lora(demo), shift=1.5)
    latent = {"samples": torch.zeros(1, 16, 8, 24)}
    assert run(host, demo, Auto(host, shifted), cfg=2.0, latent_image=latent, positive=demo.negative)[1] == 6
    assert len(lessons(learnt)) == 1
    assert run(host, demo, Auto(host, demo.model))[1] == 6


def test_a_model_that_learns_with_a_lora_is_known_without(host, demo, learnt):
    run(host, demo, Auto(host, with_lora(demo)))
    assert run(host, demo, Auto(host, demo.model))[1] == 6


def test_other_weights_are_another_model(host, learnt, key):
    one, other = tiny(host), tiny(host, seed=6)
    assert key(one.model) != key(other.model)
    assert key(one.model) != key(tiny(host, dtype="bfloat16").model)
    assert key(one.model) == key(tiny(host).model)
    assert key(one.model).startswith("Flux-") and key(one.model).isascii()
    before = key(one.model)
    with torch.inference_mode():
        one.model.model.diffusion_model.final_layer.linear.weight.mul_(1.01)
    assert key(one.model) != before


def test_merges_are_other_models(host, learnt, key):
    one, other, third = (tiny(host, seed=seed) for seed in (5, 6, 7))

    def merged(a, b, ratio=0.5):
        return host.run("ModelMergeSimple", model1=a.model, model2=b.model, ratio=ratio)[0]

    keys = [key(model) for model in (one.model, other.model, merged(one, other), merged(one, other, 0.4), merged(one, third),
                                     merged(other, one))]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert key(merged(one, other)) == keys[2] == key(merged(one, other).clone())
    import comfy.model_management as management

    model = merged(one, other)
    management.load_models_gpu([model])
    assert key(model) == keys[2] and key(one.model) == keys[0]
    management.unload_all_models()


def test_a_merge_learns_anew(host, learnt):
    one, other = tiny(host), tiny(host, seed=6)
    inputs = {"cfg": 1.0}
    run(host, one, Auto(host, one.model), **inputs)
    merge, = host.run("ModelMergeSimple", model1=one.model, model2=other.model, ratio=0.5)
    auto = Auto(host, merge)
    run(host, one, auto, **inputs)
    assert "learnt from this run" in auto.report.reason
    assert len(lessons(learnt)) == 2 and len({path.parent for path in lessons(learnt)}) == 2


def test_two_models_in_one_workflow_keep_apart(host, demo, demo_small, learnt):
    autos = [(case, Auto(host, case.model)) for case in (demo, demo_small)]
    for case, auto in autos:
        run(host, case, auto)
    assert len({path.parent for path in lessons(learnt)}) == 2
    for case, auto in autos:
        assert run(host, case, auto)[1] == 6


def test_a_key_costs_milliseconds(host, demo, key):
    key(demo.model)
    patched, times = with_lora(demo), []
    for _ in range(5):
        start = time.process_time()
        key(patched)
        times.append(time.process_time() - start)
    count = len(list(demo.model.model.diffusion_model.parameters()))
    assert min(times) < 0.005 + 2e-4 * count, f"{min(times)} s for {count} weights"


# --- files -------------------------------------------------------------------------------------------------------


def rewritten(path, **changes):
    """The lesson at `path` with other arrays or other words in its description."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(path, framework="np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        [(kind, text)] = file.metadata().items()
    words = json.loads(text)
    for name, change in changes.items():
        where = arrays if name in arrays else words
        where[name] = change(where[name])
    save_file(arrays, path, {kind: json.dumps(words)})


def nested(depth):
    return [nested(depth - 1)] if depth else []


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "half written": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "foreign": lambda path: path.write_bytes(b"PK\x03\x04 something else" * 100),
    "too large": lambda path: path.write_bytes(path.read_bytes() + bytes(9 * 2**20)),
    "another safetensors file": lambda path: __import__("safetensors.numpy").numpy.save_file({"a": np.zeros(3)}, path),
    "NaN": lambda path: rewritten(path, grams=lambda grams: grams * np.nan),
    "NaN in a visit": lambda path: rewritten(path, **{"gram.0": lambda gram: gram * np.float32("nan")}),
    "another shape": lambda path: rewritten(path, grams=lambda grams: grams[:, 1:]),
    "another version": lambda path: rewritten(path, version=lambda _: 99),
    "runs": lambda path: rewritten(path, runs=lambda _: "many"),
    "no runs": lambda path: rewritten(path, runs=lambda _: 0),
    "visits": lambda path: rewritten(path, visits=lambda _: [[99]]),
    "visits of another kind": lambda path: rewritten(path, visits=lambda _: {"a": 1}),
    "rehearsals": lambda path: rewritten(path, rehearsals=lambda _: [[1, 2]]),
    "nested": lambda path: rewritten(path, visits=lambda _: nested(400)),
    "origin": lambda path: rewritten(path, origin=lambda _: {"cfg": "much"}),
    "sigmas": lambda path: rewritten(path, sigmas=lambda sigmas: sigmas[::-1].copy()),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_told_once_and_learning_begins_anew(host, demo, learnt, caplog, name):
    teach(host, demo)
    [path] = lessons(learnt)
    DAMAGE[name](path)
    host.module("nodes.host.learned")._read.clear()  # as after a restart
    auto = Auto(host, demo.model)
    with caplog.at_level(logging.WARNING):
        samples, _ = run(host, demo, auto)
        assert torch.equal(samples, ksampler(host, demo, steps=STEPS)) and "learnt from this run" in auto.report.reason
        assert run(host, demo, auto)[1] == 6
    told = [record.message for record in caplog.records if path.name in record.message]
    assert len(told) == 1 and "holds no statistics of a model" in told[0] and "\n" not in told[0]
    assert len(lessons(learnt)) == 2, "a file that somebody may want is not thrown away"


@pytest.mark.parametrize("change", [lambda grams: grams * 0, lambda grams: -grams, lambda grams: grams * 1e300,
                                    lambda grams: np.ones_like(grams)])  # fmt: skip
def test_whole_files_with_nonsense_never_stop_a_run(host, demo, learnt, change):
    teach(host, demo)
    [path] = lessons(learnt)
    rewritten(path, grams=change)
    host.module("nodes.host.learned")._read.clear()
    auto = Auto(host, demo.model)
    samples, _ = run(host, demo, auto)
    assert samples.isfinite().all() and auto.report


@pytest.mark.parametrize("how", ["a file in the way", "no permission"])
def test_a_folder_that_cannot_be_written(host, demo, learnt, how):
    learned = host.module("nodes.host.learned")
    folder = learned.folder(learned.model_key(demo.model))
    if how == "a file in the way":
        folder.parent.parent.mkdir(parents=True)
        folder.parent.write_text("not a folder")
    elif os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    else:
        folder.mkdir(parents=True)
        folder.chmod(0o500)
    auto = Auto(host, demo.model)
    for _ in range(2):
        samples, _ = run(host, demo, auto)
        assert torch.equal(samples, ksampler(host, demo, steps=STEPS))
        assert "what was learnt could not be kept: Cannot write" in auto.report.reason
    if how == "no permission":
        folder.chmod(0o700)


def test_a_full_disk_leaves_no_half_file(host, demo, learnt, monkeypatch):
    def full(path, data):
        with open(path, "wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    auto = Auto(host, demo.model)
    run(host, demo, auto)
    assert "could not be kept" in auto.report.reason and "No space left" in auto.report.reason and not lessons(learnt)


def test_a_lesson_is_small_and_holds_no_picture(host, demo, learnt):
    from safetensors import safe_open

    samples = teach(host, demo, steps=50)
    [path] = lessons(learnt)
    assert path.stat().st_size < 200_000
    with safe_open(path, framework="np") as file:
        sizes = [file.get_tensor(name).size for name in file.keys()]  # noqa: SIM118
    assert max(sizes) <= 2 * 50 * 50 < samples.numel() * 50


def test_threads_that_learn_at_once_lose_nothing(host, demo, learnt):
    learned = host.module("nodes.host.learned")
    teach(host, demo)
    key = learned.model_key(demo.model)
    [known] = learned.recall(key)
    failed = []

    def work():
        try:
            for _ in range(5):
                learned.remember(key, known)
                learned.recall(key)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failed and sum(one.runs for one in learned.recall(key)) == 41


OTHER = """
import sys, time
from pathlib import Path
sys.path.append({tests!r})
from in_process import boot
host = boot(Path({comfy!r}), Path({repository!r}), Path(sys.argv[1]))
import folder_paths
from sampling import ksampler
from types import SimpleNamespace
folder_paths.folder_names_and_paths["otcache_schedules"] = [{folder!r}], set()
demo = SimpleNamespace(**dict(zip(("model", "positive", "negative", "vae", "latent"), host.run("OTDemoModel"))))
auto = host.module("nodes.host.auto")
reports = []
for seed in (1, 2):
    model = auto.with_auto_cache(demo.model, auto.Target(), learn="this run too", on_report=reports.append)
    ksampler(host, demo, model, steps=20, seed=seed)
assert all("learnt from this run" in report.reason for report in reports), reports
"""


def test_two_processes_that_learn_at_once_lose_nothing(host, demo, learnt, tmp_path):
    import folder_paths

    tests = Path(__file__).parent
    code = OTHER.format(tests=str(tests), comfy=str(Path(folder_paths.__file__).parent), repository=str(tests.parents[1]),
                        folder=str(learnt))  # fmt: skip
    both = []
    for name in "ab":
        (tmp_path / name).mkdir()
        both.append(subprocess.Popen([sys.executable, "-c", code, str(tmp_path / name)], stderr=subprocess.PIPE, text=True,
                                     env=os.environ | {"PYTHONPATH": ""}))  # fmt: skip
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
    learned = host.module("nodes.host.learned")
    [known] = learned.recall(learned.model_key(demo.model))  # the key is the same in every process
    assert known.runs == 4 == len(lessons(learnt))
    assert run(host, demo, Auto(host, demo.model))[1] == 6
