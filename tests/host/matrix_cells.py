"""The cells of the matrix of models and reuse levels: what the tests check and benchmarks/matrix.py prints."""

from contextlib import contextmanager
from dataclasses import dataclass

from sampling import Cached, forwards, ksampler, make_schedule

STEPS, BUDGET = 12, 4
LEVELS = ("output", "blocks")
CFG_PP = (
    "euler_cfg_pp", "euler_ancestral_cfg_pp", "dpmpp_2s_ancestral_cfg_pp", "dpmpp_2m_cfg_pp", "res_multistep_cfg_pp",
    "res_multistep_ancestral_cfg_pp", "gradient_estimation_cfg_pp", "cfgpp_ud10_ab",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """What one model (or situation) did at one reuse level.

    exact: whether computing every step gave core's result, bit for bit. wanted: evaluations that the reports name; made: as
    counted inside the model, of the whole network at output level, of its blocks at block level; asked: by the sampler.
    used: the level that the report names. reason: the report's, of the level or of a run in full. error: relative L2 distance
    to the run in full; streams: of each part of a packed latent, picture first. finite: of output.
    """

    exact: bool
    wanted: int
    made: int
    asked: int
    used: str
    reason: str
    error: float
    finite: bool
    streams: tuple[float, ...] = ()

    @property
    def good(self) -> bool:
        """Whether nothing is silently wrong."""
        return self.exact and self.finite and self.made == self.wanted

    @property
    def text(self) -> str:
        """The cell in a few words."""
        each = ", ".join(f"{name} {error:.2g}" for name, error in zip(("picture", "sound"), self.streams, strict=False))
        words = [f"{self.made}/{self.asked}", f"{self.error:.2g}" + (f" ({each})" if each else "")]
        words += ["in full" if self.made == self.asked else f"{self.used} instead"] if self.reason else []
        words += [] if self.exact else ["NOT EXACT"]
        words += [] if self.finite else ["NOT FINITE"]
        words += [] if self.made == self.wanted else [f"REPORTED {self.wanted}"]
        return ", ".join(words)


def own_schedule(host, model, budget: int, steps: int = STEPS, scheduler: str = "simple", kind: str = "linear"):
    """`budget` of the steps that `model` makes with `scheduler`, spread out."""
    import comfy.samplers

    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps)
    return make_schedule(host, steps, budget, kind).replace(sigmas=tuple(sigmas.double().tolist()))


def sampler_kind(name: str) -> str:
    """"in full" for samplers under which nothing is skipped, with the reason in the report, else ""."""
    return "in full" if name in (*CFG_PP, "dpm_adaptive", "dpm_fast") else ""


def flat(samples):
    """All values of a latent as one vector, of a video's and its audio's likewise."""
    import torch

    parts = samples.unbind() if getattr(samples, "is_nested", False) else [samples]
    return torch.cat([part.flatten() for part in parts])


@contextmanager
def counted(case):
    """Yields the noise levels of (the network's forward passes, its first block's, its last block's)."""
    first, last, handles = [], [], []
    with forwards(case.model) as whole:
        for block, runs in ((case.blocks[0], first), (case.blocks[-1], last)):
            handles.append(block.register_forward_pre_hook(lambda *_, runs=runs: runs.append(whole[-1])))
        try:
            yield whole, first, last
        finally:
            for handle in handles:
                handle.remove()


def measure(host, case, level: str, sample=None, steps: int = STEPS, budget: int = BUDGET) -> Cell:
    """The cell of `case` (as `matrix_models.build` gives it); `sample(model)` is core KSampler unless given.

    steps, budget: of the schedule, whose grid is that of a whole run.
    """
    sample = sample or (lambda model: ksampler(host, case, model, steps=steps))
    with counted(case) as (passes, *_):
        core = flat(sample(case.model))
    full = Cached(host, case.model, own_schedule(host, case.model, steps, steps), level)
    exact = bool((flat(sample(full.model)) == core).all())
    cached = Cached(host, case.model, own_schedule(host, case.model, budget, steps), level)
    with counted(case) as (whole, first, last):
        ours = flat(sample(cached.model))
    if sum(report.asked for report in cached.reports) == sum(report.steps for report in cached.reports):
        whole = set(whole)
    else:  # several evaluations may have one noise level: as many passes make one as in the run in full
        whole = [whole[i] for i in range(0, len(whole), round(len(passes) / sum(report.asked for report in cached.reports)))]
    return cell(core, exact, ours, cached.reports, len(whole), len(set(first)), len(set(last)), case.latent["samples"])


def cell(core, exact, ours, reports, whole: int, first: int, last: int, latent=None) -> Cell:
    """One cell of runs that were measured otherwise.

    whole, first, last: evaluations in which these ran. latent: where its parts are to be told apart.
    """
    packed = getattr(latent, "is_nested", False)
    sizes = [part.numel() for part in latent.unbind()] if packed else []
    used, in_full = reports[-1].level, all(report.reason for report in reports)
    return Cell(
        exact=exact,
        wanted=sum(report.evaluations for report in reports),
        made=whole if used == "output" or in_full else max(first, last),  # of blocks those at one noise level count once
        asked=sum(report.asked for report in reports),
        used=used,
        reason="; ".join(dict.fromkeys(report.reason or report.level_reason for report in reports)),
        error=distance(ours, core),
        streams=tuple(map(distance, ours.split(sizes), core.split(sizes))) if packed else (),
        finite=bool(ours.isfinite().all() and core.std() > 1e-3),
    )


def distance(ours, core) -> float:
    """Relative L2 distance of two vectors."""
    return float((ours - core).norm() / core.norm())


def two_experts(host, level: str, switch: int = STEPS // 2) -> Cell:
    """Wan 2.2 as its workflow runs it: one expert for the steps before `switch`, another for the rest, one schedule."""
    from matrix_models import MODELS, build

    high, low = (build(MODELS["Wan 2.1 t2v"], seed) for seed in (5, 6))
    high.negative, high.positive = low.negative, low.positive

    def sample(first, second):
        half = {"steps": STEPS, "node": "KSamplerAdvanced"}
        latent = ksampler(host, high, first, add_noise="enable", start_at_step=0, end_at_step=switch,
                          return_with_leftover_noise="enable", **half)  # fmt: skip
        return ksampler(host, low, second, add_noise="disable", start_at_step=switch, end_at_step=10_000,
                        return_with_leftover_noise="disable", latent_image={"samples": latent}, **half)  # fmt: skip

    def put(budget):
        schedule = own_schedule(host, high.model, budget)
        return [Cached(host, case.model, schedule, level) for case in (high, low)]

    core = flat(sample(high.model, low.model))
    exact = bool((flat(sample(*(cached.model for cached in put(STEPS)))) == core).all())
    halves = put(BUDGET)
    with counted(high) as before, counted(low) as after:
        ours = flat(sample(*(cached.model for cached in halves)))
    runs = (len(set(a)) + len(set(b)) for a, b in zip(before, after, strict=True))
    return cell(core, exact, ours, halves[0].reports + halves[1].reports, *runs)


def compiled(host, case, level: str, first: str) -> Cell:
    """A FLUX-style model that core's TorchCompileModel has compiled before ("compile") or after the schedule was put on it.

    It is compared with the compiled model without a schedule. Evaluations are counted just outside the network: hooks inside
    would be compiled as well.
    """
    made = []

    def count(apply, inputs):
        made.append(float(inputs["timestep"][0]))
        return apply(inputs["input"], inputs["timestep"], **inputs["c"])

    counting = case.model.clone()
    counting.set_model_unet_function_wrapper(count)
    counting.cached_patcher_init = (rebuilt, (counting.model,))  # as loaders set it: the node builds the model anew

    def by_core(model):
        return host.run("TorchCompileModel", model=model, backend="inductor")[0]

    def run(budget):
        schedule = own_schedule(host, case.model, budget)
        cached = Cached(host, by_core(counting) if first == "compile" else counting, schedule, level)
        made.clear()
        samples = flat(ksampler(host, case, cached.model if first == "compile" else by_core(cached.model)))
        return samples, cached.reports

    core = flat(ksampler(host, case, by_core(counting)))
    exact = bool((run(STEPS)[0] == core).all())
    return cell(core, exact, *run(BUDGET), len(set(made)), 0, 0)


def rebuilt(model, disable_dynamic=True):
    import comfy.model_management as management
    import comfy.model_patcher

    return comfy.model_patcher.ModelPatcher(model, management.get_torch_device(), management.unet_offload_device())
