import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import sigma_grids

from otcache_core.errors import OTCacheError
from otcache_core.sampling.layout import LOW_PASS, low_pass
from otcache_core.sampling.predictors import (
    combine,
    fit_weights,
    mean_velocity,
    mean_velocity_step,
    ramp_gain,
    ramp_slope,
)
from otcache_core.schedules.extrapolation import extrapolated_mean_weights, extrapolation_weights, prior_weights
from otcache_core.schedules.schedule import HISTORY

COEFFICIENTS = st.lists(st.floats(-3, 3), min_size=3, max_size=3)
ORDERS = st.integers(0, 2)


@st.composite
def segments(draw, min_steps: int = 1, history: int = HISTORY):
    """(past, grid): sigmas of evaluations, newest first, and the grid of the newest one's segment."""
    sigmas = draw(sigma_grids(min_steps=min_steps + history - 1))
    sigmas = sigmas / sigmas[0]
    begin = draw(st.integers(history - 1, len(sigmas) - 1 - min_steps))
    chosen = draw(st.permutations(range(begin)))[: history - 1]
    return sigmas[[begin, *sorted(chosen, reverse=True)]], sigmas[begin:]


@given(segments(), COEFFICIENTS, ORDERS)
def test_extrapolation_is_exact_on_polynomials_of_its_order_on_uneven_grids(segment, coefficients, order):
    past, grid = segment
    polynomial = np.polynomial.Polynomial(coefficients[: order + 1])
    for sigma in (*grid, grid.mean()):
        weights = extrapolation_weights(past, sigma, order)
        # Rounding grows with the weights themselves, which two nearly equal sigmas make large.
        assert weights @ polynomial(past) == pytest.approx(
            polynomial(sigma), abs=1e-11 * np.abs(weights).sum()
        )


def test_orders_do_not_fit_polynomials_above_them():
    past, squares = np.array([0.5, 0.7, 1.0]), np.array([0.5, 0.7, 1.0]) ** 2
    assert extrapolation_weights(past, 0.2, 1) @ squares == pytest.approx(0.25 - 0.3 * 1.2)
    assert extrapolation_weights(past, 0.2, 0) @ squares == pytest.approx(0.25)


@given(segments(), ORDERS, st.floats(0, 1))
def test_extrapolation_weights_sum_to_one(segment, order, damping):
    past, grid = segment
    for weights in (
        extrapolation_weights(past, grid[-1], order, damping),
        extrapolated_mean_weights(past, grid, order, damping),
    ):
        assert weights.sum() == pytest.approx(1, abs=1e-12 * np.abs(weights).sum())


@given(segments(), ORDERS, st.floats(0, 1))
def test_damping_mixes_hold_and_the_undamped_extrapolation(segment, order, damping):
    past, grid = segment
    hold, full = np.array([1.0, 0.0, 0.0]), extrapolation_weights(past, grid[-1], order)
    assert np.array_equal(extrapolation_weights(past, grid[-1], order, 0.0), hold)
    mixed = (1 - damping) * hold + damping * full
    assert np.allclose(
        extrapolation_weights(past, grid[-1], order, damping), mixed, atol=1e-11 * np.abs(full).sum()
    )


@given(segments(), ORDERS, st.floats(0, 1))
def test_nothing_is_extrapolated_at_the_newest_evaluation_itself(segment, order, damping):
    past, _ = segment
    assert np.array_equal(extrapolation_weights(past, past[0], order, damping), [1.0, 0.0, 0.0])


@pytest.mark.parametrize(("known", "order"), [(1, 0), (2, 1)])
def test_fewer_evaluations_lower_the_order(known, order):
    past = np.array([0.4, 0.7])[:known]
    weights = extrapolation_weights(past, 0.1, 2)
    assert np.array_equal(weights, extrapolation_weights(past, 0.1, order)) and len(weights) == known


@given(segments(), ORDERS, st.floats(0, 1))
def test_mean_weights_are_the_time_average_of_the_step_weights(segment, order, damping):
    past, grid = segment
    total = (grid[1] - grid[0]) * np.array([1.0, 0.0, 0.0])
    for sigma, following in zip(grid[1:-1], grid[2:], strict=True):
        total += (following - sigma) * extrapolation_weights(past, sigma, order, damping)
    weights = extrapolated_mean_weights(past, grid, order, damping)
    assert np.allclose(weights, total / (grid[-1] - grid[0]), atol=1e-11 * np.abs(weights).sum())


def test_a_segment_of_one_step_only_uses_its_own_evaluation():
    weights = extrapolated_mean_weights(np.array([0.5, 0.6, 1.0]), np.array([0.5, 0.3]), 2)
    assert np.array_equal(weights, [1.0, 0.0, 0.0])


@given(segments(min_steps=2), st.integers(0, 2**32 - 1))
def test_the_ramp_starts_at_the_velocity_and_lands_where_the_mean_does(segment, seed):
    _, grid = segment
    mean, velocity = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    slope = ramp_slope(mean, velocity, grid)
    assert torch.equal(velocity + (grid[0] - grid[0]) * slope, velocity)
    landed = sum(
        (following - sigma) * (velocity + (sigma - grid[0]) * slope)
        for sigma, following in zip(grid[:-1], grid[1:], strict=True)
    )
    bound = float(abs((grid[0] - grid[-1]) * ramp_gain(grid)))
    torch.testing.assert_close(landed, mean * (grid[-1] - grid[0]), atol=1e-12 * (1 + bound), rtol=0)


def test_a_ramp_to_the_velocity_itself_is_flat():
    velocity = torch.ones(3)
    assert torch.equal(ramp_slope(velocity, velocity, np.array([1.0, 0.5, 0.2])), torch.zeros(3))


@given(sigma_grids(min_steps=2))
def test_mean_velocity_is_exact_for_constant_velocities(sigmas):
    velocity = torch.arange(6, dtype=torch.float64).reshape(2, 3) - 2
    step = mean_velocity_step(sigmas, [velocity] * (len(sigmas) - 2))
    torch.testing.assert_close(step, velocity, atol=1e-11, rtol=0)


@pytest.mark.parametrize("span", range(1, 8))
def test_mean_velocity_derivative_is_half_the_difference_quotient_on_even_grids(span):
    sigmas = np.linspace(1.0, 1.0 - 0.1 * (span + 1), span + 2)
    intercept, slope = torch.tensor([3.0, -1.0]).double(), torch.tensor([2.0, 5.0]).double()
    velocities = [intercept + slope * sigma for sigma in sigmas[:-2]]
    quotient = (velocities[-1] - velocities[0]) / (sigmas[-2] - sigmas[0])
    step = mean_velocity_step(sigmas, velocities)
    torch.testing.assert_close(step, velocities[-1] + quotient / 2 * (sigmas[-1] - sigmas[-2]))
    if span > 1:  # and neither the whole quotient nor the exact extrapolation
        assert not torch.allclose(step, velocities[-1] + quotient * (sigmas[-1] - sigmas[-2]))
        assert not torch.allclose(step, intercept + slope * sigmas[-2])


@given(sigma_grids(min_steps=2, max_steps=8), st.integers(0, 2**32 - 1))
def test_mean_velocity_equals_its_definition_by_displacements(sigmas, seed):
    velocities = list(np.random.default_rng(seed).normal(size=(len(sigmas) - 2, 5)))
    x = [np.zeros(5)]
    for velocity, h in zip(velocities, np.diff(sigmas), strict=False):
        x.append(x[-1] + velocity * h)
    mean = (x[-1] - x[0]) / (sigmas[-2] - sigmas[0])
    expected = velocities[-1] + (mean - velocities[0]) / (sigmas[-2] - sigmas[0]) * (sigmas[-1] - sigmas[-2])
    assert np.allclose(mean_velocity_step(sigmas, velocities), expected, rtol=1e-9)


def planted(seed: int = 0, count: int = 3, cases: int = 2):
    random = torch.Generator().manual_seed(seed)
    basis = [torch.randn(cases, 4, 6, 6, generator=random, dtype=torch.float64) for _ in range(count)]
    weights = np.random.default_rng(seed).normal(size=count)
    return basis, weights, sum(float(w) * b for w, b in zip(weights, basis, strict=True))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fit_recovers_planted_weights(count):
    basis, weights, target = planted(count=count)
    assert np.allclose(fit_weights(basis, target, np.zeros(count), 1e-12), weights, atol=1e-9)


def test_a_huge_ridge_gives_the_prior():
    basis, _, target = planted()
    prior = np.array([1.5, -0.25, 7.0])
    assert np.allclose(fit_weights(basis, target, prior, 1e12), prior, atol=1e-9)


def test_more_ridge_is_never_further_from_the_prior():
    basis, weights, target = planted()
    prior = np.array([1.0, 0.0, 0.0])
    fits = [fit_weights(basis, target, prior, ridge) for ridge in np.logspace(-6, 6, 13)]
    distances = [np.linalg.norm(fit - prior) for fit in fits]
    assert distances == sorted(distances, reverse=True) and distances[-1] < 1e-3 * distances[0]


@given(st.floats(1e-3, 1e3), st.floats(1e-6, 10))
def test_fit_does_not_depend_on_the_scale_of_the_latent(scale, ridge):
    basis, _, target = planted()
    target, prior = target + 0.3, np.array([1.0, 0.2, -0.2])
    scaled = fit_weights([b * scale for b in basis], target * scale, prior, ridge)
    assert np.allclose(scaled, fit_weights(basis, target, prior, ridge), atol=1e-9)


@given(st.floats(1e-6, 10), st.integers(0, 2**32 - 1))
def test_fit_minimises_the_documented_objective(ridge, seed):
    basis, _, target = planted()
    target = target + torch.randn(
        target.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    prior = np.array([1.0, 0.5, -0.5])
    trace = sum(float((b**2).sum()) for b in basis)

    def objective(weights):
        miss = target - sum(float(w) * b for w, b in zip(weights, basis, strict=True))
        return float((miss**2).sum()) + ridge * trace / 3 * np.sum((weights - prior) ** 2)

    best = fit_weights(basis, target, prior, ridge)
    for change in np.random.default_rng(seed).normal(size=(5, 3)) * 1e-2:
        assert objective(best) < objective(best + change)


def test_equal_evaluations_or_none_at_all_still_give_finite_weights():
    basis, _, _ = planted(count=1)
    prior = np.array([1.0, 0.0, 0.0])
    assert np.isfinite(fit_weights(basis * 3, basis[0], prior)).all()
    zero = torch.zeros_like(basis[0])
    assert np.array_equal(fit_weights([zero] * 3, zero, prior), prior)


def test_fit_reads_half_precision_without_losing_it():
    basis, _, target = planted()
    basis = [b.half() for b in basis]
    target = sum(w * b.double() for w, b in zip((0.5, 2.0, -1.0), basis, strict=True))
    assert np.allclose(fit_weights(basis, target, np.zeros(3), 1e-12), [0.5, 2.0, -1.0], atol=1e-8)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", [0, 2, "target"])
def test_a_velocity_that_is_not_finite_is_reported(bad, where):
    basis, _, target = planted()
    (target if where == "target" else basis[where]).view(-1)[17] = bad
    with pytest.raises(OTCacheError, match="not (a )?finite"):
        fit_weights(basis, target, np.zeros(3))


def test_fit_without_ridge_survives_equal_evaluations():
    basis = [torch.tensor([1.0, 0.0]).double()] * 2
    assert np.isfinite(fit_weights(basis, basis[0], np.array([1.0, 0.0]), ridge=0.0)).all()


def test_prior_is_half_damped_linear_extrapolation():
    past, grid = np.array([0.5, 0.8, 1.0]), np.array([0.5, 0.3, 0.2])
    # The second step (0.3 -> 0.2, a third of the segment) goes half of (0.3 - 0.5) / (0.5 - 0.8) along
    # the difference of the evaluations.
    share = 0.5 * (2 / 3) * (1 / 3)
    assert np.allclose(prior_weights(past, grid), [1 + share, -share, 0.0])
    assert np.array_equal(prior_weights(past[:1], grid), [1.0])
    assert len(prior_weights(np.array([0.5, 0.6, 0.7, 0.8]), grid)) == HISTORY


# -- two bands -----------------------------------------------------------------------------------------------

LATENTS = [(4, 4), (1, 1), (3, 7), (4, 9, 11), (2, 4, 32, 32), (2, 4, 5, 64, 3), (2, 16, 3, 13, 22)]


def latent(shape, seed: int = 0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("shape", LATENTS)
def test_low_pass_is_linear_and_keeps_shape_and_constants(shape):
    a, b = latent(shape, 0), latent(shape, 1)
    assert low_pass(a).shape == shape
    torch.testing.assert_close(low_pass(2 * a - 0.3 * b), 2 * low_pass(a) - 0.3 * low_pass(b))
    torch.testing.assert_close(low_pass(torch.full(shape, 1.7).double()), torch.full(shape, 1.7).double())


@pytest.mark.parametrize("shape", LATENTS)
def test_low_pass_filters_each_image_by_itself_and_leaves_its_input_alone(shape):
    x = latent(shape).transpose(-1, -2)  # not contiguous
    before, images = x.clone(), x.reshape(-1, *x.shape[-2:])
    apart = torch.stack([low_pass(image) for image in images]).reshape(x.shape)
    torch.testing.assert_close(low_pass(x), apart)
    assert torch.equal(x, before)


def test_low_pass_keeps_layout_and_drops_texture():
    row = torch.arange(32).double()
    wave = torch.cos(2 * torch.pi * row / 32).expand(32, 32)
    checkers = (-1.0) ** (row[:, None] + row)
    assert (low_pass(wave) - wave).square().mean() < 0.02 * wave.square().mean()
    torch.testing.assert_close(low_pass(checkers), torch.zeros(32, 32).double())
    assert LOW_PASS == 4  # stored weights mean this very filter


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(2, 4, 32, 32), (1, 16, 3, 13, 22)])
def test_low_pass_works_in_the_latents_own_precision(dtype, shape):
    x = latent(shape, dtype=dtype)
    low = low_pass(x)
    assert low.dtype == dtype
    torch.testing.assert_close(low.double(), low_pass(x.double()), atol=4 * torch.finfo(dtype).eps, rtol=0)


def band_basis(count: int = 3, shape=(2, 4, 16, 17)):
    return [latent(shape, seed) for seed in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_row_of_two_equal_bands_is_the_row_of_one(count):
    basis, row = band_basis(), np.random.default_rng(count).normal(size=count)
    torch.testing.assert_close(mean_velocity(np.tile(row, 2), basis, 2), mean_velocity(row, basis))
    torch.testing.assert_close(mean_velocity(row, basis), combine(row, basis[:count]))


@pytest.mark.parametrize("kind", [tuple, list, np.array])
def test_a_row_of_two_bands_holds_the_low_bands_weights_first(kind):
    basis = band_basis(2)
    low, high = 0.5 * basis[0] - basis[1], 2 * basis[0] + 3 * basis[1]
    ours = mean_velocity(kind([0.5, -1.0, 2.0, 3.0]), basis, 2)
    torch.testing.assert_close(ours, low_pass(low) + high - low_pass(high))


def test_combine_needs_one_weight_a_tensor():
    with pytest.raises(ValueError, match="zip"):
        combine([1.0, 2.0], band_basis(3))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_band_is_fitted_by_itself(count):
    """The row's halves are the fits of the filtered basis to the filtered target."""
    basis, target = band_basis(count), latent((2, 4, 16, 17), 9)
    prior = np.array([1.0, 0.3, -0.3])[:count]
    row = fit_weights(basis, target, prior, 1e-3, bands=2)
    lows = [low_pass(x) for x in (*basis, target)]
    highs = [x - low for x, low in zip((*basis, target), lows, strict=True)]
    halves = [fit_weights(part[:-1], part[-1], prior, 1e-3) for part in (lows, highs)]
    assert row.shape == (2 * count,) and np.allclose(row, np.concatenate(halves), rtol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fit_recovers_planted_weights_of_each_band(count):
    """Up to the overlap of the filters where the bands differ, exactly where they agree."""
    basis, random = band_basis(count, (4, 4, 32, 32)), np.random.default_rng(count)
    same, other = random.normal(size=(2, count))
    agreeing = fit_weights(basis, combine(same, basis), np.zeros(count), 1e-12, bands=2)
    assert np.allclose(agreeing, np.tile(same, 2), atol=1e-9)
    planted_row = np.concatenate([same, same + 0.1 * other])
    found = fit_weights(basis, mean_velocity(planted_row, basis, 2), np.zeros(count), 1e-12, bands=2)
    # White noise has the largest overlap: half of a band's difference may show in the other.
    assert np.abs(found - planted_row).max() < 0.5 * np.abs(0.1 * other).max()
    # A soft layout and a texture of pixels hardly overlap.
    coarse = [torch.nn.functional.interpolate(latent((4, 4, 4, 4), i), size=64, mode="bicubic") for i in range(count)]
    checkers = (-1.0) ** torch.arange(64) * ((-1.0) ** torch.arange(64))[:, None]
    clear = [layout + latent((4, 4, 1, 1), 20 + i) * checkers for i, layout in enumerate(coarse)]
    found = fit_weights(clear, mean_velocity(planted_row, clear, 2), np.zeros(count), 1e-12, bands=2)
    assert np.abs(found - planted_row).max() < 0.05 * np.abs(0.1 * other).max()


def test_two_bands_never_fit_worse_than_one_in_either_band():
    basis, target = band_basis(), latent((2, 4, 16, 17), 9)
    one, two = (fit_weights(basis, target, np.zeros(3), 1e-12, bands) for bands in (1, 2))
    for half, part in zip(np.split(two, 2), (low_pass, lambda x: x - low_pass(x)), strict=True):
        ours, theirs = (part(target - combine(row, basis)).square().sum() for row in (half, one))
        assert ours <= theirs * (1 + 1e-9)


def test_a_huge_ridge_gives_the_prior_in_both_bands():
    prior = np.array([1.5, -0.25, 7.0])
    assert np.allclose(fit_weights(band_basis(), latent((2, 4, 16, 17), 9), prior, 1e12, bands=2), np.tile(prior, 2))


@pytest.mark.parametrize("shape", [(2, 8, 21), (1, 1, 500)])
def test_a_latent_without_height_and_width_is_one_band(shape):
    basis = band_basis(shape=shape)
    rows = (1.2, -0.3, 0.1), (0.5, 0.9, -0.4)
    torch.testing.assert_close(mean_velocity(np.concatenate(rows), basis, 2), combine(rows[0], basis))
    prior = np.array([1.5, -0.5, 0.0])
    target = combine((0.7, 0.2, 0.1), basis)
    fitted = fit_weights(basis, target, prior, bands=2)
    np.testing.assert_allclose(fitted, fit_weights(basis, target, prior))
