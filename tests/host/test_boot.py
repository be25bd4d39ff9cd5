"""The pack loads in ComfyUI, in process and as a server."""

import pytest

OWN = {"OTLoadSchedule", "OTSaveSchedule", "OTCompare", "OTDemoModel"}


def test_in_process(host):
    assert OWN <= set(host.classes)
    core = {"KSampler", "EasyCache", "LazyCache", "SamplerCustomAdvanced", "SplitSigmas", "ModelSamplingFlux"}
    assert core <= set(host.classes)


@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_small_model_samples(host, demo_small, cfg):
    result, = host.run("KSampler", model=demo_small.model, positive=demo_small.positive, negative=demo_small.negative,
                       latent_image=demo_small.latent, steps=4, cfg=cfg, sampler_name="euler", scheduler="simple", seed=1)
    samples = result["samples"]
    assert samples.isfinite().all() and samples.std() > 0.1
    assert (samples - samples.mean((2, 3), keepdim=True)).std() > 0.1


def test_server(server):
    info = server.object_info()
    assert OWN <= set(info)
