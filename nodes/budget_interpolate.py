"""OT Budget Interpolate: the budget slider."""

from comfy_api.latest import io

from ..otcache_core.interpolation import schedule_at
from .schema import OTSchedule, field, schema


class OTBudgetInterpolate(io.ComfyNode):
    """Costs nothing: prepared schedules are looked up, others read off the Wasserstein geodesic."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="OTBudgetInterpolate",
            display_name="OT Budget Interpolate",
            description="Gives the schedule of any budget: fewer model evaluations are faster, more are closer to the full "
            "run. Between anchor and reference the schedules were prepared by OT Anchor Search; others are read off the "
            "Wasserstein geodesic between the two.",
            has_intermediate_output=True,  # the strip's data reach the browser although this node saves nothing
            inputs=[
                field(OTSchedule.Input, "reference", tooltip="The conservative schedule, from OT Reference Schedule or OT Load "
                      "Schedule."),
                field(OTSchedule.Input, "anchor", tooltip="The schedule of the small budget, from OT Anchor Search or OT Load "
                      "Schedule."),
                field(io.Int.Input, "budget", default=10, min=1, max=100, display_mode=io.NumberDisplay.slider,
                      tooltip="Model evaluations in a run. With 50 steps, 10 is up to 5 times faster."),
            ],
            outputs=[
                field(OTSchedule.Output, "schedule", display_name="schedule", tooltip="For OT Cached Sampler or OT Apply "
                      "Cache."),
                field(io.Image.Output, "plot", display_name="plot", tooltip="Which steps run the model, between anchor and "
                      "reference."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, reference, anchor, budget) -> io.NodeOutput:
        from ..otcache_core.plots import schedule_strips
        from ..otcache_core.strip import budget_strip
        from .pictures import figure_image

        found = schedule_at(reference, anchor, budget)
        labels = [f"anchor, {anchor.budget}", f"budget {found.budget} of {found.steps}", f"reference, {reference.budget}"]
        plot = figure_image(schedule_strips([anchor, found, reference], labels))
        return io.NodeOutput(found, plot, ui={"otcache": [budget_strip(reference, anchor, budget)]})
