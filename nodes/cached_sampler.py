"""OT Cached Sampler: KSampler with a schedule."""

import comfy.samplers
import nodes as core_nodes  # ComfyUI's, not this pack's
from comfy_api.latest import io

from ..otcache_core.drawing.strip import run_strip
from .apply_cache import LEVELS, level_input
from .host.attach import with_cache
from .host.auto import Target, with_auto_cache
from .schema import CACHES, OTSchedule, field, schema


class OTCachedSampler(io.ComfyNode):
    """Core KSampler on a model with a schedule, and a report of what was saved."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="OTCachedSampler",
            display_name="OT Cached Sampler",
            description="KSampler that runs the model only on the steps that a schedule names and predicts the others. Says "
            "how many evaluations it made and how much faster it was.",
            search_aliases=[f"sampler with {words}" for words in CACHES],
            has_intermediate_output=True,  # the strip's data reach the browser although this node saves nothing
            inputs=[
                field(io.Model.Input, "model", tooltip="The model used for denoising."),
                field(io.Int.Input, "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                      tooltip="The random seed of the noise."),
                field(io.Int.Input, "steps", default=50, min=1, max=10000, tooltip="Sampling steps of the full run. The "
                      "schedule is fitted to them: with 50 steps and a budget of 15 the model runs 15 times."),
                field(io.Float.Input, "cfg", default=4.0, min=0.0, max=100.0, step=0.1, round=0.01, tooltip="Classifier-free "
                      "guidance: higher values follow the prompt more closely. Use what the schedule was calibrated with."),
                field(io.Combo.Input, "sampler_name", options=comfy.samplers.KSampler.SAMPLERS, default="euler",
                      tooltip="The sampling algorithm. Schedules are made for euler and work with every sampler of fixed "
                      "steps. Samplers that run the model twice a step do so on computed steps."),
                field(io.Combo.Input, "scheduler", options=comfy.samplers.KSampler.SCHEDULERS, default="simple",
                      tooltip="How noise is removed over the steps. Best the one that the schedule was calibrated with."),
                field(io.Conditioning.Input, "positive", tooltip="What the picture should show."),
                field(io.Conditioning.Input, "negative", tooltip="What it should not show."),
                field(io.Latent.Input, "latent_image", tooltip="The latent to denoise."),
                field(io.Float.Input, "denoise", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="How much of the latent is "
                      "replaced; less than 1 keeps its structure (image to image). The schedule's later part is used then."),
                field(OTSchedule.Input, "schedule", optional=True, tooltip="Which steps run the model, from OT Budget "
                      "Interpolate or OT Load Schedule. Without one the model is learnt in its first run (OT Auto Cache)."),
                level_input(),
                field(io.Float.Input, "speedup", default=3.0, min=1.0, max=20.0, step=0.1, round=0.01, optional=True,
                      tooltip="Without a schedule: how many times fewer model evaluations."),
            ],
            outputs=[
                field(io.Latent.Output, "latent", display_name="latent", tooltip="The denoised latent."),
                field(io.String.Output, "report", display_name="report", tooltip="Evaluations made, steps, ideal and measured "
                      "speed-up, and why all steps were computed where they were."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise,
                schedule=None, reuse: str = "output", speedup: float = 3.0) -> io.NodeOutput:  # fmt: skip
        reports = []
        if schedule is None:
            cached = with_auto_cache(model, Target(speedup=speedup), LEVELS[reuse], on_report=reports.append)
        else:
            cached = with_cache(model, schedule, LEVELS[reuse], reports.append)
        latent, = core_nodes.common_ksampler(cached, seed, steps, cfg, sampler_name, scheduler, positive, negative,
                                             latent_image, denoise=denoise)  # fmt: skip
        if not reports:
            return io.NodeOutput(latent, "Nothing was sampled: denoise is 0.")
        return io.NodeOutput(latent, reports[0].text, ui={"otcache": [run_strip(reports[0])]})
