"""The embedded model as the demo command's subject, and as what the headless search works on."""

from __future__ import annotations

from ..calibration.settings import Settings
from ..demo.generator import DemoGenerator
from ..demo.generator import cases as demo_cases
from ..demo.scenes import caption
from ..errors import OTCacheError
from .demo import Plan, Subject

CALIBRATION_SEED, HELD_OUT_SEED = 1000, 2000
HELD_OUT = 8
MOST_CASES = 64
MODEL = "otcache-demo"


def load_generator() -> DemoGenerator:
    """The embedded model; raises `OTCacheError` when its weights are missing or damaged."""
    return DemoGenerator()


def check_cases(count: int) -> int:
    """`count` if it is a fair number of calibration cases; raises `OTCacheError`."""
    if not 1 <= count <= MOST_CASES:
        raise OTCacheError(f"cases is {count}, but must be a whole number from 1 to {MOST_CASES}; 6 is a good number.")
    return count


def demo_plan(trials: int, seed: int) -> Plan:
    """What the demo measures; raises `OTCacheError` for numbers out of range."""
    return Plan(Settings(trials=trials, seed=seed, model=MODEL))


def demo_subject(count: int) -> Subject:
    """The embedded model with `count` calibration cases; raises `OTCacheError`."""
    check_cases(count)
    generator = load_generator()
    parameters = sum(parameter.numel() for parameter in generator.model.parameters())
    facts = {
        "Model": f"embedded flow transformer of FLUX architecture, {parameters:,} parameters, pictures of 64 x 64",
        "Guidance": f"true CFG, scale {generator.cfg:g}",
    }
    return Subject(generator, demo_cases(count, CALIBRATION_SEED), demo_cases(HELD_OUT, HELD_OUT_SEED), generator.sigmas,
                   generator.steps, lambda case: caption(case.scene), facts)  # fmt: skip
