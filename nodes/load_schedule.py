"""OT Load Schedule: a published preset or a schedule saved before."""

import asyncio
import hashlib

from comfy_api.latest import io

from ..otcache_core.calibration.solving import LEARNT, anchor_of
from ..otcache_core.drawing.strip import schedule_strip
from ..otcache_core.errors import OTCacheError
from ..otcache_core.schedules.presets import preset, preset_names
from ..otcache_core.schedules.schedule import Schedule, load_schedule
from .host.learned import titles
from .saved_schedules import saved_names, saved_path
from .schema import OTSchedule, field, schema


class OTLoadSchedule(io.ComfyNode):
    """Presets are named as published, saved schedules end in .json, what was learnt begins with "learnt"."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="OTLoadSchedule",
            display_name="OT Load Schedule",
            description="Loads a schedule: one saved with OT Save Schedule (models/otcache_schedules), what ordinary runs "
            "have taught, or one of the published presets.",
            inputs=[
                field(io.Combo.Input, "schedule", options=[*saved_names(), *titles(), *preset_names()],
                      default=preset_names()[0], tooltip="Names that end in .json are your saved schedules; learnt is what "
                      "ordinary runs taught, every budget, for the anchor of OT Budget Interpolate. The others are published "
                      "presets (their last number is the budget), starting points: once your model was learnt, their weights "
                      "are fitted to it."),
                field(io.Float.Input, "speedup", default=0.0, min=0.0, max=20.0, step=0.1, round=0.01, optional=True,
                      tooltip="How many times fewer model evaluations every run makes, whatever its steps. 0 makes as many as "
                      "the schedule names: a preset of 17 for 50 steps saves little of 20."),
            ],  # fmt: skip
            outputs=[field(OTSchedule.Output, "schedule_out", display_name="schedule", tooltip="For OT Apply Cache, OT Cached "
                           "Sampler or OT Budget Interpolate.")],  # fmt: skip
        )

    @classmethod
    def fingerprint_inputs(cls, schedule: str, **_) -> str:
        # Saving under the same name again must not leave the old schedule in ComfyUI's cache.
        if schedule in preset_names():
            return schedule
        if schedule.startswith(LEARNT):
            found = titles().get(schedule)
            return f"{schedule} {found and found[1].runs}"
        return hashlib.sha256(saved_path(schedule).read_bytes()).hexdigest()

    @classmethod
    def validate_inputs(cls, schedule) -> bool | str:
        # A broken file is told before anything runs.
        try:
            return schedule is None or schedule in titles() or bool(schedule_named(schedule))  # learnt ones take time
        except OTCacheError as error:
            return str(error)

    @classmethod
    def execute(cls, schedule: str, speedup: float = 0.0) -> io.NodeOutput:
        found = schedule_named(schedule)
        return io.NodeOutput(found.replace(speedup=max(speedup, 1.0)) if speedup else found)


def schedule_named(name: str) -> Schedule:
    """The schedule that the node's list calls `name`; raises `OTCacheError`."""
    if name in preset_names():
        return preset(name)
    if name.startswith(LEARNT):
        found = titles().get(name)
        if found is None:
            raise OTCacheError(f"What was {name[:200]} is not there any more; refresh the nodes and choose one of the list.")
        return anchor_of(found[1], model_key=found[0])
    return load_schedule(saved_path(name))


def register_route() -> None:
    """Let the browser ask what a name of the list stands for, so that the node shows it before anything runs."""
    from aiohttp import web
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is None:
        return

    @server.routes.get("/otcache/schedule")
    async def show(request):
        try:  # in a thread: a large file would hold up everything else that the server does
            found = await asyncio.to_thread(lambda: schedule_strip(schedule_named(request.query.get("name", ""))))
        except OTCacheError as error:
            found = {"kind": "schedule", "problem": str(error)}
        return web.json_response(found)
