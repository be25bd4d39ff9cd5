"""Responses of samplers, found with made-up velocities, and what cached runs make of them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mixture import MixtureGenerator, linear_sigmas
from strategies import sigma_grids

from otcache_core.sampling.cached_run import CachedRun
from otcache_core.sampling.rehearsal import Recorder, Rehearsal
from otcache_core.sampling.response import Response, respond
from otcache_core.schedules.schedule import make_schedule

STEPS = 12
SIGMAS = linear_sigmas(STEPS, 2.0)


def multistep(sigmas, mixes):
    """A linear multistep sampler: each move is `mixes`[step] of the last velocities, times Euler's step."""

    def sample(starts, model, shape=(2, 3, 3)):
        x = starts.double().view(-1, *[1] * len(shape)).expand(len(starts), *shape) * sigmas[0]
        past = []
        for step, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
            past.insert(0, (x - model(x, float(sigma))) / float(sigma))
            x = x + float(following - sigma) * sum(w * d for w, d in zip(mixes[step], past, strict=False))
        return x

    return sample


def euler(sigmas):
    return multistep(sigmas, [(1.0,)] * (len(sigmas) - 1))


@given(sigma_grids())
def test_eulers_moves_are_its_steps(sigmas):
    found = respond(euler(sigmas), len(sigmas) - 1)
    assert not found.astray and found.moves == pytest.approx(np.diff(sigmas), rel=1e-6, abs=1e-9 * sigmas[0])


@given(sigma_grids(min_steps=2), st.data())
def test_moves_of_multistep_samplers_tell_where_any_velocities_end(sigmas, data):
    steps = len(sigmas) - 1
    weight = st.floats(-2, 2)
    mixes = [tuple(data.draw(st.lists(weight, min_size=1, max_size=3))) for _ in range(steps)]
    sample = multistep(sigmas, mixes)
    found = respond(sample, steps)
    assert not found.astray
    if found.moves is None:  # moves that cancel but for rounding
        return
    random = np.random.default_rng(0).standard_normal(steps)
    given_ones = iter(random)
    ended = sample(torch.zeros(1), lambda x, sigma: x - sigma * next(given_ones))
    assert float(ended.flatten()[0]) == pytest.approx(found.moves @ random, abs=1e-6 * np.abs(found.moves).max() * steps)


def noisy(amount, scaled=False):
    def sample(starts, model):
        x = starts.view(-1, 1, 1, 1).expand(-1, 2, 3, 3).clone()
        for sigma, following in zip(SIGMAS[:-1], SIGMAS[1:], strict=True):
            x = x + (x - model(x, float(sigma))) / float(sigma) * float(following - sigma)
            x = x + torch.randn_like(x) * amount * (x.abs().mean() if scaled else 1.0)
        return x

    return sample


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("amount", [0.05, 1.0])
def test_added_noise_is_astray(amount, scaled):
    found = respond(noisy(amount, scaled), STEPS)
    assert found == Response(astray=True, asked=tuple(float(sigma) for sigma in SIGMAS[:-1]))


def test_samplers_of_several_evaluations_or_none_that_is_linear_have_no_moves():
    def twice(starts, model):
        x = starts.view(-1, 1)
        for sigma, following in zip(SIGMAS[:-1], SIGMAS[1:], strict=True):
            d = (x - model(x, float(sigma))) / float(sigma)
            if following:
                d = (d + (x - model(x, float(following))) / float(following)) / 2
            x = x + d * float(following - sigma)
        return x

    def squared(starts, model):
        x = starts.view(-1, 1)
        for sigma, following in zip(SIGMAS[:-1], SIGMAS[1:], strict=True):
            d = (x - model(x, float(sigma))) / float(sigma)
            x = x + d * d.abs() * float(following - sigma)
        return x

    stages = tuple(float(sigma) for i, sigma in enumerate(SIGMAS[:-1]) for _ in range(2 if i else 1))
    assert respond(twice, STEPS) == Response(asked=stages)
    assert respond(squared, STEPS) == Response(asked=tuple(float(sigma) for sigma in SIGMAS[:-1]))


def test_noise_levels_that_depend_on_what_the_model_gives_are_told_from_fixed_stages():
    """A solver that halves its step where latents move fast; one that always makes the halves is no such."""
    def halving(starts, model, always=False):
        x, points = starts.view(-1, 1), [float(sigma) for sigma in SIGMAS]
        while len(points) > 1:
            d = (x - model(x, points[0])) / points[0]
            if (always or float(d.abs().max()) > 0.9) and points[0] - points[1] > 0.03:
                points.insert(1, (points[0] + points[1]) / 2)
            x = x + d * (points[1] - points.pop(0))
        return x

    assert respond(halving, STEPS).adaptive
    fixed = respond(lambda starts, model: halving(starts, model, True), STEPS)
    assert not fixed.adaptive and len(fixed.asked) > STEPS


@pytest.mark.parametrize("fault", [RuntimeError, KeyError, None])
def test_a_sampler_that_fails_on_made_up_latents_is_astray(fault):
    def sample(starts, model):
        x = starts.view(-1, 1)
        model(x, 1.0)
        if fault:
            raise fault("of its own")
        return x * torch.nan

    assert respond(sample, STEPS) == Response(astray=True)


def looking_back(sigmas):
    """Adams and Bashforth's second order for even steps, which owes a half of each velocity to the next step."""
    return [(1.0,), *[(1.5, -0.5)] * (len(sigmas) - 2)]


def drive(run, generator, mixes):
    """The final latent of case 1 under `run`, sampled with `mixes`."""
    x, past = generator.noise(1)[None], []
    for step, (sigma, following) in enumerate(zip(run.sigmas[:-1], run.sigmas[1:], strict=True)):
        if run.computes(step):
            d = generator.velocity(x, float(sigma), [1])
            run.observe(step, d, x)
        else:
            d = run.predict(step)
        past.insert(0, d)
        x = x + float(following - sigma) * sum(w * v for w, v in zip(mixes[step], past, strict=False))
    return x


def test_rehearsals_and_runs_land_where_the_samplers_own_steps_do():
    """The same rehearsed steps with and without knowing the sampler, and a run with the weights that were fitted there."""
    generator, mixes, chosen = MixtureGenerator(), looking_back(SIGMAS), (0, 2, 5, 8)
    response = respond(multistep(SIGMAS, mixes), STEPS)
    recorder = Recorder(SIGMAS)
    recorder.suit(response)
    full = drive(recorder, generator, mixes)
    recording = recorder.recording()
    apart = {}
    for knows in (True, False):
        rehearsal = Rehearsal(recording.landings if knows else recording, chosen)
        rehearsal.suit(response if knows else Response())
        apart[knows] = float((drive(rehearsal, generator, mixes) - full).norm())
    assert apart[True] < 0.7 * apart[False]
    x = recording.landings.x
    assert torch.allclose(x[-1], full.float(), atol=1e-4) and torch.equal(x[0], recording.x[0])
    assert recording.landings.d is None and torch.equal(recorder.recording().x, recording.x)


def test_a_rehearsal_is_finite_where_a_samplers_moves_cancel():
    """gradient_estimation's do in the last steps of 20: nothing lands there, and the whole lesson was lost."""
    generator, response = MixtureGenerator(), respond(euler(SIGMAS), STEPS)
    moves = response.moves.copy()
    moves[-2:] = [-moves[-1], moves[-1]]
    recorder = Recorder(SIGMAS)
    recorder.suit(Response(moves))
    mixes = [(1.0,)] * STEPS
    full = drive(recorder, generator, mixes)
    rehearsal = Rehearsal(recorder.recording().landings, (0, 3, 6, STEPS - 2))
    rehearsal.suit(Response(moves))
    landed = drive(rehearsal, generator, mixes)
    assert torch.isfinite(landed).all() and (landed - full).norm() < 0.5 * full.norm()


def test_ramps_land_by_the_moves_that_are_known():
    weights = ((1.0, 1.0), (1.4, -0.4, 1.2, -0.2), (1.3, -0.4, 0.1) * 2)
    schedule = make_schedule(
        sigmas=tuple(SIGMAS), compute_steps=(0, 3, 7), predictor={"kind": "fitted", "bands": 2}, weights=weights
    )
    response = respond(multistep(SIGMAS, looking_back(SIGMAS)), STEPS)
    random = torch.Generator().manual_seed(0)
    d = torch.randn(3, 1, 2, 8, 8, generator=random, dtype=torch.float64)
    run = CachedRun(schedule)
    run.suit(response)
    for number, (start, end) in enumerate(schedule.segments):
        run.observe(start, d[number])
        told = torch.stack([d[number], *(run.predict(step) for step in range(start + 1, end))])
        moves = response.moves[start:end]
        landed = torch.einsum("s,s...->...", torch.from_numpy(moves), told)
        rows = np.array(schedule.weights[number]).reshape(2, -1)
        means = torch.stack([sum(w * v for w, v in zip(row, d[: number + 1].flip(0), strict=True)) for row in rows])
        if (rows[0] == rows[1]).all():
            assert torch.allclose(landed, means[0] * moves.sum(), atol=1e-9)
        by_numbers = run.coefficients(float(SIGMAS[end - 1]), tuple(schedule.compute_steps[number::-1][:3]))
        if (rows[0] == rows[1]).all():
            mixed = sum(w * v for w, v in zip(by_numbers[0], d[: number + 1].flip(0), strict=True))
            assert torch.allclose(mixed, told[-1], atol=1e-9)


def test_where_noise_is_added_the_denoised_latent_is_held():
    schedule = make_schedule(sigmas=tuple(SIGMAS), compute_steps=(0, 4), predictor={"kind": "linear"})
    run = CachedRun(schedule)
    run.suit(Response(astray=True))
    denoised = torch.ones(1, 2, 4, 4)
    run.evaluated(0, torch.zeros(1, 2, 4, 4), denoised, 1.0)
    denoised.zero_()  # samplers may write into what they are given
    for step in (1, 2):
        again = run.denoised(step, torch.randn(1, 2, 4, 4), float(SIGMAS[step]))
        assert torch.equal(again, torch.ones(1, 2, 4, 4))
        again.zero_()


@pytest.mark.parametrize("kind", ["hold", "linear"])
def test_a_multistep_samplers_steps_hold_the_denoised_latent_where_they_hold(kind):
    euler, denoised, x = np.diff(SIGMAS), torch.ones(1, 2, 4, 4), torch.randn(1, 2, 4, 4)
    held = {}
    for name, moves in (("euler", euler), ("multistep", euler * np.linspace(0.5, 1.5, STEPS)), ("unknown", None)):
        run = CachedRun(make_schedule(sigmas=tuple(SIGMAS), compute_steps=(0, 4), predictor={"kind": kind}))
        run.suit(Response(moves))
        run.evaluated(0, torch.zeros(1, 2, 4, 4), denoised, float(SIGMAS[0]))
        held[name] = torch.equal(run.denoised(1, x, float(SIGMAS[1])), denoised)
    assert held == {"euler": False, "multistep": kind == "hold", "unknown": False}


def test_a_recorder_keeps_denoised_latents_where_noise_is_added():
    recorder = Recorder(SIGMAS)
    recorder.suit(Response(astray=True))
    for step in range(STEPS):
        recorder.evaluated(step, torch.randn(1, 2, 4, 4), torch.full((1, 2, 4, 4), float(step)), float(SIGMAS[step]))
    kept = recorder.recording()
    assert kept.response.astray and [float(d.mean()) for d in kept.d] == list(range(STEPS))
