"""What all nodes share: link types, category, search words, and schemas that older ComfyUI versions accept too."""

import inspect
from functools import cache

from comfy_api.latest import io

OTSchedule = io.Custom("OT_SCHEDULE")
"""A link that carries an `otcache_core.schedules.schedule.Schedule`."""

OTCalibration = io.Custom("OT_CALIBRATION")
"""A link that carries recorded runs and what they were recorded with."""

CATEGORY = "sampling/OTCache"
# The node search ranks by where in an alias the words stand, and then by how near the node's name is in length. So what is
# looked for stands at the front of the aliases of the nodes that make sampling faster, and far behind in those of the others.
ALIASES = ["part of otcache"]
CACHES = ["otcache", "cache", "teacache", "easycache", "magcache", "lazycache", "taylorseer", "wavespeed",
          "speed up", "faster", "accelerate", "skip steps", "加速"]  # fmt: skip


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
