"""A sampler's response (`otcache_core.sampling.response`), found with ComfyUI's own sampler and a stand-in for the model."""

import random
from contextlib import contextmanager

import comfy.model_patcher
import numpy as np
import torch

from ...otcache_core.sampling.response import Response, respond

SIDE = 8  # of the made-up latents: enough for whatever samplers do to pictures


def sampler_response(sampler, guider, sigmas: torch.Tensor, extra_args: dict, noise: torch.Tensor) -> Response:
    """That of a SAMPLER in a run of `guider`; the other arguments are as ComfyUI hands them to it."""

    def sample(starts, model):
        shape = (len(starts), noise.shape[1], *(min(size, SIDE) for size in noise.shape[2:]))
        made_up = starts.to(noise).view(-1, *[1] * (noise.ndim - 1)).expand(shape).contiguous()
        own = dict(extra_args)
        if "model_options" in own:
            own["model_options"] = comfy.model_patcher.create_model_options_clone(own["model_options"])
        last = sampler.sample(StandIn(guider, model), sigmas.clone(), own, None, made_up, torch.zeros_like(made_up), None, True)
        return (last - zero) / (one - zero)

    # A sampler's own latent is handed over rescaled: a flow's slice that ends in mid-run is divided by 1 - sigma.
    sampling = guider.model_patcher.get_model_object("model_sampling")
    zero, one = sampling.inverse_noise_scaling(sigmas[-1].cpu(), torch.tensor([0.0, 1.0])).tolist()

    with chance(chance_before(sigmas.device)):
        return respond(sample, len(sigmas) - 1)


class StandIn:
    """`guider`, with model(x, sigma) in the place of its model."""

    def __init__(self, guider, model):
        self._guider, self._model = guider, model

    def __call__(self, x, timestep, *args, **kwargs):
        return self._model(x, float(timestep[0]))

    predict_noise = outer_predict_noise = __call__

    def __getattr__(self, name: str):
        return getattr(self._guider, name)


def chance_before(device: torch.device) -> tuple:
    """The states of all generators that samplers draw from."""
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), on_device, device


@contextmanager
def chance(before: tuple):
    """Draw from the states `before` as if nothing had been drawn since, and leave no trace."""
    after = chance_before(before[-1])
    _set(before)
    try:
        yield
    finally:
        _set(after)


def _set(states: tuple) -> None:
    own, numpys, torchs, on_device, device = states
    random.setstate(own)
    np.random.set_state(numpys)
    torch.set_rng_state(torchs)
    if on_device is not None:
        torch.cuda.set_rng_state(on_device, device)
