"""Calibrated caching for diffusion transformers, without ComfyUI.

    from otcache_core import Settings, calibrate, load_schedule, sample

These names, and the others of `PUBLIC`, stay where they are; modules may move. Each is imported when it is first used, so that
importing the package costs nothing. The folders, in the order in which they build on each other: schedules, sampling,
calibration, drawing, commands; and demo, which stands apart. Read `schedules/schedule.py` first.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .calibration.pipeline import Calibrated as Calibrated
    from .calibration.pipeline import calibrate as calibrate
    from .calibration.settings import Settings as Settings
    from .errors import OTCacheError as OTCacheError
    from .sampling.generator import Generator as Generator
    from .sampling.rollout import sample as sample
    from .schedules.interpolation import schedule_at as schedule_at
    from .schedules.retiming import retime as retime
    from .schedules.schedule import Schedule as Schedule
    from .schedules.schedule import load_schedule as load_schedule
    from .schedules.schedule import make_schedule as make_schedule

PUBLIC = {
    "Calibrated": "calibration.pipeline",
    "Generator": "sampling.generator",
    "OTCacheError": "errors",
    "Schedule": "schedules.schedule",
    "Settings": "calibration.settings",
    "calibrate": "calibration.pipeline",
    "load_schedule": "schedules.schedule",
    "make_schedule": "schedules.schedule",
    "retime": "schedules.retiming",
    "sample": "sampling.rollout",
    "schedule_at": "schedules.interpolation",
}
"""Public name -> the module that it is defined in."""

__all__ = list(PUBLIC)


def __getattr__(name: str):
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
