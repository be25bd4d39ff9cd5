"""How a calibration through the nodes goes: on the model as it is, interruptible, and refused where it cannot be made."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sampling import Cached, forwards, ksampler, make_schedule

# -- the model as it is --------------------------------------------------------------------------------------


SHORT = {"steps": 12, "cfg": 4.0, "cases": 2, "reference_budget": 5, "seed": 3}


def short(host, case, model=None, **inputs):
    """A quick reference of the small random model."""
    options = {name: value for name, value in (SHORT | inputs).items() if name != "reference_budget"}
    options = {"positive": case.positive, "negative": case.negative, "latent_image": case.latent} | options
    return host.run("OTReferenceSchedule", model=model or case.model, budget=5, **{"cfg": 7.5} | options)


def same(a, b):
    """Whether two calibrations recorded the same."""
    pairs = zip(a.observed.trajectories, b.observed.trajectories, strict=True)
    return all(torch.equal(x.x, y.x) and torch.equal(x.d, y.d) for x, y in pairs)


def test_recording_repeats_exactly_and_leaves_nothing_on_the_model(host, demo_small):
    before = ksampler(host, demo_small)
    _, first, _ = short(host, demo_small)
    _, second, _ = short(host, demo_small)
    assert same(first, second) and torch.equal(ksampler(host, demo_small), before)


def test_our_cache_on_the_model_is_left_out(host, demo_small):
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4))
    assert same(short(host, demo_small, cached.model)[1], short(host, demo_small)[1]) and not cached.reports


@pytest.mark.parametrize("node", ["EasyCache", "LazyCache"])
def test_another_cache_is_refused(host, demo_small, node):
    other, = host.run(node, model=demo_small.model)
    with pytest.raises(Exception, match="bypass one of them"):
        short(host, demo_small, other)


def test_patches_of_the_model_are_recorded(host, demo_small):
    shifted, = host.run("ModelSamplingSD3", model=demo_small.model, shift=5.0)
    reference, calibration, _ = short(host, demo_small, shifted)
    plain, other, _ = short(host, demo_small)
    assert reference.sigmas != plain.sigmas and not torch.equal(
        calibration.observed.trajectories[0].x[-1], other.observed.trajectories[0].x[-1]
    )
    run = ksampler(host, demo_small, shifted, seed=3)
    torch.testing.assert_close(calibration.observed.trajectories[0].x[-1], run[0], atol=1e-4, rtol=1e-4)


def test_a_list_of_prompts_and_a_batch_of_them_are_the_same_cases(host, demo_small):
    pairs = [demo_small.positive, demo_small.negative]
    listed = short(host, demo_small, positive=tuple(pairs), cases=1)[1]
    [[a, more]], [[b, others]] = pairs
    batch = [[torch.cat((a, b)), {"pooled_output": torch.cat((more["pooled_output"], others["pooled_output"]))}]]
    batched = short(host, demo_small, positive=batch, cases=1)[1]
    assert len(listed.observed.cases) == 2 and same(listed, batched)
    for number, positive in enumerate(pairs):
        case = SimpleNamespace(**vars(demo_small) | {"positive": positive})
        run = ksampler(host, case, seed=3 + number)
        torch.testing.assert_close(listed.observed.trajectories[number].x[-1], run[0], atol=1e-4, rtol=1e-4)


def test_image_to_image_and_masks_are_recorded_as_they_are_sampled(host, demo_small):
    torch.manual_seed(1)
    latent = {"samples": torch.randn(1, 16, 8, 8), "noise_mask": (torch.rand(1, 1, 8, 8) > 0.5).float()}
    calibration = short(host, demo_small, latent_image=latent, denoise=0.6)[1]
    assert len(calibration.observed.sigmas) == 13 and calibration.observed.sigmas[0] < 1
    for number in range(2):
        run = ksampler(host, demo_small, latent_image=latent, denoise=0.6, seed=3 + number)
        recorded = calibration.observed.trajectories[number].x[-1]
        hidden = latent["noise_mask"][0].bool()
        torch.testing.assert_close(recorded[hidden.expand(16, 8, 8)], run[0][hidden.expand(16, 8, 8)], atol=1e-4, rtol=1e-4)


def test_cfg_1_and_other_batches(host, demo_small):
    latent = {"samples": torch.zeros(3, 16, 8, 8)}
    calibration = short(host, demo_small, cfg=1.0, latent_image=latent, cases=1)[1]
    run = ksampler(host, demo_small, cfg=1.0, seed=3)
    torch.testing.assert_close(calibration.observed.trajectories[0].x[-1], run[0], atol=1e-4, rtol=1e-4)


def test_core_empty_latents_are_fitted_to_the_model(host, demo_small):
    empty, = host.run("EmptyLatentImage", width=32, height=32, batch_size=1)
    calibration = short(host, demo_small, latent_image=empty, cases=1)[1]
    run = ksampler(host, demo_small, latent_image=empty, seed=3)
    torch.testing.assert_close(calibration.observed.trajectories[0].x[-1], run[0], atol=1e-4, rtol=1e-4)


# -- stopping and going on -----------------------------------------------------------------------------------


def cancel_at(count):
    """For `forwards`: presses cancel at the model's forward pass of that number."""
    import comfy.model_management

    return lambda number: number == count and comfy.model_management.interrupt_current_processing(True)


def interrupted():
    import comfy.model_management

    return pytest.raises(comfy.model_management.InterruptProcessingException)


def test_a_cancelled_recording_goes_on(host, demo_small):
    expected = short(host, demo_small, seed=40)[1]
    with interrupted(), forwards(demo_small.model, cancel_at(18)):  # in the second of two runs of 12 steps
        short(host, demo_small, seed=40)
    with forwards(demo_small.model) as sigmas:
        again = short(host, demo_small, seed=40)[1]
    assert same(again, expected)
    with forwards(demo_small.model) as whole:
        short(host, demo_small, seed=40)
    assert len(sigmas) == len(whole) - 11  # the finished run is checked with one evaluation instead of made


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_cancelled_search_goes_on(host, demo_small, vae_of_latents, tmp_path, share):
    """Early in the search, late in it, and while budgets are prepared: nothing is lost, and the end is the same."""
    reference, calibration, _ = short(host, demo_small)
    options = {"model": demo_small.model, "vae": vae_of_latents, "calibration": calibration, "reference": reference,
               "budget": 3, "trials": 12}  # fmt: skip

    def search(name, act=None):
        with forwards(demo_small.model, act) as sigmas:
            return host.run("OTAnchorSearch", storage=str(tmp_path / name), **options)[0], len(sigmas)

    forget_measurements()
    whole, full = search("b.db")
    assert search("b.db")[0] == whole and search("b.db")[1] <= full / 10
    forget_measurements()
    with interrupted():
        search("a.db", cancel_at(int(share * full)))
    resumed, spent = search("a.db")
    assert resumed == whole and spent <= (1 - share / 4) * full


def forget_measurements():
    """Empties the folder in which anchor searches keep what they have measured."""
    import folder_paths

    for path in Path(folder_paths.get_user_directory(), "otcache").glob("*.jsonl"):
        path.unlink()


@pytest.fixture
def vae_of_latents():
    """Decodes three channels of a latent, enlarged to a picture."""

    class Decoder:
        def decode(self, samples):
            picture = torch.nn.functional.interpolate(samples[:, :3] / 8 + 0.5, scale_factor=8)
            return picture.clamp(0, 1).movedim(1, -1)

    return Decoder()


# -- what can go wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"steps": 5}, "budget is 5, but the run has 5 steps"),
        ({"steps": 3, "denoise": 0.01}, "budget is 5"),
        ({"seed": 3, "steps": 4}, "choose a smaller budget"),
    ],
)
def test_a_reference_that_cannot_be_made_is_refused_at_once(host, demo_small, inputs, message):
    with forwards(demo_small.model) as sigmas, pytest.raises(Exception, match=message):
        short(host, demo_small, **inputs)
    assert not sigmas


def test_an_anchor_not_below_its_reference_is_refused_at_once(host, demo_small, vae_of_latents):
    reference, calibration, _ = short(host, demo_small)
    with forwards(demo_small.model) as sigmas, pytest.raises(Exception, match="must be below the reference's 5"):
        host.run("OTAnchorSearch", model=demo_small.model, vae=vae_of_latents, calibration=calibration, reference=reference,
                 budget=5)  # fmt: skip
    assert not sigmas


def test_a_storage_that_cannot_be_opened_is_refused_at_once(host, demo_small, vae_of_latents, tmp_path):
    reference, calibration, _ = short(host, demo_small)
    with forwards(demo_small.model) as sigmas, pytest.raises(Exception, match="cannot be opened"):
        host.run("OTAnchorSearch", model=demo_small.model, vae=vae_of_latents, calibration=calibration, reference=reference,
                 budget=3, storage=str(tmp_path / "no" / "folder.db"))  # fmt: skip
    assert not sigmas


@pytest.mark.parametrize(("package", "inputs"), [("optuna", {}), ("lpips", {"metric": "lpips"})])
def test_a_package_that_is_missing_is_told_at_once(host, demo_small, vae_of_latents, monkeypatch, package, inputs):
    reference, calibration, _ = short(host, demo_small)
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with forwards(demo_small.model) as sigmas, pytest.raises(Exception, match=f'run "pip install {package}"'):
        host.run("OTAnchorSearch", model=demo_small.model, vae=vae_of_latents, calibration=calibration, reference=reference,
                 budget=3, **inputs)  # fmt: skip
    assert not sigmas


def test_the_reference_takes_the_storage_of_the_search_that_follows(host):
    """So that several machines divide the full runs too, and no second widget can disagree."""
    storage_of = host.module("nodes.reference_schedule").storage_of
    reference = {"class_type": "OTReferenceSchedule", "inputs": {}}

    def prompt(storage, follows="1"):
        inputs = {"reference": [follows, 0], "storage": storage}
        return {"1": reference, "2": {"class_type": "OTAnchorSearch", "inputs": inputs}}

    assert storage_of(prompt("env:OTCACHE_STORAGE"), "1") == "env:OTCACHE_STORAGE"
    for nothing in (None, {}, {"1": reference}, prompt(""), prompt(["3", 0]), prompt("journal:a", follows="4")):
        assert storage_of(nothing, "1") is None
