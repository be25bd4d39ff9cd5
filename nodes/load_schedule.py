"""OT Load Schedule: a published preset or a schedule saved before."""

import hashlib

from comfy_api.latest import io

from ..otcache_core.schedules.presets import preset, preset_names
from ..otcache_core.schedules.schedule import load_schedule
from .saved_schedules import saved_names, saved_path
from .schema import OTSchedule, field, schema


class OTLoadSchedule(io.ComfyNode):
    """Presets are named as published, saved schedules end in .json."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="OTLoadSchedule",
            display_name="OT Load Schedule",
            description="Loads a schedule: one of the published presets, or one saved with OT Save Schedule "
            "(models/otcache_schedules).",
            inputs=[
                field(io.Combo.Input, "schedule", options=[*saved_names(), *preset_names()], default=preset_names()[0],
                      tooltip="Names that end in .json are your saved schedules, the others published presets (their last "
                      "number is the budget). Presets are starting points: a schedule calibrated on your model is better."),
            ],  # fmt: skip
            outputs=[field(OTSchedule.Output, "schedule_out", display_name="schedule", tooltip="For OT Apply Cache, OT Cached "
                           "Sampler or OT Budget Interpolate.")],  # fmt: skip
        )

    @classmethod
    def fingerprint_inputs(cls, schedule: str) -> str:
        # Saving under the same name again must not leave the old schedule in ComfyUI's cache.
        if schedule in preset_names():
            return schedule
        return hashlib.sha256(saved_path(schedule).read_bytes()).hexdigest()

    @classmethod
    def execute(cls, schedule: str) -> io.NodeOutput:
        if schedule in preset_names():
            return io.NodeOutput(preset(schedule))
        return io.NodeOutput(load_schedule(saved_path(schedule)))
