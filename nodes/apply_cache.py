"""OT Apply Cache: a schedule on a MODEL, for any sampler node."""

from functools import partial

from comfy_api.latest import io

from .host.attach import with_cache
from .host.send_strip import show_run
from .schema import CACHES, OTSchedule, field, schema

LEVELS = {"output": "output", "transformer blocks": "blocks"}  # as shown -> as meant


def level_input():
    """The input that chooses what skipped steps reuse; its values are the keys of `LEVELS`."""
    return field(
        io.Combo.Input,
        "reuse",
        options=list(LEVELS),
        default="output",
        optional=True,  # so that prompts saved before it was added still run
        advanced=True,
        tooltip="What a skipped step reuses. output: the model is not run at all and its result is predicted from the steps "
        "before; works with every model and is fastest. transformer blocks: the model is run, but only its first and last "
        "layers work and its blocks are replaced by what they did before; it skips less work and needs more memory, and works "
        "with models that let blocks be replaced (FLUX, Qwen-Image, HunyuanVideo, Wan and others). Other models, and runs with "
        "a ControlNet, use output and say so in the log.",
    )


class OTApplyCache(io.ComfyNode):
    """The clone carries the schedule only; everything else is made when a sampler runs it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="OTApplyCache",
            display_name="OT Apply Cache",
            description="Puts a schedule on a model, so that every sampler after this node skips steps by it: KSampler, "
            "KSampler (Advanced), SamplerCustomAdvanced and others. The schedule fits itself to the sampler's own steps.",
            search_aliases=CACHES,
            hidden=[io.Hidden.unique_id],
            inputs=[
                field(io.Model.Input, "model", tooltip="The model to speed up. LoRA and model sampling nodes may come before "
                      "or after; other caches (EasyCache, LazyCache, TeaCache, ...) may not be on it as well."),
                field(OTSchedule.Input, "schedule", tooltip="Which steps run the model. It is fitted to any number of steps, "
                      "scheduler, shift, denoise or part of a run. Samplers that choose their own noise levels (dpm_adaptive, "
                      "dpm_fast) and CFG++ samplers run all steps, and the log says so."),
                level_input(),
            ],
            outputs=[field(io.Model.Output, "model_out", display_name="model", tooltip="The model with the schedule on it. A "
                           "second OT Apply Cache replaces the first.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, schedule, reuse: str = "output") -> io.NodeOutput:
        return io.NodeOutput(with_cache(model, schedule, LEVELS[reuse], partial(show_run, cls.hidden.unique_id)))
