"""Writes tests/web/rules.json: what the browser's copy of the arithmetic of single steps must give.

Run: python -m tools.rules_vectors
"""

import json
from pathlib import Path

import numpy as np

from otcache_core.errors import OTCacheError
from otcache_core.schedules.presets import shifted_sigmas
from otcache_core.schedules.rules import StepRules, forced_steps, ruled_steps

FILE = Path(__file__).resolve().parents[1] / "tests" / "web" / "rules.json"
CASES = 60
TEXTS = ["", "  ", "+3 -7", "-7,+3", "+3, -7", "3", "+0", "-1", "+1", "+3 -3", "+3 +3", "+3.5", "+123456", "+12345", "x",
         "+3-7", "-007", "+\u0663", " ".join(f"+{step}" for step in range(1, 1002))]  # fmt: skip


def text_of_vectors() -> str:
    """The file's content: {texts: [[text, {step: computed} or null], ...], cases: [...]}, see `case`."""
    return json.dumps({"texts": [[text, found(text)] for text in TEXTS], "cases": [case(seed) for seed in range(CASES)]}) + "\n"


def found(text: str) -> dict[str, bool] | None:
    try:
        return {str(step): runs for step, runs in forced_steps(text).items()}
    except OTCacheError:
        return None


def case(seed: int) -> dict:
    """Rules and steps at random, on shifted grids of float32 numbers; percents that fall on steps as well as others."""
    rng = np.random.default_rng(seed)
    total = int(rng.integers(2, 101))
    sigmas = np.asarray(shifted_sigmas(total, float(rng.uniform(1, 6))), np.float32).astype(float)
    steps = sorted({0, *map(int, rng.integers(0, total, int(rng.integers(1, total))))})
    places = [round(float(rng.uniform(0, 1)), 2) if rng.random() < 0.5 else int(rng.integers(0, total)) / total for _ in "ab"]
    asked = {"start_percent": min(places), "end_percent": max(places), "max_skips": int(rng.integers(0, 8))}
    if rng.random() < 0.2:
        asked = {"start_percent": 0.0, "end_percent": 1.0, "max_skips": asked["max_skips"]}
    forced = {int(step): bool(rng.random() < 0.5 or step == 0) for step in rng.integers(0, total, int(rng.integers(0, 6)))}
    rules = StepRules(**asked, forced=forced).on_grid(sigmas.tolist())
    ruled = list(ruled_steps(steps, sigmas, rules))
    return {"total": total, "steps": steps, "asked": asked, "forced": [[*item] for item in forced.items()], "ruled": ruled}


if __name__ == "__main__":
    FILE.write_text(text_of_vectors(), encoding="utf-8")
