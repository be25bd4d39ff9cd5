"""Rows on grids that others published: step lists under caching, and noise levels under plain solvers.

Step lists were found for full-size models of the class, and none of them for the model that is measured here: each is drawn
held, as it was published, and with weights that one ordinary run of this model taught (`solving.fitted`).
"""

import time
from collections.abc import Iterator

# By model: (whose, compute steps of 50, or the name of a preset of the pack that ends in their number).
GOLDEN = "Golden Path's best of all"  # arXiv 2609.39343 scored every list of 9 for FLUX.1-dev and names the best of others
PUBLISHED = {
    "flux": (
        (GOLDEN, (0, 1, 2, 4, 6, 11, 24, 41, 49)),
        ("MeanCache's for FLUX", (0, 1, 2, 3, 4, 6, 9, 13, 18, 25, 34, 43, 49)),
        ("LeMiCa's for FLUX", "lemica-flux1-dev-10"),
        ("LeMiCa's for FLUX", "lemica-flux1-dev-15"),
        ("LeMiCa's for FLUX", "lemica-flux1-dev-20"),
    ),
    "video": (
        ("MeanCache's for HunyuanVideo", (0, 1, 2, 3, 4, 8, 19, 34, 49)),
        ("LeMiCa's for Wan", "lemica-wan2.1-t2v-1.3b-14"),
        ("LeMiCa's for Wan", "lemica-wan2.1-t2v-1.3b-20"),
        ("LeMiCa's for Wan", "lemica-wan2.1-t2v-1.3b-25"),
    ),
}
FEWER = 2  # a list of so many fewer steps than a budget is drawn there, and the table says at how many
# By model: what core calls the noise levels, the node that makes them, and for which model of its own.
LEVELS = {
    "flux": ("OptimalSteps", "OptimalStepsScheduler", "FLUX"),
    "unet": ("AlignYourSteps", "AlignYourStepsScheduler", "SD1"),
    "video": ("OptimalSteps", "OptimalStepsScheduler", "Wan"),
}
SEED = 77


def lists(model: str, budget: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(whose, compute steps) of the published lists for `model` that make `budget` evaluations or up to FEWER less; of lists
    by the same hand the longest."""
    from otcache_core.schedules.presets import preset

    found: dict[str, tuple[int, ...]] = {}
    for whose, steps in PUBLISHED.get(model, ()):
        steps = preset(steps).compute_steps if isinstance(steps, str) else steps
        if budget - FEWER <= len(steps) <= budget and len(steps) > len(found.get(whose, ())):
            found[whose] = steps
    yield from found.items()


def on_lists(proof, budget: int) -> Iterator[tuple[str, tuple, float]]:
    """(row, run, full runs that it needs beforehand) of each published list, held and with weights of the first lesson."""
    lesson = proof.lessons(budget)[0]
    fitted = proof.module("otcache_core.calibration.solving").fitted
    schedules = proof.module("otcache_core.schedules.schedule")
    for whose, steps in lists(proof.setting.model, budget):
        held = schedules.make_schedule(
            sigmas=tuple(lesson.sigmas), compute_steps=steps, predictor=schedules.Predictor(kind="hold"), name=whose
        )
        yield f"{whose}, held", proof.with_schedule(held), 0.0
        yield f"{whose}, our weights", proof.with_schedule(fitted([lesson], lesson.sigmas, steps)), proof.lesson_cost(budget)


def on_levels(proof, sampler: str, budget: int):
    """One run of `sampler` in `budget` steps on published noise levels, and the row's name."""
    from proof_rows import executing

    name, node, kind = LEVELS[proof.setting.model]
    new, run, steps = proof.new, proof.host.run, []
    sigmas, = run(node, model_type=kind, steps=budget, denoise=1.0)
    chosen, = run("KSamplerSelect", sampler_name=sampler)
    before = time.perf_counter()
    samples = run("SamplerCustom", model=executing(new.model, steps), add_noise=True, noise_seed=SEED, cfg=proof.setting.cfg,
                  positive=new.positive, negative=new.negative, sampler=chosen, sigmas=sigmas,
                  latent_image=new.latent)[0]["samples"]  # fmt: skip
    return f"{sampler}, {name}", (len(steps), time.perf_counter() - before, samples)

