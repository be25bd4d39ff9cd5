"""A scorer with made-up distances, so that searches can be tested on any landscape."""

from types import SimpleNamespace

import numpy as np

from otcache_core.calibration.measurement_log import MeasurementLog
from otcache_core.schedules.schedule import Predictor


class FakeScorer:
    """`landscape(steps)` gives each group's list of distances; `calls` notes each group asked for."""

    def __init__(self, steps: int, landscape):
        self.sigmas = np.linspace(1, 0, steps + 1)
        self.landscape, self.calls = landscape, []
        self.log = MeasurementLog()
        self.groups = [SimpleNamespace(predictor=Predictor(kind="fitted"), ridge=1e-4, cases=[1, 2, 3])]
        self.signature = [[[1.0]]]
        self.metric = SimpleNamespace(__name__="fake")

    def judge_together(self, candidates, numbers):
        """Nothing is saved by it here."""

    def distances(self, steps):
        for group, values in enumerate(self.landscape(tuple(steps))):
            self.calls.append((tuple(steps), group))
            yield np.array(values, dtype=float)

    def score(self, steps) -> float:
        values = np.concatenate([np.array(v, dtype=float) for v in self.landscape(tuple(steps))])
        return float(np.exp(np.log(np.maximum(values, 1e-9)).mean()))

    @property
    def tried(self) -> list[tuple[int, ...]]:
        """The steps of every trial, in order."""
        return [steps for steps, group in self.calls if group == 0]


def valley(best: tuple[int, ...], groups: int = 4):
    """A noisy landscape that falls towards `best`: three cases in the first group, one in each other."""

    def landscape(steps):
        random = np.random.default_rng(list(steps))
        depth = 0.5 + sum((a - b) ** 2 for a, b in zip(steps, best, strict=True))
        return [depth * np.exp(0.1 * random.normal(size=3 if group == 0 else 1)) for group in range(groups)]

    return landscape
