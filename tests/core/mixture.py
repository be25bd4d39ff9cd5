"""A generator with an exact velocity: the probability flow of a Gaussian mixture, small enough for property tests."""

import numpy as np
import torch


class MixtureGenerator:
    """x0 is drawn near one of a few random pictures [3, 16, 16]; a case is an integer seed that also picks weights."""

    shape = (3, 16, 16)

    def __init__(self, components: int = 6, width: float = 0.25, seed: int = 0):
        rng = np.random.default_rng(seed)
        smooth = rng.normal(size=(components, 3, 4, 4)).repeat(4, axis=2).repeat(4, axis=3)
        self.means = torch.from_numpy(smooth)
        self.width = width
        self.evaluations = 0

    def noise(self, case: int) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng([7, case]).normal(size=self.shape))

    def velocity(self, x, sigma, cases):
        self.evaluations += len(cases)
        variance = sigma**2 + (1 - sigma) ** 2 * self.width**2
        logs = -(((x[:, None] - (1 - sigma) * self.means) ** 2).flatten(2).sum(2)) / (2 * variance)
        weights = logs.softmax(1)
        pull = (1 - sigma) * self.width**2 / variance
        means = torch.einsum("nk,k...->n...", weights, self.means)
        x0 = means + pull * (x - (1 - sigma) * means)
        return (x - x0) / max(sigma, 1e-6)

    def decode(self, x):
        return (x / 6 + 0.5).clamp(0, 1).float()


class Broken(MixtureGenerator):
    """Not a number from the given evaluation on."""

    def __init__(self, after: int):
        super().__init__()
        self.after = after

    def velocity(self, x, sigma, cases):
        d = super().velocity(x, sigma, cases)
        return d * torch.nan if self.evaluations > self.after else d


def linear_sigmas(steps: int, shift: float = 1.0) -> np.ndarray:
    t = np.linspace(1, 0, steps + 1)
    return shift * t / (1 + (shift - 1) * t)
