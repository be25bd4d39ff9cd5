"""OT Save Schedule: keep a schedule for later and for others."""

from pathlib import Path

from comfy_api.latest import io, ui

from ..otcache_core.drawing.strip import saved_note
from ..otcache_core.errors import OTCacheError
from ..otcache_core.schedules.schedule import Schedule, load_schedule
from .saved_schedules import path_to_save, shown_path
from .schema import OTSchedule, field, schema


class OTSaveSchedule(io.ComfyNode):
    """One JSON file in models/otcache_schedules, written whole or not at all."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="OTSaveSchedule",
            display_name="OT Save Schedule",
            description="Saves a schedule as a readable JSON file in models/otcache_schedules, where OT Load Schedule finds "
            "it. An anchor's file holds the schedules of all budgets.",
            is_output_node=True,
            inputs=[
                field(OTSchedule.Input, "schedule", tooltip="The schedule to save."),
                field(io.String.Input, "name", default="my_schedule", tooltip="The file's name without .json: letters, digits, "
                      "spaces and . _ - ( )."),  # fmt: skip
                field(io.Boolean.Input, "overwrite", default=False, tooltip="Replace a file of that name. Otherwise a number "
                      "is added to the name when the file is there and differs."),  # fmt: skip
            ],
            outputs=[],
        )

    @classmethod
    def validate_inputs(cls, name) -> bool | str:
        try:
            return name is None or bool(path_to_save(name))
        except OTCacheError as error:
            return str(error)

    @classmethod
    def execute(cls, schedule: Schedule, name: str, overwrite: bool) -> io.NodeOutput:
        path = path_to_save(name)
        if not overwrite:
            path = _free(path, schedule)
        schedule.save(path)
        saved = saved_note(schedule, shown_path(path))
        return io.NodeOutput(ui={**ui.PreviewText(str(path)).as_dict(), "otcache": [saved]})


def _free(path: Path, schedule: Schedule) -> Path:
    """`path`, or the first numbered one that is not there or holds `schedule` already."""
    candidate, number = path, 1
    while candidate.exists() and not _holds(candidate, schedule):
        number += 1
        candidate = path.with_name(f"{path.stem}_{number}{path.suffix}")
    return candidate


def _holds(path: Path, schedule: Schedule) -> bool:
    try:
        return load_schedule(path) == schedule
    except OTCacheError:
        return False
