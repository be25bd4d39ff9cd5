"""What all nodes share: link types, category, search words, and schemas that older ComfyUI versions accept too."""

import inspect
from functools import cache

from comfy_api.latest import io

OTSchedule = io.Custom("OT_SCHEDULE")
"""A link that carries an `otcache_core.schedules.schedule.Schedule`."""

OTCalibration = io.Custom("OT_CALIBRATION")
"""A link that carries recorded runs and what they were recorded with."""

CATEGORY = "sampling/OTCache"
ALIASES = ["cache", "otcache"]
# Of OT Auto Cache alone: the frontend does not rank nodes by how well an alias fits, so that others would come before it.
WANTED = ["teacache", "easycache", "magcache", "lazycache", "speed up", "faster", "accelerate"]


def schema(**kwargs) -> io.Schema:
    """An `io.Schema` in `CATEGORY` with `ALIASES`, without the keywords that the running ComfyUI does not know."""
    return io.Schema(**_known(io.Schema, {"category": CATEGORY, "search_aliases": ALIASES} | kwargs))


def field(cls: type, id: str, **kwargs):
    """An input or output (`io.Int.Input`, `OTSchedule.Output`, ...), without the keywords that are unknown to it here."""
    return cls(id, **_known(cls, kwargs))


def outside(cls: type[io.ComfyNode], **values) -> str:
    """Which of the numbers `values` is beyond what `cls` declares, as a sentence, else "".

    ComfyUI leaves this to a node that looks at its inputs itself. None, of an input that another node gives, is let pass.
    """
    for entry in cls.define_schema().inputs:
        value = values.get(entry.id)
        if value is not None and not entry.min <= value <= entry.max:
            return f"{entry.id} is {value}, but must be from {entry.min} to {entry.max}."
    return ""


def _known(cls: type, kwargs: dict) -> dict:
    # Keywords such as advanced and search_aliases came later than the V3 API, and an unknown one is a TypeError there.
    names = _parameters(cls)
    return {name: value for name, value in kwargs.items() if name in names}


@cache
def _parameters(cls: type) -> frozenset[str]:
    return frozenset(inspect.signature(cls).parameters)
