"""Published schedules, with provenance, as starting points and for comparison.

Their papers and code give step numbers on a 50-step (once 40-step) grid; `shift` is the flow shift of that grid, so that
they can be carried to other grids through sigma. It is the default of FLUX.1 at one megapixel; for the other models it is
an estimate, since their grids depend on resolution. None of these schedules is measured here on its model.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np

from ...errors import OTCacheError
from ..schedule import Predictor, Schedule, make_schedule, uniform_steps
from ..transport import quantile_function, steps_at_budget

FILE = Path(__file__).with_name("published.json")
CLASSES = {  # of ComfyUI, by the beginning of the model's name
    "FLUX.1": "Flux", "FLUX.2": "Flux2", "Qwen-Image": "QwenImage", "Wan2.1": "WAN21", "Z-Image": "Lumina2",
}  # fmt: skip
STARTS = ("lemica-flux1-dev-10", "meancache-qwen-image-10", "optimalsteps-flux1-dev-10")


def shifted_sigmas(steps: int, shift: float) -> np.ndarray:
    """sigma = shift t / (1 + (shift - 1) t) on an even grid t, float64 [steps + 1] from 1 to 0."""
    t = np.linspace(1.0, 0.0, steps + 1)
    return shift * t / (1 + (shift - 1) * t)


@cache
def _published() -> dict[str, dict]:
    return {entry["name"]: entry for entry in json.loads(FILE.read_text(encoding="utf-8"))}


def preset_names() -> list[str]:
    """Names of all published schedules, each ending in its budget."""
    return list(_published())


def preset(name: str) -> Schedule:
    """A published schedule; raises `OTCacheError` listing the names when there is none called `name`."""
    entry = _published().get(name)
    if entry is None:
        raise OTCacheError(f'There is no preset "{name}"; choose one of {", ".join(preset_names())}.')
    return make_schedule(
        name=name,
        sigmas=tuple(shifted_sigmas(entry["steps"], entry["shift"]).tolist()),
        compute_steps=tuple(entry["compute_steps"]),
        predictor=Predictor(kind="mean_velocity" if "spans" in entry else "hold"),
        spans=tuple(entry["spans"]) if "spans" in entry else None,
        stage="preset",
        model=entry["model"],
        model_class=next(name for begin, name in CLASSES.items() if entry["model"].startswith(begin)),
        noise="flow",
        shift=entry["shift"],
        provenance=entry["source"],
    )


def starting_grids(budget: int, sigmas) -> list[tuple[int, ...]]:
    """Schedules to start a search from: uniform, and published ones read at `budget` off their warps, on `sigmas`.

    They are carried over by index as well, because a shift that differs from the published one moves all of them.
    """
    steps = len(sigmas) - 1
    grids = [uniform_steps(budget, steps)]
    for schedule in map(preset, STARTS):
        even = np.linspace(1.0, 0.0, schedule.steps + 1)
        for source in (schedule.sigmas, even):
            target = sigmas if source is schedule.sigmas else np.linspace(1.0, 0.0, steps + 1)
            grids.append(steps_at_budget(quantile_function(schedule.compute_steps, source), budget, target))
    return list(dict.fromkeys(grids))
