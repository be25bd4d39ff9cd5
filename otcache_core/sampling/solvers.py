"""Plain solvers without any cache, on any sigma grid: the baselines that caching must be measured against."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from .rollout import Generator


def euler(generator: Generator, cases: Sequence, sigmas: np.ndarray) -> torch.Tensor:
    """Final latents [n, *latent] of explicit Euler on `sigmas` [B + 1], B evaluations a case."""
    x = torch.stack([generator.noise(case) for case in cases])
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        x = x + generator.velocity(x, float(sigma), cases) * float(following - sigma)
    return x


def adams_bashforth_2(generator: Generator, cases: Sequence, sigmas: np.ndarray) -> torch.Tensor:
    """Two-step Adams-Bashforth on an uneven grid; the first step is Euler."""
    x = torch.stack([generator.noise(case) for case in cases])
    before, width = None, 0.0
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        d, h = generator.velocity(x, float(sigma), cases), float(following - sigma)
        mean = d if before is None else d + (d - before) * (h / (2 * width))
        x = x + mean * h
        before, width = d, h
    return x


def dpmpp_2m(generator: Generator, cases: Sequence, sigmas: np.ndarray) -> torch.Tensor:
    """DPM-Solver++(2M) (Lu et al., arXiv 2211.01095) for x = (1 - sigma) x0 + sigma noise; the last step is first order.

    Half the log signal-to-noise ratio is lambda = log((1 - sigma) / sigma). At sigma 1, where it is infinite, the first
    step is first order in the limit; so is any step to sigma 0.
    """
    x = torch.stack([generator.noise(case) for case in cases])
    before, width = None, 0.0
    for sigma, following in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        denoised = x - sigma * generator.velocity(x, sigma, cases)
        mean, h = denoised, np.inf
        if following > 0 and sigma < 1:
            h = log_snr(following) - log_snr(sigma)
            if before is not None and np.isfinite(width):
                mean = denoised + (denoised - before) * (h / (2 * width))
        x = x * (following / sigma) + mean * ((1 - following) - following * (1 - sigma) / sigma)
        before, width = denoised, h
    return x


def log_snr(sigma: float) -> float:
    """log((1 - sigma) / sigma)."""
    return float(np.log((1 - sigma) / sigma))


SOLVERS: dict[str, Callable[..., torch.Tensor]] = {
    "euler": euler,
    "adams-bashforth 2": adams_bashforth_2,
    "dpmpp_2m": dpmpp_2m,
}

