"""A schedule on a MODEL: exact where everything is computed, truthful where not, and leaving nothing behind."""

import gc
import weakref

import pytest
import torch
from sampling import PASSES, Cached, forwards, ksampler, make_schedule

LEVELS = ["output", "blocks"]


def different_length(case, tokens):
    """The negative prompt of `case`, `tokens` long."""
    context, extra = case.negative[0]
    return [[torch.cat([context] * 2, dim=1)[:, :tokens], extra]]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_computing_every_step_changes_nothing(host, demo_small, level, cfg):
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 12), level)
    with forwards(demo_small.model) as made:
        ours = ksampler(host, demo_small, cached.model, cfg=cfg)
    assert torch.equal(ours, ksampler(host, demo_small, cfg=cfg))
    assert len(made) == cached.reports[0].evaluations == 12


@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_the_last_computed_steps_are_exact_with_blocks_hooked(host, demo_small, cfg):
    # Nothing is skipped before the last step, so the hooks are in place all along and must not change a bit.
    library = host.module("otcache_core.schedules.schedule")
    almost = make_schedule(host, 12, 12).replace(compute_steps=tuple(range(11)))
    assert isinstance(almost, library.Schedule)
    seen = {}
    for name, model in (("ours", Cached(host, demo_small.model, almost, "blocks").model), ("core", demo_small.model)):
        latents = seen[name] = []

        def keep(module, args, kwargs, out, latents=latents):
            latents.append(out.clone())

        handle = model.model.diffusion_model.register_forward_hook(keep, with_kwargs=True)
        ksampler(host, demo_small, model, cfg=cfg)
        handle.remove()
    assert len(seen["ours"]) == 13 and len(seen["core"]) == 12  # the skipped one combines what two evaluations left
    assert all(torch.equal(a, b) for a, b in zip(seen["ours"][:11], seen["core"][:11], strict=True))
    assert not torch.equal(seen["ours"][11], seen["core"][11])


@pytest.mark.parametrize("kind", ["hold", "linear", "quadratic", "fitted"])
def test_a_budget_is_the_exact_number_of_forward_passes(host, demo_small, kind):
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4, kind))
    with forwards(demo_small.model) as made:
        ours = ksampler(host, demo_small, cached.model)
    assert [round(12 * (1 - sigma)) for sigma in made] == [0, 3, 6, 9]
    report, = cached.reports
    assert (report.evaluations, report.asked, report.steps, report.reason) == (4, 12, 12, "")
    assert "4 model evaluations for 12 steps; 3.00x faster ideally" in report.text and "fewer" in report.text
    assert ours.isfinite().all() and not torch.equal(ours, ksampler(host, demo_small))


def test_with_blocks_only_the_blocks_are_skipped(host, demo_small):
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4), "blocks")
    blocks = []
    network = demo_small.model.model.diffusion_model
    handles = [block.register_forward_hook(lambda *_: blocks.append(1))
               for block in (*network.double_blocks, *network.single_blocks)]  # fmt: skip
    with forwards(demo_small.model) as made:
        ksampler(host, demo_small, cached.model)
    for handle in handles:
        handle.remove()
    assert len(made) == PASSES["blocks"] and len(set(made)) == 12 and len(blocks) == 4 * len(handles)
    assert (cached.reports[0].evaluations, cached.reports[0].level) == (4, "blocks")


def test_skipped_steps_follow_the_librarys_velocities(host, demo_small):
    """Against Euler steps by hand: the network's velocities where computed, the library's state machine for the others."""
    import comfy.samplers

    grid = comfy.samplers.calculate_sigmas(demo_small.model.get_model_object("model_sampling"), "simple", 12)
    schedule = make_schedule(host, 12, 5, "fitted").replace(sigmas=tuple(grid.double().tolist()))
    recorded = {}

    def keep(module, args, kwargs, out):
        recorded[float(kwargs["transformer_options"]["sigmas"][0])] = out.float().clone()

    model = Cached(host, demo_small.model, schedule).model
    handle = model.model.diffusion_model.register_forward_hook(keep, with_kwargs=True)
    ours = ksampler(host, demo_small, model, cfg=1.0)
    handle.remove()
    import comfy.sample

    run = host.module("otcache_core.sampling.cached_run").CachedRun(schedule)
    x = comfy.sample.prepare_noise(demo_small.latent["samples"], 7)
    for step in range(12):
        sigma, following = schedule.sigmas[step], schedule.sigmas[step + 1]
        if run.computes(step):
            d = recorded[min(recorded, key=lambda s: abs(s - sigma))]
            run.observe(step, d)
        else:
            d = run.predict(step)
        x = x + d * (following - sigma)
    torch.testing.assert_close(ours, x, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("level", LEVELS)
def test_a_second_run_equals_the_first(host, demo_small, level):
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4), level)
    assert torch.equal(ksampler(host, demo_small, cached.model), ksampler(host, demo_small, cached.model))


@pytest.mark.parametrize("level", LEVELS)
def test_sizes_and_steps_may_differ_from_run_to_run(host, demo_small, level):
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4), level)
    wide = {"samples": torch.zeros(1, 16, 8, 12)}
    alone = [ksampler(host, demo_small, Cached(host, demo_small.model, make_schedule(host, 12, 4), level).model, **inputs)
             for inputs in ({}, {"latent_image": wide}, {"steps": 24})]  # fmt: skip
    together = [ksampler(host, demo_small, cached.model, **inputs)
                for inputs in ({}, {"latent_image": wide}, {"steps": 24}, {})]  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip([*alone, alone[0]], together, strict=True))
    assert [report.evaluations for report in cached.reports] == [4, 4, 4, 4]


@pytest.mark.parametrize("level", LEVELS)
def test_a_batch_is_its_pictures(host, demo_small, level):
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4), level)
    three = {"samples": torch.zeros(3, 16, 8, 8)}
    with forwards(demo_small.model) as made:
        batch = ksampler(host, demo_small, cached.model, latent_image=three)
    assert len(made) == PASSES[level] and cached.reports[0].evaluations == 4
    for i in range(3):
        single = {"samples": torch.zeros(1, 16, 8, 8), "batch_index": [i]}
        alone = ksampler(host, demo_small, cached.model, latent_image=single)
        torch.testing.assert_close(batch[i : i + 1], alone, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("tokens,passes", [(5, 1), (7, 2)])
def test_positive_and_negative_together_or_apart(host, demo_small, level, tokens, passes):
    negative = different_length(demo_small, tokens)
    full = Cached(host, demo_small.model, make_schedule(host, 12, 12), level)
    core = ksampler(host, demo_small, negative=negative)
    assert torch.equal(ksampler(host, demo_small, full.model, negative=negative), core)
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4), level)
    with forwards(demo_small.model) as made:
        ours = ksampler(host, demo_small, cached.model, negative=negative)
    assert len(made) == passes * PASSES[level]
    assert cached.reports[0].evaluations == 4
    assert (ours - core).norm() < 0.5 * core.norm()


def test_the_later_of_two_schedules_counts(host, demo_small):
    first = Cached(host, demo_small.model, make_schedule(host, 12, 3))
    second = Cached(host, first.model, make_schedule(host, 12, 6))
    with forwards(demo_small.model) as made:
        ksampler(host, demo_small, second.model)
    assert len(made) == 6 and not first.reports and second.reports[0].evaluations == 6
    with forwards(demo_small.model) as made:
        ksampler(host, demo_small, first.model)
    assert len(made) == 3


class Watch:
    """Weak references to every tensor that a run keeps, taken where it is kept."""

    def __init__(self, host, monkeypatch):
        self.refs = []
        runtime, blocks = host.module("otcache_core.sampling.cached_run"), host.module("nodes.host.blocks")
        observe, keep = runtime.CachedRun.observe, blocks.BlockReuse._keep

        def observe_watched(run, step, d, x=None):
            self.refs.append(weakref.ref(d))
            observe(run, step, d)

        def keep_watched(reuse, keys, captured):
            keep(reuse, keys, captured)
            self.refs += [weakref.ref(tensor) for history in reuse._kept.values()
                          for _, residuals in history.evaluations[:1] for tensor in residuals.values()]  # fmt: skip

        monkeypatch.setattr(runtime.CachedRun, "observe", observe_watched)
        monkeypatch.setattr(blocks.BlockReuse, "_keep", keep_watched)

    def alive(self):
        return sum(ref() is not None for ref in self.refs)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("ending", ["success", "exception", "interrupt"])
def test_a_run_frees_its_tensors_and_leaves_the_model_as_it_was(host, demo_small, monkeypatch, level, ending):
    import comfy.model_management as management

    def options():
        return {key: dict(value) if isinstance(value, dict) else value for key, value in cached.model.model_options.items()}

    def act(count):
        if count == 3 and ending == "exception":
            raise RuntimeError("out of memory, say")
        if count == 3 and ending == "interrupt":
            management.interrupt_current_processing(True)

    before = ksampler(host, demo_small)
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4), level)
    untouched, wrappers = options(), str(cached.model.wrappers)
    clean = ksampler(host, demo_small, cached.model)
    watch = Watch(host, monkeypatch)
    alive = []
    with forwards(demo_small.model, lambda count: (alive.append(watch.alive()), act(count))):
        if ending == "success":
            ksampler(host, demo_small, cached.model)
        else:
            kind = {"exception": RuntimeError, "interrupt": management.InterruptProcessingException}[ending]
            with pytest.raises(kind):
                ksampler(host, demo_small, cached.model)
    assert max(alive) > 0, "the watch saw nothing being kept"
    gc.collect()
    assert watch.alive() == 0
    assert options() == untouched and str(cached.model.wrappers) == wrappers
    assert len(cached.reports) == (2 if ending == "success" else 1)
    assert torch.equal(ksampler(host, demo_small, cached.model), clean)
    assert torch.equal(ksampler(host, demo_small), before)


def test_memory_while_sampling_is_a_few_latents(host, demo_small, monkeypatch):
    cached = Cached(host, demo_small.model, make_schedule(host, 24, 12))
    watch = Watch(host, monkeypatch)
    most = []
    with forwards(demo_small.model, lambda count: most.append(watch.alive())):
        ksampler(host, demo_small, cached.model, steps=24)
    assert 0 < max(most) <= host.module("otcache_core.schedules.schedule").HISTORY


def test_memory_with_blocks_is_the_residuals_of_as_many_evaluations(host, demo_small, monkeypatch):
    cached = Cached(host, demo_small.model, make_schedule(host, 24, 12, "fitted"), "blocks")
    watch = Watch(host, monkeypatch)
    most = []
    with forwards(demo_small.model, lambda count: most.append(watch.alive())):
        ksampler(host, demo_small, cached.model, steps=24)
    kept = host.module("otcache_core.schedules.schedule").HISTORY
    # Of each evaluation a velocity, and for both prompts the residuals of picture and text, and of both in one.
    assert kept < max(most) <= kept * (1 + 2 * 3)


def test_an_unknown_level_is_an_error_that_names_the_levels(host, demo_small):
    errors = host.module("otcache_core.errors")
    with pytest.raises(errors.OTCacheError, match='"block" is unknown.*output, blocks'):
        Cached(host, demo_small.model, make_schedule(host, 12, 4), "block")


def test_the_model_waits_for_the_device_once_an_evaluation(host, demo_small, monkeypatch):
    # Everything else that would make a GPU wait goes through these, too.
    waits = []

    def counting_calls(original):
        return lambda tensor, *args, **kwargs: (waits.append(1), original(tensor, *args, **kwargs))[1]

    for name in ("item", "__float__", "__bool__", "cpu", "tolist", "numpy"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, counting_calls(original))
    run_module = host.module("nodes.host.run")
    counted = []
    predict_noise = run_module.HostRun.predict_noise

    def counting(run, executor, *args, **kwargs):
        def inner(*a, **k):
            before = len(waits)
            out = executor(*a, **k)
            del waits[before:]
            return out

        before = len(waits)
        out = predict_noise(run, inner, *args, **kwargs)
        counted.append(len(waits) - before)
        return out

    monkeypatch.setattr(run_module.HostRun, "predict_noise", counting)
    for kind in ("linear", "fitted"):
        ksampler(host, demo_small, Cached(host, demo_small.model, make_schedule(host, 12, 4, kind)).model)
    assert counted == [1] * 24
