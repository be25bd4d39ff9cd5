"""Where steps are not or may not be skipped: refusals, runs in full and runs without block reuse, each with its reason."""

from types import SimpleNamespace

import pytest
import torch
from sampling import Cached, forwards, growing_sampler, ksampler, make_schedule


@pytest.fixture(scope="module")
def unet(host):
    """A random eps-predicting UNet (Stable Diffusion 1.5, small): other noise levels, and no blocks to replace."""
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SD15({
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
        "channel_mult": [1, 2], "transformer_depth": [1, 1], "transformer_depth_output": [1, 1, 1, 1],
        "transformer_depth_middle": 1, "num_heads": 2, "context_dim": 16, "use_spatial_transformer": True,
        "use_linear_in_transformer": False, "adm_in_channels": None, "use_temporal_attention": False, "legacy": False,
    })  # fmt: skip
    config.set_inference_dtype(torch.float32, None)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = config.get_model({}, "", device=torch.device("cpu"))
        for parameter in model.diffusion_model.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        conds = [[[torch.randn(1, 7, 16), {}]] for _ in range(2)]
    model.eval()
    patcher = comfy.model_patcher.ModelPatcher(model, management.get_torch_device(), management.unet_offload_device())
    return SimpleNamespace(model=patcher, positive=conds[0], negative=conds[1], latent={"samples": torch.zeros(1, 4, 8, 8)})


def eps_schedule(host, case, steps, budget):
    import comfy.samplers

    grid = comfy.samplers.calculate_sigmas(case.model.get_model_object("model_sampling"), "normal", steps)
    return make_schedule(host, steps, budget).replace(sigmas=tuple(grid.double().tolist()))


@pytest.mark.parametrize("level", ["output", "blocks"])
def test_a_model_without_replaceable_blocks_reuses_its_output(host, unet, level):
    core = ksampler(host, unet, scheduler="normal")
    full = Cached(host, unet.model, eps_schedule(host, unet, 12, 12), level)
    assert torch.equal(ksampler(host, unet, full.model, scheduler="normal"), core)
    cached = Cached(host, unet.model, eps_schedule(host, unet, 12, 4), level)
    with forwards(unet.model) as made:
        ours = ksampler(host, unet, cached.model, scheduler="normal")
    report, = cached.reports
    assert len(made) == report.evaluations == 4 and report.level == "output"
    assert ("no replaceable transformer blocks" in report.text) == (level == "blocks")
    plain = Cached(host, unet.model, eps_schedule(host, unet, 12, 4))
    assert torch.equal(ours, ksampler(host, unet, plain.model, scheduler="normal"))
    assert (ours - core).norm() < 0.2 * core.norm()


def test_a_schedule_of_another_kind_of_model_is_not_applied(host, unet):
    cached = Cached(host, unet.model, make_schedule(host, 12, 4))
    ours = ksampler(host, unet, cached.model, scheduler="normal")
    assert torch.equal(ours, ksampler(host, unet, scheduler="normal"))
    report, = cached.reports
    assert report.evaluations == 12 and "use a schedule made for this model" in report.text


@pytest.mark.parametrize("other", ["EasyCache", "LazyCache"])
@pytest.mark.parametrize("level", ["output", "blocks"])
def test_another_cache_on_the_model_is_refused_in_both_orders(host, demo_small, other, level):
    schedule = make_schedule(host, 12, 4)
    theirs, = host.run(other, model=demo_small.model)
    ours_last = Cached(host, theirs, schedule, level).model
    ours_first, = host.run(other, model=Cached(host, demo_small.model, schedule, level).model)
    errors = host.module("otcache_core.errors")
    core = ksampler(host, demo_small)
    for model in (ours_last, ours_first):
        with forwards(demo_small.model) as made, pytest.raises(errors.OTCacheError, match="bypass one of them"):
            ksampler(host, demo_small, model)
        assert not made
    assert torch.equal(ksampler(host, demo_small), core)


@pytest.mark.parametrize("sampler,why", [("dpm_adaptive", "its own noise levels"), ("euler_cfg_pp", "unconditional output")])
def test_a_run_in_full_says_why(host, demo_small, caplog, sampler, why):
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4))
    with caplog.at_level("INFO"):
        ksampler(host, demo_small, cached.model, sampler_name=sampler)
    report, = cached.reports
    assert why in report.text and report.evaluations == report.asked and report.measured_speedup is None
    lines = [record.message for record in caplog.records if record.message.startswith("OTCache:")]
    assert lines == [f"OTCache: {report.text}"]


@pytest.mark.parametrize("sigmas", [(1.0, 0.5, 0.8, 0.0), (1.0, 0.5, 0.5, 0.0)])
def test_sigmas_that_do_not_fall_are_run_in_full(host, demo_small, sigmas):
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4))
    sampler, = host.run("KSamplerSelect", sampler_name="euler")

    def custom(model):
        return host.run("SamplerCustom", model=model, add_noise=True, noise_seed=3, cfg=4.0, positive=demo_small.positive,
                        negative=demo_small.negative, sampler=sampler, sigmas=torch.tensor(sigmas),
                        latent_image=demo_small.latent)[0]["samples"]  # fmt: skip

    assert torch.equal(custom(cached.model), custom(demo_small.model))
    assert "must fall strictly" in cached.reports[0].text and cached.reports[0].evaluations == 3


def test_a_latent_that_changes_its_size_in_mid_run_starts_anew(host, demo_small):
    sampler = growing_sampler()
    for level in ("output", "blocks"):
        cached = Cached(host, demo_small.model, make_schedule(host, 12, 3), level)
        sigmas, = host.run("BasicScheduler", model=cached.model, scheduler="simple", steps=12, denoise=1.0)
        out = host.run("SamplerCustom", model=cached.model, add_noise=True, noise_seed=3, cfg=4.0,
                       positive=demo_small.positive, negative=demo_small.negative, sampler=sampler, sigmas=sigmas,
                       latent_image=demo_small.latent)[0]["samples"]  # fmt: skip
        assert out.shape[-1] == 16 and out.isfinite().all()
        assert cached.reports[0].evaluations == 4  # 0, 4, 8, and the first of the new size
        assert cached.reports[0].level == "output"  # whether such a sampler adds noise cannot be told: it is not chanced


def test_a_controlnet_sends_block_reuse_to_the_output(host, demo_small):
    from comfy.controlnet import ControlBase

    class Still(ControlBase):
        """A ControlNet that has nothing to say."""

        def get_control(self, *args):
            return None

    context, extra = demo_small.positive[0]
    positive = [[context, extra | {"control": Still(), "control_apply_to_uncond": True}]]
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 4), "blocks")
    ours = ksampler(host, demo_small, cached.model, positive=positive)
    plain = Cached(host, demo_small.model, make_schedule(host, 12, 4))
    assert torch.equal(ours, ksampler(host, demo_small, plain.model, positive=positive))
    assert "a ControlNet is applied" in cached.reports[0].text and cached.reports[0].level == "output"


def test_a_controlnet_that_stops_is_a_change_of_conditions(host, demo_small):
    from comfy.controlnet import ControlBase

    class Still(ControlBase):
        def get_control(self, *args):
            return None

    control = Still()
    control.set_cond_hint(torch.zeros(1, 3, 8, 8), 1.0, (0.0, 0.4))
    context, extra = demo_small.positive[0]
    cached = Cached(host, demo_small.model, make_schedule(host, 12, 3))
    with forwards(demo_small.model) as made:
        ksampler(host, demo_small, cached.model, positive=[[context, extra | {"control": control}]])
    assert sorted({round(12 * (1 - sigma)) for sigma in made}) == [0, 4, 5, 8]


def test_a_model_compiled_as_a_whole_keeps_its_blocks(host, demo_small):
    model = host.run("OTApplyCache", model=demo_small.model, schedule=make_schedule(host, 12, 4), reuse="transformer blocks")[0]
    compiled, = host.run("TorchCompileModel", model=model, backend="eager")
    run = host.module("nodes.host.run")
    options = {"transformer_options": {"wrappers": compiled.wrappers}}

    def guider(options):
        return SimpleNamespace(model_options=options, model_patcher=model)

    assert "compiled" in run._no_blocks(guider(options))
    assert not run._no_blocks(guider({"transformer_options": {"wrappers": model.wrappers}}))


@pytest.mark.parametrize("level", ["output", "blocks"])
def test_layers_skipped_by_another_node(host, demo_small, level):
    """SkipLayerGuidance runs the network once more a step, with one block replaced and the same conditioning."""
    slg, = host.run("SkipLayerGuidanceDiT", model=demo_small.model, double_layers="0", single_layers="", scale=2.0,
                    start_percent=0.0, end_percent=1.0)  # fmt: skip
    core = ksampler(host, demo_small, slg)
    assert not torch.equal(core, ksampler(host, demo_small))
    full = Cached(host, slg, make_schedule(host, 12, 12), level)
    assert torch.equal(ksampler(host, demo_small, full.model), core)
    cached = Cached(host, slg, make_schedule(host, 12, 4), level)
    with forwards(demo_small.model) as made:
        ours = ksampler(host, demo_small, cached.model)
    assert cached.reports[0].evaluations == 4 and cached.reports[0].level == level
    assert len(set(made)) == (4 if level == "output" else 12)
    assert (ours - core).norm() < 0.5 * core.norm()


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_another_nodes_block_replacement_is_kept(host, demo_small, first):
    def stronger(args, extra):
        out = extra["original_block"](args)
        return out | {"img": out["img"] * 1.25}

    def replaced(model):
        model = model.clone()
        model.set_model_patch_replace(stronger, "dit", "single_block", 0)
        return model

    for budget in (12, 11, 4):
        schedule = make_schedule(host, 12, budget)
        if budget == 11:
            schedule = schedule.replace(compute_steps=tuple(range(11)))
        if first == "theirs":
            model = Cached(host, replaced(demo_small.model), schedule, "blocks").model
        else:
            model = replaced(Cached(host, demo_small.model, schedule, "blocks").model)
        ours, core = ksampler(host, demo_small, model), ksampler(host, demo_small, replaced(demo_small.model))
        assert torch.equal(ours, core) == (budget == 12)
        assert (ours - core).norm() < {12: 1e-6, 11: 0.05, 4: 0.5}[budget] * core.norm()
        assert not torch.equal(core, ksampler(host, demo_small))
