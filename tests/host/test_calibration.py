"""What a calibration through the nodes gives: the library's own schedules, for every budget, and good on new cases."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sampling import Cached, core_cache, ksampler

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
