"""OT Budget Interpolate: the budget slider, and budgets chosen by a target."""

from comfy_api.latest import io

from ..otcache_core.errors import OTCacheError
from ..otcache_core.schedules.following import ruled
from ..otcache_core.schedules.interpolation import budget_for_speedup, schedule_at, smallest_budget
from ..otcache_core.schedules.rules import StepRules, forced_steps
from .schema import OTSchedule, field, schema
from .step_rules import rules_inputs

BY_HAND, BY_ERROR, BY_SPEEDUP = "by hand", "by error", "by speed-up"


class OTBudgetInterpolate(io.ComfyNode):
    """Costs nothing: prepared schedules are looked up, others read off the Wasserstein geodesic."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="OTBudgetInterpolate",
            display_name="OT Budget Interpolate",
            description="Gives the schedule of any budget: fewer model evaluations are faster, more are closer to the full "
            "run. The slider gives the budget, or a target error or speed-up chooses it. Between anchor and reference the "
            "schedules were prepared by OT Anchor Search; others are read off the Wasserstein geodesic between the two.",
            has_intermediate_output=True,  # the strip's data reach the browser although this node saves nothing
            inputs=[
                field(OTSchedule.Input, "reference", optional=True, tooltip="The conservative schedule, from OT Reference "
                      "Schedule or OT Load Schedule. Not needed with an anchor that was learnt."),
                field(OTSchedule.Input, "anchor", tooltip="The schedule of the small budget, from OT Anchor Search or OT Load "
                      "Schedule."),
                field(io.Int.Input, "budget", default=10, min=1, max=1000, display_mode=io.NumberDisplay.slider,
                      tooltip="Model evaluations in a run. With 50 steps, 10 is up to 5 times faster; 50 or more run every "
                      "step. In grey while a target chooses."),
                # Optional, so that prompts saved before these were added still run.
                field(io.Combo.Input, "choose", options=[BY_HAND, BY_ERROR, BY_SPEEDUP], default=BY_HAND, optional=True,
                      tooltip="by hand: the slider. by error: the smallest budget expected to keep target_error. by speed-up: "
                      "the largest that is target_speedup times faster."),
                field(io.Float.Input, "target_error", default=0.03, min=0.0, max=10.0, step=0.0005, round=0.0001,
                      optional=True, tooltip="For by error: the greatest error to accept; the strip says what each budget "
                      "has, and what it means in dB. Where none is that good, every step is run."),
                field(io.Float.Input, "target_speedup", default=4.0, min=1.0, max=100.0, step=0.1, round=0.01, optional=True,
                      tooltip="For by speed-up: how many times fewer model evaluations. With 50 steps, 4 gives 12 "
                      "evaluations. It holds for each run's own steps, of which it leaves at least 3."),
                *rules_inputs("the schedule's", "0 is the first of the schedule's steps, 1 the end of the last; on other "
                              "steps the noise level that this stands for counts."),
            ],
            outputs=[
                field(OTSchedule.Output, "schedule", display_name="schedule", tooltip="For OT Cached Sampler or OT Apply "
                      "Cache."),
                field(io.Image.Output, "plot", display_name="plot", tooltip="Which steps run the model, between anchor and "
                      "reference."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, anchor, budget, reference=None, choose=BY_HAND, target_error=0.03, target_speedup=4.0, start_percent=0.0,
                end_percent=1.0, max_skips=0, forced="") -> io.NodeOutput:  # fmt: skip
        from ..otcache_core.drawing.charts import NODE, schedule_strips
        from ..otcache_core.drawing.strip import budget_strip
        from .pictures import figure_image

        reference = reference or largest(anchor)
        asked = {"budget": budget, "choose": choose, "target_error": target_error, "target_speedup": target_speedup}
        limits = {"start_percent": start_percent, "end_percent": end_percent, "max_skips": max_skips}
        rules = StepRules(**limits, forced=forced_steps(forced)).on_grid(reference.sigmas)
        strip = budget_strip(reference, anchor, asked | limits | {"forced": forced})
        chosen = chosen_budget(strip["curve"], reference.steps, **asked)
        found = schedule_at(reference, anchor, chosen)
        found = found.replace(speedup=target_speedup if choose == BY_SPEEDUP else None, rules=rules if rules.named else None)
        shown = ruled(found)
        label = f"budget {chosen}" if shown is found else f"budget {chosen}, {shown.budget}"
        labels = [f"anchor, {anchor.budget}", f"{label} of {found.steps}", f"reference, {reference.budget}"]
        plot = figure_image(schedule_strips([anchor, shown, reference], labels, NODE))
        return io.NodeOutput(found, plot, ui={"otcache": [strip]})


def largest(anchor):
    """The largest of the schedules that `anchor` carries; raises `OTCacheError` when it carries none above its own budget."""
    found = max(anchor.prepared, key=lambda schedule: schedule.budget, default=anchor)
    if found.budget <= anchor.budget:
        raise OTCacheError("This anchor carries no other budgets; connect a reference schedule too.")
    return found


def chosen_budget(curve, steps: int, budget: int, choose: str, target_error: float, target_speedup: float) -> int:
    """The budget that the widgets ask for; more than the grid's `steps` is all of them. Raises `OTCacheError` as the rules do.

    curve: the errors that the strip draws.
    """
    if choose == BY_ERROR:
        return smallest_budget(curve, steps, target_error)
    if choose == BY_SPEEDUP:
        return budget_for_speedup(steps, target_speedup)
    return min(budget, steps)
