"""OT Auto Cache: the model learns from its first picture, and the next ones are cached."""

from functools import partial

from comfy_api.latest import io

from ..otcache_core.schedules.rules import StepRules, forced_steps
from .apply_cache import LEVELS, level_input
from .host.auto import ANEW, BY_BUDGET, BY_ERROR, BY_SPEEDUP, THIS_RUN, WHEN_NEEDED, Target, with_auto_cache
from .host.progress import say_on
from .host.send_strip import show_run
from .schema import CACHES, field, schema
from .step_rules import rules_inputs


class OTAutoCache(io.ComfyNode):
    """The clone carries the target only; what was learnt lies in models/otcache_schedules/learned."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="OTAutoCache",
            display_name="OT Auto Cache",
            description="Makes every sampler after it faster. The first picture of a model is made in full, and the model is "
            "learnt from it: about half as long again, once. From then on, also after a restart, only some steps run the "
            "model and the others are predicted. LoRA, prompt, size and guidance may change.",
            search_aliases=CACHES,
            hidden=[io.Hidden.unique_id],
            inputs=[
                field(io.Model.Input, "model", tooltip="The model to speed up. LoRA and model sampling nodes may come before "
                      "or after; other caches (EasyCache, LazyCache, TeaCache, ...) may not be on it as well."),
                field(io.Float.Input, "speedup", default=3.0, min=1.0, max=20.0, step=0.1, round=0.01, tooltip="How many times "
                      "fewer model evaluations. With 50 steps, 3 makes 16 evaluations. More is faster and further from the "
                      "full run. 1 runs every step. At least 3 evaluations are made."),
                field(io.Combo.Input, "choose", options=[BY_SPEEDUP, BY_BUDGET, BY_ERROR], default=BY_SPEEDUP, optional=True,
                      advanced=True, tooltip="What decides the number of model evaluations: speedup, budget, or target_error."),
                field(io.Int.Input, "budget", default=10, min=1, max=1000, optional=True, advanced=True, tooltip="For by "
                      "budget: model evaluations in a run."),
                field(io.Float.Input, "target_error", default=0.05, min=0.0, max=10.0, step=0.005, round=0.0001, optional=True,
                      advanced=True, tooltip="For by error: the greatest expected error of the latent, relative to its size. "
                      "An estimate from what was learnt."),
                level_input(),
                field(io.Combo.Input, "learn", options=[WHEN_NEEDED, THIS_RUN, ANEW], default=WHEN_NEEDED, optional=True,
                      advanced=True, tooltip="when needed: only the first run is made in full. this run too: this one is "
                      "made in full as well and adds to what is known. anew: forget what was learnt of this model and learn "
                      "from this run; set it back afterwards."),
                *rules_inputs("the run's own steps", "As in ConditioningSetTimestepRange: 0 is pure noise, 1 the finished "
                              "picture, also for a run that does not go all the way."),
            ],
            outputs=[field(io.Model.Output, "model_out", display_name="model", tooltip="The model that learns. A second OT "
                           "Auto Cache or OT Apply Cache replaces the first.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, speedup, choose=BY_SPEEDUP, budget=10, target_error=0.05, reuse="output",
                learn=WHEN_NEEDED, start_percent=0.0, end_percent=1.0, max_skips=0, forced="") -> io.NodeOutput:  # fmt: skip
        node, target = cls.hidden.unique_id, Target(choose, speedup, budget, target_error)
        rules, say = StepRules(start_percent, end_percent, max_skips, forced_steps(forced)), say_on("OT Auto Cache", node)
        return io.NodeOutput(with_auto_cache(model, target, LEVELS[reuse], learn, partial(show_run, node), say, rules))
