"""Calibration through the nodes: the library's own schedules, on the model as it is, interruptible, and good on new cases."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sampling import Cached, core_cache, forwards, ksampler, make_schedule

STEPS, CFG, SEED = 50, 7.5, 500
SCENES, CASES = 1000, 2  # of the demo model's random scenes
TRIALS = 20


def calibrate(host, model, positive, negative, latent, vae, storage="", **inputs):
    """Reference and anchor as a user queues them; inputs of both nodes by name."""
    first = {name: inputs.pop(name) for name in ("steps", "cfg", "cases", "seed", "scheduler", "denoise") if name in inputs}
    budget = inputs.pop("reference_budget", 15)
    reference, calibration, plot = host.run(
        "OTReferenceSchedule", model=model, positive=positive, negative=negative, latent_image=latent, budget=budget,
        **{"cfg": 7.5} | first,
    )
    anchor, curve, summary = host.run(
        "OTAnchorSearch", model=model, vae=vae, calibration=calibration, reference=reference, storage=storage, **inputs
    )
    return SimpleNamespace(reference=reference, calibration=calibration, plots=(plot, curve), anchor=anchor, summary=summary)


@pytest.fixture(scope="module")
def scenes(host):
    """Random scenes of the demo model, as a batch of prompts."""
    names = ("model", "positive", "negative", "vae", "latent")
    return SimpleNamespace(**dict(zip(names, host.run("OTDemoModel", random_scenes=SCENES, batch_size=CASES), strict=True)))


@pytest.fixture(scope="module")
def done(host, scenes, tmp_path_factory):
    """The calibration that the tests look at: few cases and trials, else all defaults."""
    storage = str(tmp_path_factory.mktemp("search") / "a.db")
    given = (scenes.model, scenes.positive, scenes.negative, scenes.latent, scenes.vae, storage)
    return calibrate(host, *given, seed=SEED, cases=CASES, trials=TRIALS)


@pytest.fixture(scope="module")
def swept():
    """Runs of core's caches; see `sampling.core_cache`."""
    return {}


def test_nodes_make_the_schedules_of_the_library(host, done):
    """Same model, seeds and prompts; the library runs its own forward pass, which rounds differently."""
    demo = host.module("otcache_core.demo.generator")
    pipeline = host.module("otcache_core.calibration.pipeline")
    cases = [demo.DemoCase(SEED + i, case.scene) for i, case in enumerate(demo.cases(CASES, SCENES))]
    settings = pipeline.Settings(budgets=range(8, 16), trials=TRIALS, model="demo")
    found = pipeline.calibrate(demo.DemoGenerator(), cases, np.array(done.reference.sigmas), settings)
    assert done.reference.compute_steps == found.reference.compute_steps
    assert done.anchor.compute_steps == found.anchor.compute_steps
    assert [s.compute_steps for s in done.anchor.prepared] == [s.compute_steps for s in found.schedules.values()]
    for ours, theirs in zip(done.anchor.prepared, found.schedules.values(), strict=True):
        np.testing.assert_allclose(np.concatenate(ours.weights), np.concatenate(theirs.weights), atol=2e-2)
        assert ours.score == pytest.approx(theirs.score, rel=1e-2)


def test_recordings_are_what_ksampler_samples(host, scenes, done):
    for number, run in enumerate(done.calibration.observed.trajectories):
        [[context, extra]] = scenes.positive
        positive = [[context[number : number + 1], {"pooled_output": extra["pooled_output"][number : number + 1]}]]
        case = SimpleNamespace(model=scenes.model, positive=positive, negative=scenes.negative,
                               latent={"samples": scenes.latent["samples"][:1]})  # fmt: skip
        sampled = ksampler(host, case, steps=STEPS, cfg=CFG, seed=SEED + number)
        torch.testing.assert_close(run.x[-1], sampled[0], atol=1e-4, rtol=0)


def test_what_the_nodes_say(done):
    assert done.reference.stage == "reference" and done.reference.budget == 15
    assert (done.reference.sampler, done.reference.scheduler, done.anchor.scheduler) == ("euler", "simple", "simple")
    assert [s.budget for s in done.anchor.prepared] == list(range(8, 16))
    assert "Anchor: 8 of 50 evaluations" in done.summary and "full runs" in done.summary
    assert len(done.calibration.observed.cases) == len(set(map(str, done.calibration.observed.cases))) == CASES
    spent = sum(done.calibration.observed.evaluations.values())
    assert STEPS < spent < 2.5 * STEPS and done.calibration.seconds > 0
    for plot in done.plots:
        assert plot.ndim == 4 and plot.shape[0] == 1 and plot.shape[-1] == 3 and plot.std() > 0.05
    for budget, schedule in zip(range(8, 16), done.anchor.prepared, strict=True):
        assert schedule.weights is not None and schedule.score > 0 and schedule.budget == budget


@pytest.mark.parametrize(("cases", "words"), [(1, "over 1 case."), (2, "over 2 cases.")])
def test_one_case_is_no_plural(host, cases, words):
    anchor = SimpleNamespace(budget=8, steps=50, metric="rmse", score=0.1, prepared=())
    found = SimpleNamespace(anchor=anchor, evaluations={"record": 50.0}, decoded=0.0)
    assert words in host.module("nodes.anchor_search").summary(found, cases)


@pytest.mark.parametrize("budget", [1, 5, 8, 11, 15, 30, 50])
def test_the_slider_gives_every_budget(host, done, budget):
    schedule, strip = host.run("OTBudgetInterpolate", reference=done.reference, anchor=done.anchor, budget=budget)
    assert schedule.budget == budget and strip.shape[-1] == 3
    if 8 <= budget <= 15:
        assert schedule == done.anchor.prepared[budget - 8]


def test_a_saved_anchor_still_serves_every_budget(host, done):
    name = host.run_with_ui("OTSaveSchedule", schedule=done.anchor, name="whole", overwrite=True)
    assert name
    loaded, = host.run("OTLoadSchedule", schedule="whole.json")
    assert loaded == done.anchor
    schedule, _ = host.run("OTBudgetInterpolate", reference=done.reference, anchor=loaded, budget=12)
    assert schedule == done.anchor.prepared[4]


def psnr(vae, a, b):
    """Mean PSNR of the pictures, in dB."""
    return float(-10 * (vae.decode(a) - vae.decode(b)).square().flatten(1).mean(1).log10().mean())


@pytest.mark.parametrize("budget", [8, 10, 15])
def test_new_cases_are_8_db_nearer_than_lazycache_and_dpmpp_2m_at_equal_evaluations(host, done, swept, budget):
    """Four scenes and seeds that the calibration has not seen; `benchmarks/quality.py` measures more."""
    names = ("model", "positive", "negative", "vae", "latent")
    new = SimpleNamespace(**dict(zip(names, host.run("OTDemoModel", random_scenes=2000, batch_size=4), strict=True)))
    options = {"cfg": CFG, "steps": STEPS, "seed": 77}
    full = ksampler(host, new, **options)
    schedule, _ = host.run("OTBudgetInterpolate", reference=done.reference, anchor=done.anchor, budget=budget)
    cached = Cached(host, new.model, schedule)
    ours = psnr(new.vae, ksampler(host, new, cached.model, **options), full)
    assert cached.reports[0].evaluations == budget
    plain = psnr(new.vae, ksampler(host, new, **options | {"steps": budget, "sampler_name": "dpmpp_2m"}), full)
    lazy = max(psnr(new.vae, samples, full) for _, samples in core_cache(host, new, "LazyCache", budget, options, seen=swept))
    print(f"{budget} evaluations: ours {ours:.1f}, dpmpp_2m {plain:.1f}, LazyCache {lazy:.1f} dB")
    assert ours >= max(plain, lazy) + 8, f"ours {ours:.1f}, dpmpp_2m {plain:.1f}, LazyCache {lazy:.1f} dB"


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
