"""Whether a schedule suits a run: what sigma means to the model, which model it is, what the sampler does."""

from math import inf

import comfy.model_sampling
import numpy as np

from ...otcache_core.calibration.solving import LEARNT
from ...otcache_core.errors import OTCacheError
from ...otcache_core.sampling.cached_run import CachedRun
from ...otcache_core.sampling.layout import Layout
from ...otcache_core.sampling.response import Response, are_eulers
from ...otcache_core.schedules.following import followed
from ...otcache_core.schedules.schedule import FLOW_TOP, Schedule

# Samplers that choose their own noise levels: there are no steps to skip.
ADAPTIVE = ("dpm_adaptive", "dpm_fast")
READS_GUIDANCE = (
    "the sampler reads the unconditional output with a function of its own around guidance, and a skipped step has none to show"
)
EULER = "euler"
LITTLE = 1.5  # times faster
BEYOND = FLOW_TOP  # as a factor: how far above the schedule's first sigma a run may start


def name_of(sampler) -> str:
    """What tells a SAMPLER from others."""
    name = getattr(getattr(sampler, "sampler_function", None), "__name__", type(sampler).__name__)
    return name.removeprefix("sample_")


def made_for_another(schedule: Schedule, sampler) -> bool:
    """Whether the weights of `schedule` were fitted to the steps of another sampler; calibrations fit them to Euler's."""
    return schedule.weights is not None and (schedule.sampler or EULER) != name_of(sampler)


def suits(schedule: Schedule, sampler, response: Response) -> bool:
    """Whether a run with `sampler` can follow the weights of `schedule`: they are its own, or it does as Euler does.

    So do samplers of several evaluations a step, which come to where Euler's finer steps would (heun: measured).
    """
    if response.moves is None or not made_for_another(schedule, sampler):
        return True
    return schedule.sampler in ("", EULER) and are_eulers(response.moves, np.asarray(schedule.sigmas))


def check_sampler(sampler) -> None:
    """Raise `OTCacheError` with the reason when a run of `sampler` has to be computed in full, as far as its name tells."""
    if any(word in name_of(sampler) for word in ADAPTIVE):
        raise OTCacheError("this sampler chooses its own noise levels; use one with fixed steps, such as euler")


def reads_guidance(given: dict, guiders: dict) -> bool:
    """Whether a sampler reads what lies behind the guided output, the unconditional one above all, as CFG++ samplers do.

    It adds functions around guidance (sampler_post_cfg_function and its like) to the model options `given` to an evaluation,
    which the `guiders` own do not hold. Those that model and guider carry belong to the output that is predicted.
    """
    return any(
        not any(function is known for known in _functions(guiders.get(key)))
        for key in given
        if key.startswith("sampler_")
        for function in _functions(given[key])
    )


def _functions(option) -> list | tuple:
    # A list of functions or a single one; clones of model options copy the list and keep the functions.
    return option if isinstance(option, list | tuple) else (option,)


def fit_to_run(schedule: Schedule, sigmas: np.ndarray, model_sampling, begins: bool = False) -> tuple[Schedule, str]:
    """(`schedule` as the run follows it, what to tell of its evaluations); see `following.followed`.

    Raises `OTCacheError` with the reason when the run has to be computed in full.
    """
    check_noise(schedule, model_sampling)
    if len(sigmas) > 1 and sigmas[0] > schedule.sigmas[0] * BEYOND:
        raise OTCacheError(
            f"the run starts at sigma {sigmas[0]:.4g}, but the schedule begins at {schedule.sigmas[0]:.4g}; "
            "use a schedule made for this model"
        )
    return followed(schedule, sigmas, begins)


def check_slice(schedule: Schedule, fitting: Schedule, begins: bool) -> None:
    """Raise `OTCacheError` when a run is so short a slice of `schedule` that `fitting` to it leaves nothing to skip.

    begins: whether it begins with noise of its own, as runs of less than the whole noise do, too.
    """
    from_top = begins or fitting.sigmas[0] * BEYOND >= schedule.sigmas[0]
    whole = from_top and fitting.sigmas[-1] <= schedule.sigmas[-1]
    if whole or fitting.budget < fitting.steps or schedule.budget == schedule.steps:
        return
    raise OTCacheError(
        f"every run begins with an evaluation, and this one is a slice of the schedule's {schedule.steps} steps that leaves "
        "nothing to skip; sample longer slices, or all steps in one"
    )


def made_on(model) -> dict[str, str]:
    """What a schedule calibrated on the ModelPatcher `model` says of it: the fields `model`, `model_class` and `noise`."""
    name = type(model.model).__name__
    return {"model": name, "model_class": name, "noise": noise_kind(model.get_model_object("model_sampling"))}


def noise_kind(model_sampling) -> str:
    """What sigma means to a model, as `Schedule.noise` says it."""
    return "flow" if isinstance(model_sampling, comfy.model_sampling.CONST) else "diffusion"


def check_noise(schedule: Schedule, model_sampling) -> None:
    """Raise `OTCacheError` when `schedule` was made for noise of another kind, or for more of it than the model knows.

    Its sigmas would lie at meaningless places in the run.
    """
    most = float(getattr(model_sampling, "sigma_max", inf))
    if schedule.noise or most <= BEYOND:  # flow models on discrete sigmas go beyond 1
        schedule.check_noise(noise_kind(model_sampling))
    if schedule.sigmas[0] > most * BEYOND:
        raise OTCacheError(
            f"the schedule begins at sigma {schedule.sigmas[0]:.4g}, but this model's noise ends at {most:.4g}; use a schedule "
            "made for this model"
        )


def other_model(schedule: Schedule, model_class: str) -> str:
    """What to tell when `schedule` was made on a model of another class, else ""."""
    if schedule.model_class in ("", model_class):
        return ""
    made = schedule.model or schedule.model_class
    return f"the schedule was made on {made}, but this model is {model_class}: one made on it would be better"


def saves_little(schedule: Schedule, fitting: Schedule) -> str:
    """What to tell where a run of other steps makes as many evaluations as `schedule` names, so that `fitting` saves little."""
    if schedule.speedup or fitting.ideal_speedup >= min(LITTLE, schedule.ideal_speedup):
        return ""
    return (
        f"the schedule makes its {schedule.budget} evaluations of {schedule.steps} steps in {fitting.steps} steps too: to save "
        "more, choose a speedup at OT Load Schedule, or a smaller budget"
    )


def fits_bands(schedule: Schedule, layout: Layout | None) -> bool:
    """Whether the weights of `schedule`, if it has any, are for the bands that latents of `layout` have, or for all as one."""
    bands = schedule.predictor.bands
    return schedule.predictor.kind != "fitted" or bands == 1 or layout is None or bands == layout.bands


def other_bands(run: CachedRun) -> str:
    """What to tell of a run whose schedule has weights for other bands than its latents have, else ""."""
    if not run.watches or fits_bands(run.schedule, run.layout):
        return ""
    return (
        f"the schedule has weights for {run.schedule.predictor.bands} bands, but these latents have {run.layout.bands}: the "
        "first band's hold for all; one run with OT Auto Cache learns weights for each"
    )


def learnt(schedule: Schedule) -> str:
    """What to tell of a schedule that ordinary runs have taught, else ""."""
    return schedule.provenance if schedule.provenance.startswith(LEARNT) else ""
