import numpy as np
import pytest
import torch
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as published_ms_ssim
from torchmetrics.functional.image import structural_similarity_index_measure as published_ssim

from otcache_core.calibration import similarity
from otcache_core.calibration.similarity import GAUSSIAN, SCALES, WINDOW, one_minus_ms_ssim, one_minus_ssim

KINDS = ["soft", "detailed", "bright", "dark", "opposed"]


def pictures(kind: str, height: int, width: int, level: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Two pictures and what they become under an error of about `level`, float32 [2, 2, height, width] both."""
    random = torch.Generator().manual_seed(height + width)
    soft = torch.nn.functional.interpolate(torch.rand(2, 2, 6, 6, generator=random), (height, width), mode="bilinear")
    error = level * torch.randn(2, 2, height, width, generator=random)
    if kind == "soft":
        return soft, soft + error
    if kind == "detailed":
        detailed = torch.rand(2, 2, height, width, generator=random)
        return detailed, detailed.roll(1, -1) if level > 0.1 else detailed + error
    if kind == "opposed":
        return soft, 1 - soft + error
    flat = torch.full_like(soft, 0.97 if kind == "bright" else 0.02)
    return flat, flat + level / 2 + error


def levels(height: int, width: int) -> int:
    """How many scales the side allows torchmetrics."""
    return sum(min(height, width) // max(2**k, k**2) >= WINDOW for k in range(5))


def published(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """1 - MS-SSIM by torchmetrics in double precision."""
    betas = np.array(SCALES[: levels(*a.shape[-2:])])
    betas = tuple(betas / betas.sum())
    options = {"data_range": 1.0, "reduction": "none", "betas": betas, "normalize": "relu"}
    return 1 - published_ms_ssim(a.double(), b.double(), **options).numpy().reshape(-1)


@pytest.mark.parametrize("level", [1e-3, 0.03, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_every_kind_are_as_far_apart_as_torchmetrics_says_in_double_precision(kind, level):
    a, b = pictures(kind, 45, 47, level)
    exact = published(b, a)
    assert np.allclose(one_minus_ms_ssim(b, a), exact, rtol=5e-4, atol=1e-12)
    expected = 1 - published_ssim(b.double(), a.double(), data_range=1.0, reduction="none").numpy().reshape(-1)
    assert np.allclose(one_minus_ssim(b, a), expected, rtol=5e-4, atol=1e-12)
    assert np.allclose(one_minus_ms_ssim(b.double(), a.double()), exact, rtol=1e-6, atol=1e-12)
    assert np.allclose(one_minus_ssim(b.double(), a.double()), expected, rtol=1e-6, atol=1e-12)


def by_definition(a: torch.Tensor, b: torch.Tensor) -> float:
    """1 - SSIM of one picture as it is written in the paper, in numpy's longest floating point numbers, window by window."""
    window = np.exp(-((np.arange(WINDOW, dtype=np.longdouble) - WINDOW // 2) ** 2) / np.longdouble(4.5))
    window = np.outer(window, window) / window.sum() ** 2
    reach = WINDOW // 2
    values = []
    for x, y in zip(a[0].numpy().astype(np.longdouble), b[0].numpy().astype(np.longdouble), strict=True):
        x, y = (np.pad(channel, reach, mode="reflect") for channel in (x, y))
        for i, j in np.ndindex(x.shape[0] - 2 * reach, x.shape[1] - 2 * reach):
            p, q = x[i : i + WINDOW, j : j + WINDOW], y[i : i + WINDOW, j : j + WINDOW]
            mp, mq = (window * p).sum(), (window * q).sum()
            p, q = p - mp, q - mq
            covariance, variances = (window * p * q).sum(), (window * (p**2 + q**2)).sum()
            c1, c2 = np.longdouble("1e-4"), np.longdouble("9e-4")
            values.append(
                1 - (2 * mp * mq + c1) * (2 * covariance + c2) / ((mp**2 + mq**2 + c1) * (variances + c2))
            )
    return float(np.mean(values))


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="this machine has no longer numbers than double precision")
@pytest.mark.parametrize("level", [1e-6, 1e-5, 1e-4, 1e-2])
def test_tiny_errors_are_measured_in_float32_as_exactly_as_large_ones(level):
    a, b = pictures("soft", 12, 14, level)
    a, b = a[:1], b[:1]
    expected = by_definition(a, b)
    assert one_minus_ssim(b, a)[0] == pytest.approx(expected, rel=2e-5)
    assert one_minus_ms_ssim(b, a)[0] == pytest.approx(expected, rel=2e-5)  # one scale only


def test_the_value_depends_neither_on_strips_nor_on_how_many_are_compared_at_once(monkeypatch):
    a, b = pictures("soft", 200, 190, 0.1)
    whole = one_minus_ms_ssim(b, a), one_minus_ssim(b, a)
    monkeypatch.setattr(similarity, "STRIP_CPU", 7 * 2 * 190)
    monkeypatch.setattr(similarity, "GROUP", 1)
    assert np.allclose((one_minus_ms_ssim(b, a), one_minus_ssim(b, a)), whole, rtol=1e-5)


def test_reduced_precision_of_multiplications_changes_nothing():
    a, b = pictures("soft", 64, 64, 1e-3)
    before = torch.get_float32_matmul_precision()
    expected = one_minus_ms_ssim(b, a)
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert np.array_equal(one_minus_ms_ssim(b, a), expected)
    finally:
        torch.set_float32_matmul_precision(before)


def test_pictures_that_carry_gradients_are_compared():
    a, b = pictures("soft", 45, 47, 0.1)
    expected = one_minus_ms_ssim(b, a)
    assert np.array_equal(one_minus_ms_ssim(b.requires_grad_(), a), expected)


def test_the_window_is_the_published_one():
    assert sum(GAUSSIAN) == pytest.approx(1) and len(GAUSSIAN) == WINDOW and pytest.approx(GAUSSIAN[::-1]) == GAUSSIAN
    assert GAUSSIAN[5] / GAUSSIAN[4] == pytest.approx(np.exp(0.5 / 1.5**2))
