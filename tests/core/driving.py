"""Runs of a generator with Euler, told to whatever decides over their steps."""

import torch

from otcache_core.sampling.rehearsal import Recorder, Recording


def drive(run, generator, cases, **changed) -> torch.Tensor:
    """Final latents [n, *latent] of `cases` under `run`, a `CachedRun` that is told the latents too.

    changed: `move`(x, step) after each step, `velocity`(d, step) of each evaluation.
    """
    x = torch.stack([generator.noise(case) for case in cases])
    for step, (sigma, following) in enumerate(zip(run.sigmas[:-1], run.sigmas[1:], strict=True)):
        if run.computes(step):
            d = generator.velocity(x, float(sigma), cases)
            d = changed["velocity"](d, step) if "velocity" in changed else d
            run.observe(step, d, x)
        else:
            d = run.predict(step)
        x = x + d * float(following - sigma)
        x = changed["move"](x, step) if "move" in changed else x
    return x


def taken(generator, cases, sigmas, **changed) -> Recording:
    """What is recorded of full runs of `cases`, one batch."""
    recorder = Recorder(sigmas)
    drive(recorder, generator, cases, **changed)
    return recorder.recording()
