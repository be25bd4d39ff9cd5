"""Random samplers, guiders and wrappers: whatever they do, nothing breaks and nothing is wrong in silence."""

import random
from dataclasses import dataclass, field

import pytest
import torch
from matrix_cells import own_schedule
from other_packs import sampler_of
from sampling import Cached

RUNS, GROUPS = 500, 10
TWICE, ROOM = 2.0, 0.02  # the error allowed over that of holding, and relative to the full run for its own sake


@dataclass
class Play:
    """One random run, all drawn beforehand from `seed` so that every repetition does the same.

    calls: in order (sigma, noise added before, which prompt, what of the latent is asked). results: what the guider makes of
    denoised latents. answered: evaluations that a wrapper answers in place of the model. adaptive: whether the sampler repeats
    a call where the model's answer is large.
    """

    seed: int
    steps: int = 0
    budget: int = 0
    calls: list = field(default_factory=list)
    results: str = "tensor"
    answered: set = field(default_factory=set)
    batch: int = 1
    cfg: float = 1.0
    switch: str = ""
    adaptive: bool = False

    def __post_init__(self):
        draw = random.Random(self.seed)
        self.steps = draw.randint(3, 8)
        self.budget = draw.randint(1, self.steps)
        self.batch, self.cfg = draw.choice([1, 1, 2]), draw.choice([1.0, 4.0])
        self.kind = draw.choice(["linear", "linear", "fitted", "fitted", "mean_velocity"])
        self.level = draw.choice(["output", "output", "blocks"])
        steps = list(range(self.steps))
        order = draw.choice(["falling"] * 4 + ["stages", "repeats", "restart", "random"])
        if order == "stages":
            steps = [step + part for step in steps for part in (0, draw.choice([0.25, 0.5, 1.0]))]
        elif order == "repeats":
            steps = [step for step in steps for _ in range(draw.randint(1, 3))]
        elif order == "restart":
            back = draw.randrange(self.steps)
            steps = steps[: draw.randint(back, self.steps)] + steps[back:]
        elif order == "random":
            steps = draw.choices(steps, k=self.steps + 2)
        noise = draw.choice([0.0, 0.0, 0.0, 0.3])
        prompts = draw.choice(["one", "one", "one", "in turn", "at random", "once"])
        sizes = draw.choice(["whole"] * 6 + ["half at random", "half once"])
        once = draw.randrange(len(steps) + 1)
        pick = {"one": lambda i: 0, "in turn": lambda i: i % 2, "at random": lambda i: draw.randrange(2),
                "once": lambda i: i >= once}  # fmt: skip
        part = {"whole": lambda i: 0, "half at random": lambda i: draw.random() < 0.3, "half once": lambda i: i >= once}
        self.calls = [(step, noise, pick[prompts](i), part[sizes](i)) for i, step in enumerate(steps)]
        self.switch = draw.choice(["conds", "options", "cfg"])
        self.results = draw.choice(["tensor"] * 8 + ["pair", "none", "pair at random"])
        self.pairs = {i for i in range(40) if draw.random() < 0.3}
        if draw.random() < 0.25:
            self.answered = {i for i in range(40) if draw.random() < 0.4}
        self.answer = draw.choice(["latent", "zeros", "same"])
        self.adaptive = draw.random() < 0.1


def guider_of(play, case, model, made):
    """A guider that counts its evaluations in `made`, and gives what `play` says."""
    import comfy.samplers

    class Guider(comfy.samplers.CFGGuider):
        def predict_noise(self, x, timestep, model_options, seed=None):
            at = len(made)
            made.append(float(timestep[0]))
            if play.switch == "options" and model_options["transformer_options"].get("which"):
                prompt = self.conds["negative"]
                out = comfy.samplers.sampling_function(self.inner_model, x, timestep, None, prompt, 1.0, model_options, seed)
            else:
                out = super().predict_noise(x, timestep, model_options, seed)
            if play.results == "pair" or (play.results == "pair at random" and at in play.pairs):
                return out, out * 0.5
            return None if play.results == "none" else out

    guider = Guider(model)
    guider.set_conds(case.positive, case.negative)
    guider.set_cfg(play.cfg)
    return guider


def wrapped(play, model):
    """`model`, some of whose calls are answered without it."""
    if not play.answered:
        return model
    count, kept, model = [0], [], model.clone()

    def wrapper(apply, inputs):
        x, count[0] = inputs["input"], count[0] + 1
        if count[0] - 1 in play.answered:
            same = kept[0] if kept and kept[0].shape == x.shape else x
            return {"latent": x, "zeros": torch.zeros_like(x), "same": same}[play.answer]
        kept[:] = [apply(x, inputs["timestep"], **inputs["c"])]
        return kept[0]

    model.set_model_unet_function_wrapper(wrapper)
    return model


def play_it(play, model, x, sigmas, extra_args=None, callback=None, disable=None):
    """The sampler that `play` describes: Euler from call to call, whatever the noise levels are."""
    guider = model.inner_model
    generator = torch.Generator().manual_seed(play.seed)
    kept_conds, kept_cfg = guider.conds, guider.cfg

    def level(step):
        low = min(int(step), len(sigmas) - 2)
        return sigmas[low] + (step - low) * (sigmas[low + 1] - sigmas[low])

    calls, again = list(play.calls), 0
    while calls:
        step, noise, other, half = calls.pop(0)
        sigma = level(step)
        if sigma <= 0:
            continue
        if play.switch == "conds":
            guider.conds = kept_conds | {"positive": kept_conds["negative" if other else "positive"]}
        elif play.switch == "cfg":
            guider.cfg = 2.5 if other else kept_cfg
        else:
            extra_args["model_options"]["transformer_options"]["which"] = bool(other)
        x = x + noise * sigma * torch.randn(x.shape[1:], generator=generator)
        part = x[..., : x.shape[-1] // 2] if half else x
        out = model(part, sigma * x.new_ones([len(x)]), **extra_args)
        out = out[0] if isinstance(out, tuple) else torch.zeros_like(part) if out is None else out
        if play.adaptive and again < 4 and float(out.flatten()[0]) > 0.3:
            again += 1
            calls.insert(0, (min(step + 0.5, len(sigmas) - 1.5), 0.0, other, half))
        following = level(calls[0][0]) if calls else sigmas[-1]
        moved = (part - out) / sigma * (following - sigma)
        x = torch.cat([part + moved, x[..., part.shape[-1] :]], -1)
    guider.conds, guider.cfg = kept_conds, kept_cfg
    return x


def run(host, case, play, model):
    """(final latent or the exception's name, evaluations that the guider made)."""
    import comfy.model_management

    made = []
    guider = guider_of(play, case, wrapped(play, model), made)
    latent = torch.zeros(play.batch, 16, 4, 4)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(play.seed))
    import comfy.samplers

    sampling = case.model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", play.steps)
    sampler = sampler_of(lambda *args, **inputs: play_it(play, *args, **inputs))
    try:
        return guider.sample(noise, latent, sampler, sigmas, seed=play.seed), made
    except Exception as error:  # what the bare model raises is its own
        return repr(error), made


@pytest.mark.parametrize("group", range(GROUPS))
def test_nothing_breaks_and_nothing_is_wrong_in_silence(host, demo_small, group):
    accelerated = 0
    for seed in range(group * RUNS // GROUPS, (group + 1) * RUNS // GROUPS):
        accelerated += check(host, demo_small, Play(seed))
    assert accelerated >= RUNS // GROUPS // 8  # or nothing was tested


def check(host, case, play) -> bool:
    """Whether the run was accelerated; asserts what the module says."""
    core, _ = run(host, case, play, case.model)
    means = play.kind == "mean_velocity"
    schedule = own_schedule(host, case.model, play.budget, play.steps, kind="hold" if means else play.kind)
    if means:
        schedule = schedule.replace(predictor={"kind": play.kind}, spans=(2,) * play.budget)
    cached = Cached(host, case.model, schedule, play.level)
    ours, made = run(host, case, play, cached.model)
    if isinstance(core, str):
        assert isinstance(ours, str) and ours == core, (play, ours, core)
        return False
    assert torch.is_tensor(ours), (play, ours)
    report, = cached.reports
    assert ours.isfinite().all() or not core.isfinite().all(), (play, report.text)
    # Where blocks are replayed, the guider is asked on every step.
    most = report.asked if play.level == "blocks" else report.evaluations
    assert report.evaluations <= len(made) <= most, (play, report.text)
    if report.evaluations == report.asked:
        assert play.adaptive or torch.equal(ours, core), (play, report.text)
        return False
    if report.reason or report.extra or report.note or report.warning or play.adaptive:
        return True
    holding = schedule.replace(predictor={"kind": "hold"}, weights=None, spans=None)
    hold = Cached(host, case.model, holding, report.level)
    held, _ = run(host, case, play, hold.model)
    ours, held = ((one - core).norm() / core.norm() for one in (ours, held))
    assert ours <= TWICE * held + ROOM, (play, float(ours), float(held), report.text)
    return True
