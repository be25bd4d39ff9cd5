"""Trains one of the small models on drawings: python -m benchmarks.trained.training unet|video --out DIR

One thread of a CPU is enough: 40 minutes for the U-Net, less for the other, more where it is shared. DIR receives the weights
(bf16 averages over the last steps) and a checkpoint, from which `--resume` goes on. The noise levels are those of ComfyUI's own
model: of its 1000 for the U-Net, which learns the noise; of the embedded model's training for the video model, which learns
noise less picture.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from benchmarks.booted import find_comfyui, say
from otcache_core.demo.train import atomically, sample_sigmas

COUNTS, BATCHES, STEPS = {"unet": 12288, "video": 6144}, {"unet": 32, "video": 16}, {"unet": 2400, "video": 2400}
PEAK_RATE, WARM_UP, AVERAGE, DROP = 1.5e-3, 100, 0.997, 0.1
SAVE_EVERY = 120.0  # seconds


def initialise(network: torch.nn.Module, head: str) -> None:
    """Random weights, as torch's own layers begin (ComfyUI's leave theirs unset); a `head` that says zero."""
    for module in network.modules():
        for kind in (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.GroupNorm, torch.nn.LayerNorm):
            if isinstance(module, kind):
                kind.reset_parameters(module)
    for name, tensor in network.named_parameters():
        if "modulation" in name:
            torch.nn.init.normal_(tensor, std=tensor.shape[-1] ** -0.5)
        elif "norm_q" in name or "norm_k" in name:
            torch.nn.init.ones_(tensor)
    for tensor in network.get_submodule(head).parameters():
        torch.nn.init.zeros_(tensor)
    network.train().requires_grad_(True)


def noisy_unet(model, latents: Tensor, noise: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(input, time, target) of noise prediction: (x0 + sigma e) / sqrt(1 + sigma^2) at one of the model's levels, and e."""
    time = torch.randint(len(model.model_sampling.sigmas), (len(latents),), generator=generator)
    sigma = model.model_sampling.sigmas[time].view(-1, *[1] * (latents.ndim - 1))
    return (latents + sigma * noise) / (1 + sigma**2).sqrt(), time.float(), noise


def noisy_video(model, latents: Tensor, noise: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(input, time, target) of a flow: (1 - sigma) x0 + sigma e, 1000 sigma, and e - x0."""
    sigma = sample_sigmas(len(latents), generator)
    mixed = torch.lerp(latents, noise, sigma.view(-1, *[1] * (latents.ndim - 1)))
    return mixed, 1000 * sigma, noise - latents


NOISY: dict[str, Callable] = {"unet": noisy_unet, "video": noisy_video}


def data(kind: str, seed: int) -> tuple[Tensor, Tensor]:
    """Latents [n, ...] and prompts [n, tokens, 64] to learn from."""
    from . import drawings
    from .models import MODELS

    rng = np.random.default_rng(seed)
    scenes, drifts = drawings.sample_scenes(COUNTS[kind], rng)
    latent, side = MODELS[kind].latent, MODELS[kind].side
    if kind == "unet":
        return drawings.stills(scenes, side, rng), drawings.tokens(scenes)
    return drawings.clips(scenes, drifts, latent[1], side, rng), drawings.tokens(scenes, drifts)


def rate(step: int, progress: float) -> float:
    """Warm-up over steps, flat for 30 % of the run, then a cosine to zero."""
    decay = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, (progress - 0.3) / 0.7))))
    return PEAK_RATE * min(1.0, (step + 1) / WARM_UP) * decay


def train(kind: str, out: Path, steps: int, seed: int = 0, resume: bool = False) -> None:
    """The whole run. Raises FileNotFoundError when there is nothing to resume."""
    import comfy.model_management

    from .models import MODELS, build

    comfy.model_management.in_training = True  # its own kernels for rotary positions cannot be differentiated
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    latents, prompts = data(kind, seed)
    model = build(kind)
    network = model.diffusion_model
    initialise(network, MODELS[kind].head)
    params = dict(network.named_parameters())
    average = [p.detach().clone() for p in params.values()]
    optimiser = torch.optim.AdamW(params.values(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    step, elapsed, smooth, checkpoint = 0, 0.0, float("nan"), out / f"{kind}.pt"
    if resume:
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        generator.set_state(state["random"])
        average, (step, elapsed, smooth) = state["average"], state["clock"]
    say(f"{kind}: {sum(p.numel() for p in params.values()) / 1e6:.2f} million parameters, latents {tuple(latents.shape)}, "
        f"power {float(latents.square().mean()):.2f}")  # fmt: skip

    def save() -> None:
        weights = {name: p.to(torch.bfloat16).contiguous() for name, p in zip(params, average, strict=True)}
        said = {"steps": str(step), "seconds": f"{elapsed:.0f}", "loss": f"{smooth:.4f}", "seed": str(seed)}
        atomically(out / f"{kind}.safetensors", lambda path: save_file(weights, path, said))
        state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "random": generator.get_state(),
                 "average": average, "clock": (step, elapsed, smooth)}  # fmt: skip
        atomically(checkpoint, lambda path: torch.save(state, path))

    last = saved = time.monotonic()
    while step < steps:
        rows = torch.randint(len(latents), (BATCHES[kind],), generator=generator)
        context = prompts[rows] * (torch.rand(len(rows), 1, 1, generator=generator) >= DROP)
        noise = torch.randn(latents[rows].shape, generator=generator)
        given, when, wanted = NOISY[kind](model, latents[rows], noise, generator)
        for group in optimiser.param_groups:
            group["lr"] = rate(step, step / steps)
        loss = F.mse_loss(network(given, when, context), wanted)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params.values(), 1.0)
        optimiser.step()
        step += 1
        # an average of n steps must not remember more than those n
        torch._foreach_lerp_(average, [p.detach() for p in params.values()], 1 - min(AVERAGE, step / (step + 9)))
        smooth = loss.item() if step == 1 else smooth + 0.01 * (loss.item() - smooth)
        now = time.monotonic()
        elapsed, last = elapsed + now - last, now
        if step % 25 == 0:
            say(f"step {step}, {elapsed:.0f} s, loss {smooth:.4f}")
        if now - saved > SAVE_EVERY:
            save()
            saved = now
    save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=BATCHES)
    parser.add_argument("--steps", type=int, help=f"of the optimiser ({STEPS})")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "weights", help="folder (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    arguments = parser.parse_args()
    sys.path.insert(0, str(find_comfyui()))
    from comfy.cli_args import args  # before anything of ComfyUI asks for a GPU

    args.cpu = True
    torch.set_num_threads(1)
    train(arguments.kind, arguments.out, arguments.steps or STEPS[arguments.kind], arguments.seed, arguments.resume)


if __name__ == "__main__":
    main()
