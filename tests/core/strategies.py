"""Hypothesis strategies for what every schedule is made of."""

import numpy as np
from hypothesis import strategies as st


@st.composite
def sigma_grids(draw, min_steps: int = 1, max_steps: int = 14) -> np.ndarray:
    """Any strictly falling grid: uneven by up to 1e4, of any scale, ending at zero or above."""
    steps = draw(st.integers(min_steps, max_steps))
    gaps = draw(st.lists(st.floats(1e-2, 1e2), min_size=steps, max_size=steps))
    end = draw(st.sampled_from([0.0, 0.05]))
    scale = draw(st.sampled_from([1e-3, 1.0, 14.6, 1e4]))
    return (end + np.append(np.cumsum(gaps[::-1])[::-1], 0.0)) * scale / sum(gaps)


@st.composite
def step_sets(draw, steps: int, budget: int | None = None) -> tuple[int, ...]:
    """Any valid compute steps on a grid of `steps`."""
    budget = draw(st.integers(1, steps)) if budget is None else budget
    others = draw(st.permutations(range(1, steps)))[: budget - 1]
    return (0, *sorted(others))


@st.composite
def grids_with_steps(draw, min_steps: int = 1, max_steps: int = 14) -> tuple[np.ndarray, tuple[int, ...]]:
    """A grid and compute steps on it."""
    sigmas = draw(sigma_grids(min_steps, max_steps))
    return sigmas, draw(step_sets(len(sigmas) - 1))
