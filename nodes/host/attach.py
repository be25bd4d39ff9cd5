"""Putting a schedule on a MODEL: one wrapper around each sampling run, which holds all that the run needs."""

import logging
from collections.abc import Callable

import comfy.model_patcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key

from ...otcache_core.errors import OTCacheError
from ...otcache_core.sampling.cached_run import CachedRun
from ...otcache_core.sampling.layout import Layout
from ...otcache_core.schedules.schedule import Schedule
from .known import with_learnt_weights
from .run import HostRun
from .run_report import Report
from .suitability import check_slice, fit_to_run, saves_little

KEY = "otcache"
LEVELS = ("output", "blocks")


def with_cache(model, schedule: Schedule, level: str = "output", on_report: Callable[[Report], None] | None = None):
    """A clone of the ModelPatcher `model` whose sampling runs follow `schedule`; a schedule put on before is replaced.

    level: what a skipped step reuses, "output" (the model is not called) or "blocks" (only its transformer blocks are not).
    on_report: called after every run that finished. The clone carries nothing but these values; the state of a run is made
    when the run begins and freed when it ends, however it ends.
    """
    if level not in LEVELS:
        raise OTCacheError(f'Reuse level "{level}" is unknown; choose one of {", ".join(LEVELS)}.')

    def begin(guider, sampler, grid, layout, begins):
        told = []

        def follow():
            sampling = guider.model_patcher.get_model_object("model_sampling")
            fitting, says = fit_to_run(schedule, grid, sampling, begins)
            told.append(says)
            fitting = with_learnt_weights(fitting, guider, sampler, grid, layout)
            check_slice(schedule, fitting, begins)
            return CachedRun(fitting, layout)

        run = noted(HostRun(follow, grid, guider, sampler, level), *told)
        run.hint = saves_little(schedule, run.cached.schedule) if run.cached else ""
        return run

    return with_runs(model, begin, on_report)


def with_runs(model, begin: Callable, on_report: Callable[[Report], None] | None = None):
    """A clone of the ModelPatcher `model` whose sampling runs go through what `begin(guider, sampler, grid, layout, begins)`
    makes.

    That is a `HostRun` or something like it; grid: the run's sigmas, float64 [N + 1]; layout: of its latents; begins: whether
    it begins with noise of its own, which a later slice of another run does not.
    """

    def outer_sample(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        guider = executor.class_obj
        shared = guider.model_options
        refuse_other_caches(shared)
        grid = sigmas.detach().cpu().double().numpy()  # now: uni_pc writes into its sigmas later
        # Latents of picture and sound come packed as one; older versions do not know such and say no shapes.
        layout = Layout(kwargs.get("latent_shapes") or [latent_image.shape])
        run = begin(guider, sampler, grid, layout, bool(noise.any()))
        guider.model_options = comfy.model_patcher.create_model_options_clone(shared)
        _add_hooks(run, guider.model_options)
        try:
            output = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
            report = run.finish(output)
        finally:
            guider.model_options = shared
            run.close()
        logging.info("OTCache: %s", report.text)
        if on_report:
            on_report(report)
        return output

    clone = without_cache(model)
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, outer_sample)
    return clone


def noted(run: HostRun, *told: str) -> HostRun:
    """`run`, whose report says what was `told` too, unless it is computed in full."""
    if run.cached:
        run.note = "; ".join(filter(None, (run.note, *told)))
    return run


def _add_hooks(run, model_options: dict) -> None:
    # Plain functions: older ComfyUI versions deep-copy model options, which would duplicate the run behind a bound method.
    def predict_noise(executor, *args, **kwargs):
        return run.predict_noise(executor, *args, **kwargs)

    def sampler_sample(executor, *args, **kwargs):
        return run.sampler_sample(executor, *args, **kwargs)

    def apply_model(executor, *args, **kwargs):
        return run.apply_model(executor, *args, **kwargs)

    add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, predict_noise, model_options, is_model_options=True)
    add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, sampler_sample, model_options, is_model_options=True)
    add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, apply_model, model_options, is_model_options=True)


def without_cache(model):
    """A clone of the ModelPatcher `model` without a schedule of ours."""
    clone = model.clone()
    clone.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    return clone


def refuse_other_caches(model_options: dict) -> None:
    """Raise `OTCacheError` when a core cache is on the model whose options these are."""
    if "easycache" in model_options.get("transformer_options", {}):  # LazyCache uses the same key
        raise OTCacheError(
            "EasyCache or LazyCache is on the same model as OTCache, and two caches would skip each other's steps; "
            "bypass one of them."
        )
