"""Fixtures and the hypothesis profile that the core tests share."""

import os
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import settings
from mixture import MixtureGenerator, linear_sigmas

from otcache_core.sampling.rollout import record
from otcache_core.sampling.trajectory import Trajectory

torch.set_num_threads(1)  # everything here is small, so that threads only wait for each other

# The same examples every run; HYPOTHESIS_PROFILE=explore looks further.
settings.register_profile("core", deadline=None, max_examples=50, derandomize=True, database=None)
settings.register_profile("explore", deadline=None, max_examples=1000, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "core"))


class Recording(NamedTuple):
    """A generator and what its full runs of some cases recorded."""

    generator: MixtureGenerator
    cases: list[int]
    sigmas: np.ndarray
    trajectories: list[Trajectory]

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1


@pytest.fixture(scope="session")
def recording() -> Recording:
    """Three cases of the exact mixture flow on an uneven grid of 12 steps."""
    generator, sigmas = MixtureGenerator(), linear_sigmas(12, shift=3.0)
    cases = [1, 2, 3]
    return Recording(generator, cases, sigmas, [record(generator, case, sigmas) for case in cases])
