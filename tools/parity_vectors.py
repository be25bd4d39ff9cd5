"""Writes tests/web/vectors.json: what the browser's copy of the schedule arithmetic must give.

Run: python -m tools.parity_vectors
"""

import json
from pathlib import Path

import numpy as np

from otcache_core.drawing.strip import budget_strip
from otcache_core.schedules.interpolation import budget_for_speedup, expected_error, schedule_at, smallest_budget
from otcache_core.schedules.presets import preset, shifted_sigmas
from otcache_core.schedules.schedule import Schedule, make_schedule

FILE = Path(__file__).resolve().parents[1] / "tests" / "web" / "vectors.json"
CASES = 24


def make_vectors() -> list[dict]:
    """What the strip is sent, and what Python makes of it.

    Cases {data, steps: {budget: steps}, errors: {budget: error or None}, by_error: [[target, budget], ...], by_speedup: the
    same}; errors and by_error only where something was judged.
    """
    rng = np.random.default_rng(CASES)
    pairs = [random_pair(np.random.default_rng(seed)) for seed in range(CASES)]
    pairs.append((preset("lemica-flux1-dev-15"), preset("lemica-flux1-dev-10")))
    vectors = []
    for reference, anchor in pairs:
        total = reference.steps
        budgets = range(1, total + 1, 1 if total <= 50 else 7)
        data = budget_strip(reference, anchor, {"budget": anchor.budget})
        vector = {
            "data": data,
            "steps": {str(b): list(schedule_at(reference, anchor, b).compute_steps) for b in budgets},
            "by_speedup": [[float(x), budget_for_speedup(total, x)] for x in (*rng.uniform(1, 1.5 * total, 8), total / 3, 1)],
        }
        if curve := data["curve"]:
            targets = (*rng.uniform(0, 0.12, 8), *(error for _, error in curve), 0)
            vector["errors"] = {str(b): expected_error(curve, b) for b in range(1, total + 1)}
            vector["by_error"] = [[float(target), smallest_budget(curve, total, target)] for target in targets]
        vectors.append(vector)
    return vectors


def random_pair(rng: np.random.Generator) -> tuple[Schedule, Schedule]:
    """A reference and an anchor; on even, shifted or ragged grids, some anchors with prepared schedules or another grid.

    Some of the prepared are missing, and their scores do not fall everywhere.
    """
    steps = int(rng.integers(5, 101))
    sigmas = grid(rng, steps)
    high = int(rng.integers(3, max(4, steps // 2 + 1)))
    low = int(rng.integers(1, high))
    own = sigmas if rng.random() < 0.7 else grid(rng, int(rng.integers(max(high, 5), 101)))
    judged = [b for b in range(low, high) if rng.random() < 0.8]
    prepared = [schedule(rng, own, b).replace(score=float(0.3 / b * np.exp(rng.normal(0, 0.3)))) for b in judged]
    anchor = schedule(rng, own, low).replace(metric="rmse", prepared=tuple(prepared) if rng.random() < 0.6 else ())
    return schedule(rng, sigmas, high), anchor


def grid(rng: np.random.Generator, steps: int) -> list[float]:
    """steps + 1 falling sigmas; float32 numbers, as samplers give them."""
    kind = rng.integers(3)
    if kind == 0:
        sigmas = shifted_sigmas(steps, 1.0)
    elif kind == 1:
        sigmas = shifted_sigmas(steps, float(rng.uniform(1, 8)))
    else:
        sigmas = 14.6 * np.append(np.sort(rng.uniform(0.01, 1, steps))[::-1], 0)
    return np.asarray(sigmas, np.float32).astype(float).tolist()


def schedule(rng: np.random.Generator, sigmas: list[float], budget: int) -> Schedule:
    others = rng.choice(np.arange(1, len(sigmas) - 1), budget - 1, replace=False)
    return make_schedule(sigmas=tuple(sigmas), compute_steps=(0, *sorted(map(int, others))))


def text_of(vectors: list[dict]) -> str:
    """The file's content: one case a line."""
    return "[\n" + ",\n".join(json.dumps(vector, separators=(",", ":")) for vector in vectors) + "\n]\n"


if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(text_of(make_vectors()), encoding="utf-8")
