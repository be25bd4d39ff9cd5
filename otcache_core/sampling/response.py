"""What a sampler makes of velocities, found by running it once on made-up ones: tiny latents, no model.

Euler and all linear multistep samplers end at x_0 + sum_i moves_i d_i with numbers that are theirs alone: sigma_{i+1} -
sigma_i for Euler, others near the ends and wherever a step looks back for the rest. An error in a predicted velocity moves
the final latent by these, so that they are what a graph weighs errors with and what a segment has to land by. A sampler that
moves a latent otherwise than along its velocities adds noise, or does what nobody here knows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from .step_finder import ON_GRID

ASTRAY = 0.01  # of the first latent: how far one without velocities may move (uni_pc: 0.001, where it ends)
SAME = 1e-3  # relative: moves that are one
LINEAR = 1e-3  # of the largest move: what a sum of velocities may make other than the sum of their moves


@dataclass(frozen=True)
class Response:
    """moves: float64 [N], what a unit velocity at each step adds to the final latent; None for samplers that evaluate more
    than once a step or are not linear. astray: whether latents move otherwise than along their velocities. asked: the noise
    levels at which it asks for the model, in order; None where it failed. adaptive: whether they depend on what the model
    gives.
    """

    moves: np.ndarray | None = None
    astray: bool = False
    asked: tuple[float, ...] | None = None
    adaptive: bool = False


def are_eulers(moves: np.ndarray, sigmas: np.ndarray) -> bool:
    """Whether `moves` float64 [N] are Euler's on the grid `sigmas` [N + 1], but for rounding."""
    euler = np.diff(sigmas)
    return bool(np.abs(moves - euler).max() <= SAME * np.abs(euler).max())


def respond(sample: Callable, steps: int) -> Response:
    """The response of a sampler on a grid of N = `steps`.

    sample(starts, model): runs it from noise that is starts [b] throughout each of b latents and returns the final ones
    [b, ...]; model(x, sigma) stands for the model and gives denoised latents. A sampler that fails is one that goes astray.
    """
    starts = torch.zeros(steps + 3)
    starts[-2:] = 1.0  # two without velocities, since noise scaled by the latent spares zeros
    together = torch.tensor([(-0.8) ** step for step in range(steps)], dtype=torch.float64)
    first, asked = [], []

    def model(x, sigma: float):
        if not asked:
            first.append(x.detach().clone())
        velocity = torch.zeros(len(x), dtype=torch.float64)
        if len(asked) < steps:
            velocity[len(asked)], velocity[steps] = 1.0, together[len(asked)]
        asked.append(sigma)
        return x - sigma * velocity.to(x).view(-1, *[1] * (x.ndim - 1))

    try:
        last = sample(starts, model)
        moved = (last.double().cpu() - first[0].double().cpu()).flatten(1)
        levels = tuple(asked)
        if len(asked) != steps and _asks_otherwise(sample, starts, levels):
            return Response(asked=levels, adaptive=True)
    except Exception:  # whatever a sampler of another pack does with made-up latents
        return Response(astray=True)
    room = ASTRAY * float(first[0][-1].abs().max())
    if not moved.isfinite().all():
        return Response(astray=True)
    if float(moved[steps + 1 :].abs().max()) > room:
        return Response(astray=True, asked=levels)
    moves = moved.mean(1)
    if len(asked) != steps or float((moved[steps] - together @ moves[:steps]).abs().max()) > LINEAR * float(moves.abs().max()):
        return Response(asked=levels)
    return Response(moves[:steps].numpy(), asked=levels)


def same_level(sigma: float, other: float) -> bool:
    """Whether two noise levels are one but for rounding."""
    return abs(sigma - other) <= ON_GRID * max(abs(sigma), abs(other))


def _asks_otherwise(sample: Callable, starts: torch.Tensor, levels: tuple[float, ...]) -> bool:
    """Whether a sampler asks at other noise levels than `levels` when no latent has a velocity."""
    asked = []

    def still(x, sigma: float):
        asked.append(sigma)
        return x

    sample(starts, still)
    return len(asked) != len(levels) or not all(map(same_level, asked, levels))
