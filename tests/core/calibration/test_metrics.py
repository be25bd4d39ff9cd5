import re
import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from otcache_core.calibration import metrics, similarity
from otcache_core.calibration.metrics import (
    DEFAULT,
    DISTANCES,
    check_metric,
    distance,
    geometric_mean,
    ms_ssim,
    psnr,
    rmse,
    ssim,
    structure_rmse,
)
from otcache_core.calibration.similarity import one_minus_ms_ssim, one_minus_ssim
from otcache_core.errors import OTCacheError

EQUAL = {"psnr": 120.0, "ssim": 1.0, "ms-ssim": 1.0} | {name: 0.0 for name in DISTANCES if name != "lpips"}
FREE = {"psnr": psnr, "ssim": ssim, "ms-ssim": ms_ssim} | {
    name: DISTANCES[name] for name in DISTANCES if name != "lpips"
}
every_metric = pytest.mark.parametrize("name", FREE)


def pictures(seed: int = 0, count: int = 3, height: int = 48, width: int = 56):
    """Soft pictures in [0.3, 0.7], so that noise can be added without clipping."""
    random = torch.Generator().manual_seed(seed)
    coarse = 0.3 + 0.4 * torch.rand(count, 3, 6, 6, generator=random)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def noise(seed: int = 1, like=None):
    return torch.rand(like.shape, generator=torch.Generator().manual_seed(seed)) * 0.6 - 0.3


@every_metric
@pytest.mark.parametrize("side", [11, 16, 64, 180])
def test_equal_pictures_are_at_zero_distance(name, side):
    images = pictures(height=side, width=side + 3)
    values = FREE[name](images, images.clone())
    assert values.shape == (3,) and values.dtype == np.float64
    assert np.allclose(values, EQUAL[name], atol=2e-6)


@every_metric
def test_metrics_are_symmetric(name):
    a = pictures()
    b = a + 0.5 * noise(like=a)
    assert np.allclose(FREE[name](a, b), FREE[name](b, a), rtol=1e-5)


@every_metric
def test_metrics_get_worse_as_noise_grows(name):
    references = pictures()
    change = noise(like=references)
    values = [
        FREE[name](references + level * change, references) for level in (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
    ]
    sign = 1 if name in DISTANCES else -1
    for weak, strong in pairwise(values):
        assert (sign * strong > sign * weak).all()


@every_metric
def test_a_picture_is_judged_by_itself_whatever_else_is_in_the_batch(name):
    references = pictures(count=4)
    images = references + torch.tensor([0.0, 0.1, 0.5, 1.0]).reshape(4, 1, 1, 1) * noise(like=references)
    together = FREE[name](images, references)
    alone = np.concatenate([FREE[name](images[i : i + 1], references[i : i + 1]) for i in range(4)])
    assert np.allclose(together, alone, rtol=1e-4, atol=2e-6)
    assert np.allclose(FREE[name](images.flip(0), references.flip(0)), together[::-1], rtol=1e-4, atol=2e-6)


@every_metric
def test_metrics_do_not_change_their_input(name):
    a = pictures()
    b = a + noise(like=a)
    before = a.clone(), b.clone()
    FREE[name](a, b)
    assert torch.equal(a, before[0]) and torch.equal(b, before[1])


@pytest.mark.parametrize("level", [1e-4, 3e-4, 1e-3])
def test_small_differences_are_measured_as_exactly_as_large_ones(level):
    references = pictures()
    images = references + level * noise(like=references)
    exact = distance(DEFAULT)(images.double(), references.double())
    assert np.allclose(distance(DEFAULT)(images, references), exact, rtol=0.02)


@pytest.mark.parametrize("shift", [0.001, 0.1, 0.25])
def test_rmse_and_psnr_of_a_constant_shift(shift):
    references = pictures().double()
    assert np.allclose(rmse(references + shift, references), shift)
    assert np.allclose(psnr(references + shift, references), -20 * np.log10(shift))


def test_black_against_white_is_the_largest_distance():
    black, white = torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)
    assert rmse(black, white) == pytest.approx(1) and psnr(black, white) == pytest.approx(0)
    assert 0 <= ms_ssim(black, white)[0] < 0.05 and 0.95 < structure_rmse(black, white)[0] <= 1


@pytest.mark.parametrize("shape", [(11, 40), (21, 20), (64, 64), (80, 180), (177, 200), (192, 192)])
@pytest.mark.parametrize("level", [1.0, 0.1, 1e-2, 1e-4])
def test_similarity_is_torchmetrics_in_double_precision(shape, level):
    """Its distance from 1, that is, which torchmetrics itself loses in float32."""
    references = pictures(height=shape[0], width=shape[1])
    images = references + level * noise(like=references)
    levels = sum(min(shape) // max(2**k, k**2) >= similarity.WINDOW for k in range(5))
    betas = tuple(np.array(similarity.SCALES[:levels]) / sum(similarity.SCALES[:levels]))
    both = images.double(), references.double()
    options = {"data_range": 1.0, "reduction": "none"}
    expected = 1 - multiscale_structural_similarity_index_measure(*both, betas=betas, normalize="relu", **options).numpy()
    assert np.allclose(one_minus_ms_ssim(images, references), expected, rtol=1e-5, atol=0)
    expected = 1 - structural_similarity_index_measure(*both, **options).numpy()
    assert np.allclose(one_minus_ssim(images, references), expected, rtol=1e-5, atol=0)


def test_opposed_pictures_are_as_far_as_can_be():
    references = pictures(height=192, width=192)
    assert one_minus_ms_ssim(1 - references, references) == pytest.approx(1)


@every_metric
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_pictures_of_every_dtype(name, dtype):
    images, references = (p.to(dtype) for p in (pictures(seed=2), pictures(seed=3)))
    assert np.allclose(FREE[name](images, references), FREE[name](images.double(), references.double()), rtol=1e-4)


class Watch(TorchDispatchMode):
    """Notes the device and the size of all that torch's functions compute with; views and copies compute nothing."""

    def __init__(self):
        super().__init__()
        self.given: list[tuple[str, int]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function not in (torch.ops.aten.detach.default, torch.ops.aten.alias.default, torch.ops.aten.split.Tensor):
            self.given += [(x.device.type, x.numel()) for x in args if isinstance(x, torch.Tensor)]
        return function(*args, **kwargs or {})


@every_metric
def test_pictures_are_judged_where_they_are(name):
    """Tensors without data stand in for a device: all is computed there until the few results are fetched, which fails."""
    references = pictures()
    images = references.to("meta")
    with Watch() as watch, pytest.raises(NotImplementedError, match="meta tensor"):
        FREE[name](images, references)
    assert ("meta", references.numel()) in watch.given
    elsewhere = [size for device, size in watch.given if device != "meta"]
    assert len(elsewhere) <= 1  # the references, on their way
    assert watch.given[-1][0] == "meta" and watch.given[-1][1] <= references.numel() / references.shape[-1]


def test_structure_rmse_is_the_geometric_mean_of_its_two_parts():
    references = pictures()
    images = references + 0.3 * noise(like=references)
    parts = np.sqrt(1 - ms_ssim(images, references)) * rmse(images, references)
    assert np.allclose(structure_rmse(images, references) ** 2, parts)


def test_scale_weights_are_the_published_ones():
    assert sum(similarity.SCALES) == pytest.approx(1, abs=2e-4) and len(similarity.SCALES) == 5


@given(st.integers(4, 10), st.integers(4, 64))
def test_pictures_too_small_for_ms_ssim_name_the_smallest_size(short, long):
    for shape in ((1, 3, short, long), (1, 3, long, short)):
        images = torch.zeros(shape)
        for metric in (ms_ssim, distance(DEFAULT)):
            with pytest.raises(
                OTCacheError, match=f"{min(shape[2:])} pixels are too small.*11 pixels or more"
            ):
                metric(images, images)


@pytest.mark.parametrize("side", [11, 12, 20, 21, 40, 41, 43, 44, 80, 81, 98, 99, 160, 161, 175, 176, 200])
@pytest.mark.parametrize("shape", ["square", "wide", "tall"])
def test_every_size_from_11_pixels_up_can_be_compared(side, shape):
    images = pictures(count=1, height=side, width=side + 40 * (shape != "square"))
    images = images.transpose(2, 3) if shape == "tall" else images
    both = torch.cat([images, images + 0.1 * noise(like=images)])
    equal, noisy = distance(DEFAULT)(both, images.expand_as(both))
    assert 0 <= equal < 1e-5 < noisy


def test_pictures_too_small_for_ssim_are_our_error():
    images = torch.zeros(1, 3, 5, 5)
    with pytest.raises(OTCacheError):
        ssim(images, images)


@pytest.mark.parametrize("shape", [(1, 3, 30, 64), (1, 3, 64, 30)])
def test_pictures_too_small_for_lpips_name_the_smallest_size(shape):
    with pytest.raises(OTCacheError, match="30 pixels are too small for LPIPS.*31 pixels or more"):
        distance("lpips")(torch.zeros(shape), torch.zeros(shape))


@pytest.mark.parametrize("name", ["psnr", "LPIPS", "", "fid"])
def test_an_unknown_distance_lists_the_known_ones(name):
    with pytest.raises(OTCacheError) as error:
        distance(name)
    assert f'"{name}"' in str(error.value) and all(known in str(error.value) for known in DISTANCES)


def test_known_distances_are_found_and_the_default_needs_no_download():
    assert all(distance(name) is metric for name, metric in DISTANCES.items())
    assert DEFAULT in FREE


def test_lpips_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(metrics, "_network", None)
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(OTCacheError, match=f"pip install lpips.*{re.escape(DEFAULT)}"):
        distance("lpips")(pictures(), pictures())


@pytest.mark.parametrize("download", [False, True])
def test_lpips_without_its_backbone_downloads_it_only_when_told(monkeypatch, tmp_path, download):
    """The package and torchvision stand in as empty modules: it must not come to them."""
    asked, weights = [], SimpleNamespace(AlexNet_Weights=SimpleNamespace(IMAGENET1K_V1=SimpleNamespace(url="http://a/b.pth")))

    def refuse(url, *_args, **_options):
        asked.append(url)
        raise OSError("no route to host")

    monkeypatch.setattr(metrics, "_network", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name, module in (("lpips", SimpleNamespace()), ("torchvision", SimpleNamespace()), ("torchvision.models", weights)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    words = "no route to host" if download else "allow its download"
    with pytest.raises(OTCacheError, match=f"{words}.*{re.escape(DEFAULT)}") as error:
        metrics.prepare_lpips([tmp_path / "lpips"], download)
    assert str(tmp_path / "lpips") in str(error.value) and "http://a/b.pth" in str(error.value)
    assert asked == ["http://a/b.pth"] * download and metrics._network is None  # a later try may succeed
    with pytest.raises(OTCacheError, match="allow its download"):
        distance("lpips")(pictures(), pictures())
    assert len(asked) == download


def test_lpips_is_given_pictures_in_its_own_range(monkeypatch):
    seen = []

    class Network(torch.nn.Module):
        def forward(self, a, b):
            seen.extend([a, b])
            return torch.full((len(a), 1, 1, 1), 0.5)

    monkeypatch.setattr(metrics, "_network", Network())
    values = distance("lpips")(torch.zeros(2, 3, 32, 32), torch.ones(2, 3, 32, 32).double())
    assert values.shape == (2,) and values.dtype == np.float64 and (values == 0.5).all()
    assert (seen[0] == -1).all() and (seen[1] == 1).all() and seen[1].dtype == torch.float32


@given(st.lists(st.floats(1e-8, 1e3), min_size=1, max_size=8), st.floats(1e-1, 1e1))
def test_geometric_mean_is_homogeneous_and_between_its_values(values, factor):
    mean = geometric_mean(values)
    assert min(values) * (1 - 1e-9) <= mean <= max(values) * (1 + 1e-9)
    assert geometric_mean(np.array(values) * factor) == pytest.approx(mean * factor, rel=1e-9)


def test_one_perfect_case_does_not_decide():
    assert geometric_mean([0.0, 1.0]) == pytest.approx(np.sqrt(1e-9))
    assert geometric_mean([4.0, 1.0]) == pytest.approx(2.0)


def test_a_metric_without_its_package_is_our_error(monkeypatch):
    check_metric("ms-ssim*rmse")
    check_metric("rmse")
    monkeypatch.setattr(metrics, "_network", None)
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(OTCacheError, match='"lpips" needs a package: run "pip install lpips"'):
        check_metric("lpips")
