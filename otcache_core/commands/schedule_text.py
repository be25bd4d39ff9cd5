"""Schedules as text for the terminal."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import OTCacheError
from ..schedules.presets import preset, preset_names, shifted_sigmas
from ..schedules.schedule import MAX_STEPS, Schedule, load_schedule

WIDTH = 50  # cells a line
CELLS, PLAIN_CELLS = "█·", "#."


def find_schedule(name: str) -> Schedule:
    """The preset called `name`, else the schedule file there; raises `OTCacheError` if it is neither, or not valid."""
    if name in preset_names():
        return preset(name)
    try:
        there = Path(name).exists()
    except (OSError, ValueError):  # too long, or characters that no path may hold
        there = False
    if not there:
        raise OTCacheError(f'"{name[:200]}" is neither a file nor a preset; "python -m otcache_core show" lists the presets.')
    return load_schedule(name)


def retimed(schedule: Schedule, steps: int | None, shift: float | None) -> Schedule:
    """`schedule` on the flow grid of `steps` steps (None: as many as it has) and `shift` (None: its own, or 1).

    With neither it is left as it is. Raises `OTCacheError` for numbers out of range.
    """
    if steps is None and shift is None:
        return schedule
    steps = schedule.steps if steps is None else steps
    shift = (schedule.shift or 1.0) if shift is None else shift
    if not 1 <= steps <= MAX_STEPS:
        raise OTCacheError(f"steps is {steps}, but must be a whole number from 1 to {MAX_STEPS}.")
    if not (np.isfinite(shift) and 1e-3 <= shift <= 1e3):
        raise OTCacheError(f"shift is {shift}, but must be a number from 0.001 to 1000; 1 is an even grid.")
    from ..schedules.retiming import retime  # brings torch, which merely showing a schedule need not wait for

    return retime(schedule, shifted_sigmas(steps, shift))


def list_presets() -> str:
    """All presets, one a line."""
    rows = [preset(name) for name in preset_names()]
    width = max(len(row.name) for row in rows)
    lines = [f"{row.name:<{width}}  {row.budget:>3} of {row.steps}   {row.provenance}" for row in rows]
    return "\n".join(["Published schedules, as starting points; show NAME prints one:", *lines])


def describe(schedule: Schedule, encoding: str | None = "utf-8") -> str:
    """A schedule as lines of text: strip, budget, speed-up, where it comes from; plain signs if `encoding` needs them."""
    facts = {
        "budget": f"{schedule.budget} of {schedule.steps} steps run the model, ideal speed-up {schedule.ideal_speedup:.2f}x",
        "steps": " ".join(map(str, schedule.compute_steps)),
        "sigma": f"{schedule.sigmas[0]:.4g} to {schedule.sigmas[-1]:.4g}",
        "predictor": schedule.predictor.kind,
        "stage": schedule.stage,
        "model": schedule.model,
        "score": f"{schedule.score:.4g} ({schedule.metric})" if schedule.score is not None else "",
        "psnr": f"{schedule.psnr:.1f} dB on the calibration's pictures" if schedule.psnr is not None else "",
        "made on": f"{len(schedule.cases)} calibration cases" if schedule.cases else "",
        "prepared": f"{len(schedule.prepared)} budgets" if schedule.prepared else "",
        "parents": ", ".join(schedule.parents),
        "source": schedule.provenance,
    }
    lines = [clean(schedule.name) or "schedule", "", *strip(schedule, encoding), ""]
    lines += [f"{name:<10} {clean(value)}" for name, value in facts.items() if value]
    return "\n".join(lines)


def strip(schedule: Schedule, encoding: str | None = "utf-8") -> list[str]:
    """One cell a step, `WIDTH` a line, each line headed by its first step."""
    chosen = set(schedule.compute_steps)
    full, empty = CELLS if can_show(CELLS, encoding) else PLAIN_CELLS
    cells = "".join(full if step in chosen else empty for step in range(schedule.steps))
    return [f"{start:>5}  {cells[start : start + WIDTH]}" for start in range(0, len(cells), WIDTH)]


def can_show(characters: str, encoding: str | None) -> bool:
    """Whether a console of that encoding has all `characters`."""
    try:
        characters.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def clean(value: str) -> str:
    """`value` on one line and without the control sequences that a terminal would obey."""
    return " ".join("".join(c if c.isprintable() else " " for c in value).split())
