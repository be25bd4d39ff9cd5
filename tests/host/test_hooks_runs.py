"""Every way of running a sampler: parts of a run, masks, patched models, conditionings that come and go, every sampler."""

import pytest
import torch
from matrix_cells import sampler_kind
from sampling import PASSES, Cached, forwards, ksampler, make_schedule

LEVELS = ["output", "blocks"]


def both(host, case, level, budget=4, grid=12, **inputs):
    """(samples in full by core, samples with every step computed, samples with `budget`, its report, its forward passes)."""
    full = Cached(host, case.model, make_schedule(host, grid, grid), level)
    cached = Cached(host, case.model, make_schedule(host, grid, budget), level)
    exact = ksampler(host, case, full.model, **inputs)
    with forwards(case.model) as made:
        ours = ksampler(host, case, cached.model, **inputs)
    return ksampler(host, case, **inputs), exact, ours, cached.reports[0], made


@pytest.mark.parametrize("level", LEVELS)
def test_half_denoise(host, demo_small, level):
    picture = {"samples": torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(3))}
    core, exact, ours, report, made = both(host, demo_small, level, denoise=0.5, latent_image=picture, budget=6, grid=24)
    assert torch.equal(core, exact)
    # The last 12 of 24 steps are run, and with them half of the schedule.
    assert report.steps == 12 and report.evaluations == 3 and not report.reason
    assert made[0] < 0.51 and ours.isfinite().all()


@pytest.mark.parametrize("level", LEVELS)
def test_an_inpainting_mask(host, demo_small, level):
    mask = torch.zeros(1, 8, 8)
    mask[:, :4] = 1
    picture = {"samples": torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(3)), "noise_mask": mask}
    core, exact, ours, report, _ = both(host, demo_small, level, latent_image=picture)
    assert torch.equal(core, exact) and report.evaluations == 4
    torch.testing.assert_close(ours[:, :, 5:], picture["samples"][:, :, 5:])
    assert not torch.allclose(ours[:, :, :3], picture["samples"][:, :, :3], atol=0.1)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("budget", [12, 4])
def test_slices_of_ksampler_advanced(host, demo_small, level, budget):
    def slices(model):
        first = host.run("KSamplerAdvanced", model=model, add_noise="enable", start_at_step=0, end_at_step=6,
                         return_with_leftover_noise="enable", latent_image=demo_small.latent, **common)[0]
        return host.run("KSamplerAdvanced", model=model, add_noise="disable", start_at_step=6, end_at_step=10_000,
                        return_with_leftover_noise="disable", latent_image=first, **common)[0]["samples"]  # fmt: skip

    common = {"noise_seed": 7, "steps": 12, "cfg": 4.0, "sampler_name": "euler", "scheduler": "simple",
              "positive": demo_small.positive, "negative": demo_small.negative}  # fmt: skip
    cached = Cached(host, demo_small.model, make_schedule(host, 12, budget), level)
    ours = slices(cached.model)
    assert [report.steps for report in cached.reports] == [6, 6]
    assert [report.evaluations for report in cached.reports] == [budget // 2, budget // 2]
    assert torch.equal(ours, slices(demo_small.model)) == (budget == 12)
    assert torch.equal(ours, slices(cached.model))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("budget", [12, 4])
def test_split_sigmas_with_one_guider(host, demo_small, level, budget):
    def halves(model):
        guider, = host.run("CFGGuider", model=model, positive=demo_small.positive, negative=demo_small.negative, cfg=4.0)
        sampler, = host.run("KSamplerSelect", sampler_name="euler")
        sigmas, = host.run("BasicScheduler", model=model, scheduler="simple", steps=12, denoise=1.0)
        noise, = host.run("RandomNoise", noise_seed=7)
        silence, = host.run("DisableNoise")
        latent = demo_small.latent
        for part, source in zip(host.run("SplitSigmas", sigmas=sigmas, step=6), (noise, silence), strict=True):
            latent = host.run("SamplerCustomAdvanced", noise=source, guider=guider, sampler=sampler, sigmas=part,
                              latent_image=latent)[0]  # fmt: skip
        return latent["samples"]

    cached = Cached(host, demo_small.model, make_schedule(host, 12, budget), level)
    ours = halves(cached.model)
    assert [report.evaluations for report in cached.reports] == [budget // 2, budget // 2]
    assert torch.equal(ours, halves(demo_small.model)) == (budget == 12)
    assert torch.equal(ours, halves(cached.model))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("budget", [12, 4])
def test_a_lora_before_or_after(host, demo_small, level, budget):
    import comfy.sd

    generator = torch.Generator().manual_seed(9)
    weight = "diffusion_model.double_blocks.0.img_mlp.0"
    rows, columns = demo_small.model.model.diffusion_model.double_blocks[0].img_mlp[0].weight.shape
    lora = {f"{weight}.lora_A.weight": torch.randn(4, columns, generator=generator) * 0.3,
            f"{weight}.lora_B.weight": torch.randn(rows, 4, generator=generator) * 0.3}  # fmt: skip

    def patched(model):
        return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)[0]

    schedule = make_schedule(host, 12, budget)
    before = ksampler(host, demo_small, Cached(host, patched(demo_small.model), schedule, level).model)
    after = ksampler(host, demo_small, patched(Cached(host, demo_small.model, schedule, level).model))
    assert torch.equal(before, after)
    core = ksampler(host, demo_small, patched(demo_small.model))
    assert torch.equal(before, core) == (budget == 12)
    assert not torch.equal(core, ksampler(host, demo_small))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("budget", [12, 4])
def test_a_model_sampling_shift_before_or_after(host, demo_small, level, budget):
    def shifted(model):
        return host.run("ModelSamplingSD3", model=model, shift=3.0)[0]

    schedule = make_schedule(host, 12, budget)
    before = Cached(host, shifted(demo_small.model), schedule, level)
    inner = Cached(host, demo_small.model, schedule, level)
    with forwards(demo_small.model) as made:
        ours = ksampler(host, demo_small, before.model)
    again = ksampler(host, demo_small, shifted(inner.model))
    assert torch.equal(ours, again) and torch.equal(ours, ksampler(host, demo_small, before.model))
    assert before.reports[0].evaluations == inner.reports[0].evaluations == budget
    assert len(set(made)) == (budget if level == "output" else 12)
    assert torch.equal(ours, ksampler(host, demo_small, shifted(demo_small.model))) == (budget == 12)


def all_samplers():
    # Names as ComfyUI 0.35 has them; the test below says when the list is not the host's any more.
    return (
        "euler euler_cfg_pp euler_ancestral euler_ancestral_cfg_pp heun heunpp2 exp_heun_2_x0 exp_heun_2_x0_sde dpm_2 "
        "dpm_2_ancestral lms dpm_fast dpm_adaptive dpmpp_2s_ancestral dpmpp_2s_ancestral_cfg_pp dpmpp_sde dpmpp_sde_gpu "
        "dpmpp_2m dpmpp_2m_cfg_pp dpmpp_2m_sde dpmpp_2m_sde_gpu dpmpp_2m_sde_heun dpmpp_2m_sde_heun_gpu dpmpp_3m_sde "
        "dpmpp_3m_sde_gpu ddpm lcm ipndm ipndm_v deis res_multistep res_multistep_cfg_pp res_multistep_ancestral "
        "res_multistep_ancestral_cfg_pp gradient_estimation gradient_estimation_cfg_pp er_sde seeds_2 seeds_3 sa_solver "
        "sa_solver_pece ddim uni_pc uni_pc_bh2 cfgpp_ud10_ab"
    ).split()


def test_the_list_of_samplers_is_complete(host):
    import comfy.samplers

    assert set(comfy.samplers.SAMPLER_NAMES) <= set(all_samplers())


@pytest.mark.parametrize("sampler", all_samplers())
def test_every_sampler(host, demo_small, sampler):
    import comfy.samplers

    if sampler not in comfy.samplers.SAMPLER_NAMES:
        pytest.skip("not in this ComfyUI")
    for level in LEVELS:
        core, exact, ours, report, made = both(host, demo_small, level, sampler_name=sampler, cfg=1.0)
        assert torch.equal(core, exact), f"{level}: computing every step changed the result"
        assert ours.isfinite().all()
        in_full = bool(sampler_kind(sampler))
        assert bool(report.reason) == in_full
        if level == "output" or in_full:
            assert len(made) == report.evaluations
        if in_full:
            assert torch.equal(core, ours) and report.evaluations == report.asked
        else:
            assert 4 <= report.evaluations <= report.asked * 4 / 12 + 4
            assert not torch.equal(core, ours)
    if sampler in "euler ddim dpmpp_2m lms deis ipndm uni_pc res_multistep er_sde dpmpp_2m_sde".split():
        assert (report.evaluations, report.asked) == (4, 12)


@pytest.mark.parametrize("level", LEVELS)
def test_conditionings_with_time_ranges(host, demo_small, level):
    def ranged(source, start, end):
        return host.run("ConditioningSetTimestepRange", conditioning=source, start=start, end=end)[0]

    early, late = ranged(demo_small.positive, 0.0, 0.4), ranged(demo_small.negative, 0.4, 1.0)
    positive, = host.run("ConditioningCombine", conditioning_1=early, conditioning_2=late)
    core, exact, ours, report, made = both(host, demo_small, level, positive=positive, budget=3)
    assert torch.equal(core, exact)
    computed = sorted({round(12 * (1 - sigma)) for sigma in made})
    if level == "output":
        # 0, 4 and 8 by the schedule; 5 is the first after the change at 40 %.
        assert computed == [0, 4, 5, 8]
    assert report.evaluations == 4 and ours.isfinite().all()


@pytest.mark.parametrize("shift", [1.0, 1.15, 3.0])
def test_a_range_that_begins_on_a_grid_point(host, demo_small, shift):
    """torch rounds a bound before it compares it with a noise level; so the change comes at the step where it comes in core."""
    import comfy.samplers

    model, = host.run("ModelSamplingSD3", model=demo_small.model, shift=shift)
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", 10)[:-1]
    unlike = 0
    for percent in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        bound = sampling.percent_to_sigma(percent)
        in_use = [(not sigma < bound, not sigma > bound) for sigma in sigmas]  # as in comfy.samplers.get_area_and_mult
        changes = [step for step in range(1, 10) if in_use[step] != in_use[step - 1]]
        unlike += changes != [s for s in range(1, 10) if [float(sigmas[s]) >= bound, float(sigmas[s]) <= bound]
                              != [float(sigmas[s - 1]) >= bound, float(sigmas[s - 1]) <= bound]]  # fmt: skip
        early, late = (
            host.run("ConditioningSetTimestepRange", conditioning=source, start=start, end=end)[0]
            for source, start, end in ((demo_small.positive, 0.0, percent), (demo_small.negative, percent, 1.0))
        )
        positive, = host.run("ConditioningCombine", conditioning_1=early, conditioning_2=late)
        cached = Cached(host, model, make_schedule(host, 10, 1))
        with forwards(model) as made:
            ksampler(host, demo_small, cached.model, positive=positive, steps=10)
        levels = [round(float(sigma), 5) for sigma in sigmas]
        assert sorted({levels.index(round(sigma, 5)) for sigma in made}) == [0, *changes], percent
    assert unlike  # without rounding some of them would be missed


@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "heunpp2"])
def test_time_ranges_with_samplers_of_many_evaluations(host, demo_small, sampler):
    late, = host.run("ConditioningSetTimestepRange", conditioning=demo_small.positive, start=0.4, end=1.0)
    positive, = host.run("ConditioningCombine", conditioning_1=demo_small.negative, conditioning_2=late)
    core, exact, ours, report, _ = both(host, demo_small, "output", budget=3, positive=positive, sampler_name=sampler)
    assert torch.equal(core, exact) and ours.isfinite().all()
    assert report.evaluations <= report.asked / 2 and (ours - core).norm() < core.norm()


@pytest.mark.parametrize("level", LEVELS)
def test_regional_conditionings(host, demo_small, level):
    region, = host.run("ConditioningSetArea", conditioning=demo_small.negative, width=32, height=64, x=0, y=0, strength=1.0)
    positive, = host.run("ConditioningCombine", conditioning_1=demo_small.positive, conditioning_2=region)
    core, exact, ours, report, made = both(host, demo_small, level, positive=positive)
    assert torch.equal(core, exact) and report.evaluations == 4
    assert len(set(made)) == (4 if level == "output" else 12)
    assert (ours - core).norm() < 0.5 * core.norm()


@pytest.mark.parametrize("level", LEVELS)
def test_context_windows(host, demo_small, level):
    tall = {"samples": torch.zeros(1, 16, 12, 8)}

    widgets = {"context_length": 8, "context_overlap": 4, "dim": 2, "context_schedule": "standard_static"}
    if "causal_window_fix" in host.defaults("ContextWindowsManual"):  # not before 0.25
        widgets["causal_window_fix"] = False

    def windowed(model):
        return host.run("ContextWindowsManual", model=model, **widgets)[0]

    core = ksampler(host, demo_small, windowed(demo_small.model), latent_image=tall)
    full = Cached(host, windowed(demo_small.model), make_schedule(host, 12, 12), level)
    assert torch.equal(ksampler(host, demo_small, full.model, latent_image=tall), core)
    cached = Cached(host, windowed(demo_small.model), make_schedule(host, 12, 4), level)
    with forwards(demo_small.model) as made:
        ours = ksampler(host, demo_small, cached.model, latent_image=tall)
    windows = 2
    assert len(made) == windows * PASSES[level] and cached.reports[0].evaluations == 4
    assert (ours - core).norm() < 0.5 * core.norm()


@pytest.mark.parametrize("sampler", ["euler", "heun"])
@pytest.mark.parametrize("level", LEVELS)
def test_hook_keyframes_come_when_they_come_without_us(host, demo_small, level, sampler):
    """Strengths that last a number of evaluations count skipped ones, too; the first step of a new one is computed."""
    import comfy.hooks

    rows, columns = demo_small.model.model.diffusion_model.double_blocks[0].img_mlp[0].weight.shape
    lora = {f"diffusion_model.double_blocks.0.img_mlp.0.lora_{name}.weight": torch.randn(shape, generator=generator) * 0.3
            for generator in [torch.Generator().manual_seed(9)] for name, shape in (("A", (4, columns)), ("B", (rows, 4)))
            }  # fmt: skip

    def run(model):
        hooks, frames = comfy.hooks.create_hook_lora(lora, 1.0, 0.0), comfy.hooks.HookKeyframeGroup()
        for strength, start, evaluations in ((1.0, 0.0, 1), (0.2, 0.1, 5), (0.8, 0.15, 1)):
            frames.add(comfy.hooks.HookKeyframe(strength, start, evaluations))
        hooks.set_keyframes_on_hooks(frames)
        strengths, hook = {}, hooks.hooks[0]
        positive = comfy.hooks.set_hooks_for_conditioning(demo_small.positive, hooks)
        with forwards(demo_small.model) as made:
            with forwards(demo_small.model, lambda count: strengths.setdefault(round(made[-1], 5), hook.strength)):
                samples = ksampler(host, demo_small, model, positive=positive, sampler_name=sampler)
        return samples, strengths

    core, theirs = run(demo_small.model)
    full, _ = run(Cached(host, demo_small.model, make_schedule(host, 12, 12), level).model)
    assert torch.equal(core, full) and set(theirs.values()) == {1.0, 0.2, 0.8}
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 2), level)
    ours, strengths = run(cached.model)
    changes = [sigma for sigma, before in zip(list(theirs)[1:], theirs, strict=False) if theirs[sigma] != theirs[before]]
    assert len(changes) == 2 and set(changes) <= set(strengths)
    assert all(theirs[sigma] == strength for sigma, strength in strengths.items())
    assert cached.reports[0].extra >= 2 and "more than scheduled" in cached.reports[0].text
    assert (ours - core).norm() < 0.5 * core.norm()


def test_keyframes_of_a_default_conditioning_wait_until_it_is_used(host, demo_small, monkeypatch):
    """ComfyUI moves them on from when the conditioning first fills a gap."""
    import comfy.hooks

    moved, original = [], comfy.hooks.HookKeyframeGroup.prepare_current_keyframe
    monkeypatch.setattr(comfy.hooks.HookKeyframeGroup, "prepare_current_keyframe",
                        lambda self, **given: moved.append(self) or original(self, **given))  # fmt: skip
    hooks, frames = comfy.hooks.create_hook_lora({}, 1.0, 0.0), comfy.hooks.HookKeyframeGroup()
    frames.add(comfy.hooks.HookKeyframe(1.0, 0.0))
    hooks.set_keyframes_on_hooks(frames)
    hooked = comfy.hooks.set_hooks_for_conditioning(demo_small.negative, hooks)
    default = [[tokens, extra | {"default": True}] for tokens, extra in hooked]
    model = Cached(host, demo_small.model, make_schedule(host, 12, 4)).model
    ksampler(host, demo_small, model, positive=[*demo_small.positive, *default])
    assert not moved  # the positive covers everything
    ksampler(host, demo_small, model, positive=hooked)
    assert moved


def test_a_wrapper_may_leave_out_the_model_options(host, demo_small):
    from comfy.patcher_extension import WrappersMP

    core = ksampler(host, demo_small)
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 12)).model
    cached.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "other", lambda executor, x, timestep, *rest: executor(x, timestep))
    assert ksampler(host, demo_small, cached).shape == core.shape


def test_the_nodes_are_core_ksampler_with_a_schedule(host, demo_small):
    """OT Cached Sampler and OT Apply Cache + KSampler give the same pictures, and core's when all is computed."""
    for reuse in ("output", "transformer blocks"):
        for budget in (12, 4):
            schedule = make_schedule(host, 12, budget)
            latent, report = host.run(
                "OTCachedSampler", model=demo_small.model, seed=7, steps=12, cfg=4.0, sampler_name="euler", scheduler="simple",
                positive=demo_small.positive, negative=demo_small.negative, latent_image=demo_small.latent, denoise=1.0,
                schedule=schedule, reuse=reuse)  # fmt: skip
            applied, = host.run("OTApplyCache", model=demo_small.model, schedule=schedule, reuse=reuse)
            assert torch.equal(latent["samples"], ksampler(host, demo_small, applied))
            assert torch.equal(latent["samples"], ksampler(host, demo_small)) == (budget == 12)
            assert report.startswith(f"{budget} model evaluations for 12 steps")


def test_the_cached_sampler_takes_what_ksampler_takes(host):
    core, ours = (host.classes[node].INPUT_TYPES() for node in ("KSampler", "OTCachedSampler"))
    assert list(ours["required"]) == list(core["required"])
    assert list(ours["optional"]) == ["schedule", "reuse", "speedup"]  # prompts from before them must still run


def test_the_cached_sampler_with_nothing_to_do_says_so(host, demo_small):
    latent, report = host.run(
        "OTCachedSampler", model=demo_small.model, positive=demo_small.positive, negative=demo_small.negative,
        latent_image=demo_small.latent, denoise=0.0, schedule=make_schedule(host, 12, 4))  # fmt: skip
    assert torch.equal(latent["samples"], demo_small.latent["samples"]) and "Nothing was sampled" in report
