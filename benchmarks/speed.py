"""What is left of the ideal speed-up at real size: python benchmarks/speed.py --device cuda

Builds FLUX.1-dev, Qwen-Image and HunyuanVideo as ComfyUI's own classes with random bf16 weights (a step takes as long as with
trained ones) and times whole sampling runs: in full, with as few evaluations as the speed-up that was published for OTCache
needs, at both levels, and core EasyCache at about as many. With `--device cpu` the same on networks of a few layers, which says
nothing of speed and shows that the command works.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

from booted import boot_host, say
from calibration_memory import Peak

STEPS, WARM_UP = 50, 3
DTYPES = {"cuda": "bfloat16", "cpu": "float32"}
HALVINGS = {"cuda": 5, "cpu": 2}  # of EasyCache's threshold
WEIGHTS = (1.2, -0.3, 0.1)  # of the newest evaluations: as many as a calibration gives, and what is weighed costs the same
WIDTHS = {"hidden_size": 256, "num_heads": 2, "num_attention_heads": 2}  # of the small networks; heads are as wide as ever
DEPTHS = ("depth", "depth_single_blocks", "num_layers")
GIB = 2**30


@dataclass(frozen=True)
class Real:
    """speedup: that was published for OTCache. config: what differs from the miniature of `matrix_models.MODELS`."""

    speedup: float
    cfg: float
    config: dict
    latent: tuple[int, ...]
    context: int
    tokens: int
    pooled: int = 0

    @property
    def budget(self) -> int:
        """The most evaluations whose ideal speed-up is no less than the published one."""
        return int(STEPS / self.speedup)


DIT = {"hidden_size": 3072, "mlp_ratio": 4.0, "num_heads": 24, "axes_dim": [16, 56, 56], "vec_in_dim": 768,
       "context_in_dim": 4096}  # fmt: skip
MODELS = {
    "FLUX.1": Real(4.5, 1.0, DIT | {"depth": 19, "depth_single_blocks": 38}, (1, 16, 128, 128), 4096, 512, 768),
    "Qwen-Image": Real(
        4.7, 4.0, {"num_layers": 60, "attention_head_dim": 128, "num_attention_heads": 24, "joint_attention_dim": 3584,
                   "axes_dims_rope": (16, 56, 56)}, (1, 16, 1, 128, 128), 3584, 256,
    ),
    "HunyuanVideo": Real(3.66, 1.0, DIT | {"depth": 20, "depth_single_blocks": 40}, (1, 16, 17, 60, 104), 4096, 256, 768),
}  # fmt: skip


def described(name: str, depth: int | None, small: bool):
    """The entry of the class's miniature at real size, or of so few layers, or narrow and on a small latent, too."""
    from matrix_models import MODELS as MINIATURES

    real = MODELS[name]
    changes = {} if depth is None else {key: depth for key in DEPTHS if key in real.config}
    latent, tokens = real.latent, real.tokens
    if small:
        changes |= {key: value for key, value in WIDTHS.items() if key in real.config}
        latent, tokens = (*latent[:2], *(min(size, 3) for size in latent[2:-2]), 16, 16), 16
    config = MINIATURES[name].config | real.config | changes
    return replace(MINIATURES[name], config=config, latent=latent, context=real.context, tokens=tokens, pooled=real.pooled)


class Bench:
    """One model, and timed runs of it."""

    def __init__(self, host, name: str, device: str, depth: int | None, small: bool, repeats: int):
        from matrix_models import build

        self.host, self.real, self.device, self.repeats = host, MODELS[name], device, repeats
        self.case = build(described(name, depth, small), dtype=DTYPES[device], device=device)
        self.memory = Peak() if device == "cpu" else None
        self.sample(self.case.model, WARM_UP)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.case.model.model.diffusion_model.parameters())

    def sample(self, model, steps: int = STEPS) -> tuple[float, int]:
        """(seconds, evaluations in which the network's blocks ran)."""
        from sampling import forwards, ksampler

        ran = set()
        with forwards(model) as sigmas:
            handle = self.case.blocks[0].register_forward_pre_hook(lambda *_: ran.add(sigmas[-1]))
            try:
                start = perf_counter()
                ksampler(self.host, self.case, model, steps=steps, cfg=self.real.cfg)  # whose result is on the CPU: all is done
                return perf_counter() - start, len(ran)
            finally:
                handle.remove()

    def timed(self, model) -> tuple[float, int, float]:
        """(median seconds, evaluations, peak memory in GiB) of whole runs."""
        self._peak()
        runs = [self.sample(model) for _ in range(self.repeats)]
        return median(seconds for seconds, _ in runs), runs[-1][1], self._peak()

    def _peak(self) -> float:
        """GiB since it was last asked for: of the GPU, weights included; else of the process beyond the model."""
        if self.memory:
            self.memory.stages.clear()
            self.memory.lap("run")
            return self.memory.stages["run"] * 1e6 / GIB
        import torch

        most = torch.cuda.max_memory_allocated() / GIB
        torch.cuda.reset_peak_memory_stats()
        return most

    def cached(self, level: str, reports: list):
        """The model with evenly spread evaluations and fitted weights of two bands, as a calibration makes them."""
        library, budget = self.host.module("otcache_core.schedules.schedule"), self.real.budget
        sigmas, = self.host.run("BasicScheduler", model=self.case.model, scheduler="simple", steps=STEPS, denoise=1.0)
        schedule = library.make_schedule(
            sigmas=tuple(sigmas.double().tolist()), compute_steps=library.uniform_steps(budget, STEPS),
            predictor=library.Predictor(kind="fitted", bands=2),
            weights=tuple(WEIGHTS[: k + 1] * 2 for k in range(budget)),
        )  # fmt: skip
        return self.host.module("nodes.host.attach").with_cache(self.case.model, schedule, level, reports.append)

    def easycache(self):
        """The model under core EasyCache with the largest threshold that makes no fewer evaluations than the budget."""
        make = partial(self.host.run, "EasyCache", model=self.case.model, start_percent=0.0, end_percent=1.0)
        low, high = 0.0, 3.0
        for _ in range(HALVINGS[self.device]):
            middle = (low + high) / 2
            enough = self.sample(make(reuse_threshold=middle)[0])[1] >= self.real.budget
            low, high = (middle, high) if enough else (low, middle)
        return make(reuse_threshold=low)[0]

    def rows(self) -> Iterator[tuple[str, float, int, float]]:
        """(name, seconds, evaluations, GiB), the full run first."""
        yield "in full", *self.timed(self.case.model)
        for level in ("output", "blocks"):
            reports: list = []
            seconds, _, memory = self.timed(self.cached(level, reports))
            said = reports[-1]
            if said.level == level and not said.reason:
                yield f"OTCache, {level}", seconds, said.evaluations, memory
        yield "core EasyCache", *self.timed(self.easycache())


def table(bench: Bench, tell: Callable[[str], None] = say) -> None:
    """The rows of one model; share: of the ideal speed-up that its own number of evaluations allows."""
    tell("| | evaluations | seconds | speed-up | ideal | share | peak GiB |\n|---|---:|---:|---:|---:|---:|---:|")
    full = None
    for name, seconds, evaluations, memory in bench.rows():
        full = full or seconds
        faster, ideal = full / seconds, STEPS / max(evaluations, 1)
        tell(f"| {name} | {evaluations} | {seconds:.2f} | {faster:.2f}x | {ideal:.2f}x | {faster / ideal:.1%} | {memory:.2f} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--depth", type=int, help="layers of each kind (all; on the CPU one)")
    parser.add_argument("--wide", action="store_true", help="real width and latent on the CPU, too")
    parser.add_argument("--repeats", type=int, default=1, help="of each timed run (%(default)s)")
    arguments = parser.parse_args()
    cpu = arguments.device == "cpu"
    depth = arguments.depth or (1 if cpu else None)
    with tempfile.TemporaryDirectory() as base:
        host = boot_host(Path(base), cpu)
        import comfy.model_management as management
        import comfy.utils
        import torch

        comfy.utils.PROGRESS_BAR_ENABLED = False
        if not cpu and not torch.cuda.is_available():
            sys.exit("torch sees no GPU here; --device cpu shows that the command works.")
        device = management.get_torch_device_name(management.get_torch_device())
        say(f"{device}, torch {torch.__version__}, {DTYPES[arguments.device]}, {STEPS} steps of euler, random weights")
        for name in arguments.models:
            bench = Bench(host, name, arguments.device, depth, cpu and not arguments.wide, arguments.repeats)
            size = f"{bench.parameters / 1e9:.3g} billion parameters, latent {list(bench.case.latent['samples'].shape)}"
            say(f"\n{name}, {size}, CFG {bench.real.cfg:g}; {bench.real.budget} evaluations for {bench.real.speedup:g}x\n")
            table(bench)
            del bench
            management.unload_all_models()
            management.soft_empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
