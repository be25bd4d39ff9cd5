"""Train the demo model: ``python -m otcache_core.demo.train --minutes 40 --out DIR``.

Draws the data, trains, saves; after a kill, ``--resume`` goes on. DIR receives transformer.safetensors and
vae.safetensors, which the package ships, checkpoint.pt for resuming and samples.png to look at.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path

# Read once, when OpenMP loads: spinning threads cost up to 25x when anything else runs on the machine.
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from .autoencoder import LinearAutoencoder
from .conditioning import encode, encode_null
from .generator import DemoGenerator, cases
from .model import FluxTransformer
from .scenes import draw, sample_scene
from .stored import TRANSFORMER_FILE, VAE_FILE

BATCH, PEAK_LR, WARMUP, EMA, DROP = 64, 1.5e-3, 150, 0.9993, 0.1
CHECKPOINT = "checkpoint.pt"
SAVE_EVERY = 120.0  # seconds


def make_data(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """``count`` random scenes: pictures [n, 3, 64, 64], tokens [n, 11, 64], pooled [n, 64]; float32."""
    rng = np.random.default_rng(seed)
    scenes = [sample_scene(rng) for _ in range(count)]
    images = torch.cat([draw(scenes[i : i + 256], rng=rng) for i in range(0, count, 256)])
    return images, *encode(scenes)


def learning_rate(step: int, progress: float) -> float:
    """Warm-up over steps, flat to 35% of the wall time, then a cosine to zero."""
    decay = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, (progress - 0.35) / 0.65))))
    return PEAK_LR * min(1.0, (step + 1) / WARMUP) * decay


def sample_sigmas(n: int, generator: torch.Generator) -> Tensor:
    """Training noise levels [n]: logit-normal (0.35, 1.15), one in ten uniform."""
    normal = torch.sigmoid(0.35 + 1.15 * torch.randn(n, generator=generator))
    uniform = torch.rand(n, generator=generator)
    return torch.where(torch.rand(n, generator=generator) < 0.1, uniform, normal)


class Trainer:
    """Model, optimiser, weight average and clock of one run; ``state`` and ``restore`` carry all of it."""

    def __init__(self, data: tuple[Tensor, ...], device: str = "cpu", seed: int = 0, compiled: bool = False):
        """``data``: latents [n, 16, 16, 16], tokens [n, 11, 64], pooled [n, 64]."""
        torch.manual_seed(seed)
        self.device, self.seed, self.data = device, seed, data
        self.model = FluxTransformer().to(device)
        self.call = torch.compile(self.model) if compiled else self.model
        self.params = list(self.model.parameters())
        self.ema = [p.detach().clone() for p in self.params]
        groups = [
            {"params": [p for p in self.params if p.ndim > 1], "weight_decay": 0.02},
            {"params": [p for p in self.params if p.ndim == 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.98), fused=True)
        self.random = torch.Generator().manual_seed(seed)
        self.step, self.elapsed, self.loss = 0, 0.0, float("nan")

    def train_step(self, progress: float) -> float:
        """One batch at ``progress`` in [0, 1] of the wall time; returns its loss."""
        rows = torch.randint(len(self.data[0]), (BATCH,), generator=self.random)
        latents, context, pooled = (part[rows] for part in self.data)
        dropped = torch.rand(BATCH, generator=self.random) < DROP
        null_context, null_pooled = encode_null(1)
        context = torch.where(dropped[:, None, None], null_context, context)
        pooled = torch.where(dropped[:, None], null_pooled, pooled)
        noise = torch.randn(latents.shape, generator=self.random)
        sigma = sample_sigmas(BATCH, self.random)
        noisy = torch.lerp(latents, noise, sigma[:, None, None, None])
        inputs = [part.to(self.device) for part in (noisy, sigma, context, pooled)]
        target = (noise - latents).to(self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, progress)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16):
            velocity = self.call(*inputs)
        loss = F.mse_loss(velocity.float(), target)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.optimiser.step()
        self.step += 1
        # an average of n steps must not remember more than those n
        weight = 1 - min(EMA, self.step / (self.step + 9))
        torch._foreach_lerp_(self.ema, [p.detach() for p in self.params], weight)
        value = loss.item()
        self.loss = value if self.step == 1 else self.loss + 0.01 * (value - self.loss)
        return value

    def state(self) -> dict:
        """Everything ``restore`` needs, for torch.save."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimiser": self.optimiser.state_dict(),
            "random": self.random.get_state(),
            "clock": (self.step, self.elapsed, self.loss),
        }

    def restore(self, state: dict) -> None:
        """Go on from ``state()``."""
        self.model.load_state_dict(state["model"])
        self.ema = [average.to(self.device) for average in state["ema"]]
        self.optimiser.load_state_dict(state["optimiser"])
        self.random.set_state(state["random"])
        self.step, self.elapsed, self.loss = state["clock"]

    def save(self, out: Path) -> None:
        """Write checkpoint and averaged bf16 weights; a kill leaves either the old files or the new ones."""
        names = [name for name, _ in self.model.named_parameters()]
        weights = {name: p.to("cpu", torch.bfloat16) for name, p in zip(names, self.ema, strict=True)}
        metadata = {
            "steps": str(self.step),
            "seed": str(self.seed),
            "loss": f"{self.loss:.4f}",
            "seconds": f"{self.elapsed:.0f}",
            "config": json.dumps(self.model.config.comfy_params()),
        }
        atomically(out / TRANSFORMER_FILE, lambda path: save_file(weights, path, metadata))
        atomically(out / CHECKPOINT, lambda path: torch.save(self.state(), path))


def atomically(path: Path, write) -> None:
    """Call ``write(temporary)``, then move the result to ``path`` in one step."""
    temporary = path.with_name(path.name + ".tmp")
    write(temporary)
    temporary.chmod(0o644)  # safetensors writes for the owner alone
    os.replace(temporary, path)


def save_sheet(out: Path, device: str = "cpu") -> None:
    """16 evaluation prompts, guidance 4, 50 Euler steps, as a 4x4 sheet at three times the size."""
    generator = DemoGenerator(out, device=device)
    images = generator.decode(generator.sample(cases(16, 2000)))
    sheet = images.unflatten(0, (4, 4)).permute(0, 3, 1, 4, 2).reshape(256, 256, 3)
    pixels = (sheet * 255).round().byte().numpy()
    picture = Image.fromarray(pixels).resize((768, 768), Image.Resampling.NEAREST)
    atomically(out / "samples.png", lambda path: picture.save(path, "PNG"))


def train(
    out: Path, minutes: float, *, device: str = "cpu", seed: int = 0, count: int = 16384,
    compiled: bool = False, resume: bool = False,
) -> Trainer:
    """The whole run; returns its trainer. Raises FileNotFoundError when there is nothing to resume."""
    out.mkdir(parents=True, exist_ok=True)
    images, context, pooled = make_data(count, seed)
    if resume:  # fitting again could flip signs, and the weights know the old latents
        autoencoder = LinearAutoencoder.load(out / VAE_FILE)
    else:
        autoencoder = LinearAutoencoder.fit(images)
        atomically(out / VAE_FILE, autoencoder.save)
    trainer = Trainer((autoencoder.encode(images), context, pooled), device, seed, compiled)
    del images
    if resume:
        trainer.restore(torch.load(out / CHECKPOINT, map_location="cpu", weights_only=True))
    budget, last, saved = 60.0 * minutes, time.monotonic(), time.monotonic()
    bar = tqdm(total=round(budget), initial=round(trainer.elapsed), unit="s", mininterval=5.0)
    while trainer.elapsed < budget:
        trainer.train_step(trainer.elapsed / budget)
        now = time.monotonic()
        trainer.elapsed, last = trainer.elapsed + now - last, now
        bar.set_postfix(step=trainer.step, loss=f"{trainer.loss:.4f}", refresh=False)
        bar.update(min(round(trainer.elapsed), bar.total) - bar.n)
        if now - saved > SAVE_EVERY:
            trainer.save(out)
            saved = now
    bar.close()
    trainer.save(out)
    return trainer


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=40.0, help="wall time of the training loop")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=16384, help="pictures to draw")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="torch.compile; on the CPU this needs g++")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    trainer = train(
        args.out, args.minutes, device=args.device, seed=args.seed, count=args.scenes,
        compiled=args.compile, resume=args.resume,
    )
    save_sheet(args.out, args.device)
    print(f"{trainer.step} steps, {trainer.elapsed:.0f} s, loss {trainer.loss:.4f}")


if __name__ == "__main__":
    main()
