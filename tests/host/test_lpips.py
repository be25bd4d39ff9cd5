"""LPIPS by its real package, as in a ComfyUI that has the pack's requirements; the backbone is a file of random weights."""

import numpy as np
import pytest
import torch

FILE = "alexnet-owt-7be5be79.pth"  # the name that torchvision looks for


def test_torchvision_still_looks_for_that_name():
    from torchvision.models import AlexNet_Weights

    assert AlexNet_Weights.IMAGENET1K_V1.url.endswith(f"/{FILE}")


@pytest.fixture(scope="module")
def backbone() -> dict[str, torch.Tensor]:
    """AlexNet's tensors by name. LPIPS leaves the classifier out: it is one number in the file, repeated."""
    from torchvision.models import alexnet

    with torch.device("meta"):
        shapes = {name: value.shape for name, value in alexnet(weights=None).state_dict().items()}
    random = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=random) * 0.05 if name.startswith("features") else torch.zeros(1).expand(shape)
        for name, shape in shapes.items()
    }


@pytest.fixture
def metrics(host, monkeypatch, tmp_path):
    """The nodes' metrics with no network loaded, an empty hub folder of torch, and no way to the internet."""

    def refuse(url, *_args, **_options):
        raise OSError(f"no route to {url}")

    module = host.module("otcache_core.calibration.metrics")
    monkeypatch.setattr(module, "_network", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return module


@pytest.fixture
def file(metrics, tmp_path):
    return tmp_path / "hub" / "checkpoints" / FILE


def pictures(seed: int, count: int = 2, side: int = 48) -> torch.Tensor:
    return torch.rand(count, 3, side, side + 8, generator=torch.Generator().manual_seed(seed))


def test_the_real_package_measures(metrics, file, backbone):
    torch.save(backbone, file)
    a = pictures(0)
    b = a + torch.tensor([0.1, 0.3]).reshape(2, 1, 1, 1) * (pictures(1) - 0.5)
    values = metrics.distance("lpips")(b, a)
    assert values.shape == (2,) and values.dtype == np.float64 and 0 < values[0] < values[1]
    assert np.allclose(metrics.lpips(a, a.clone()), 0, atol=1e-6)
    assert np.allclose(metrics.lpips(a, b), values, rtol=1e-4)
    assert np.allclose([metrics.lpips(b[k : k + 1], a[k : k + 1])[0] for k in range(2)], values, rtol=1e-4)
    metrics.check_metric("lpips")


def test_every_size_from_31_pixels_up_can_be_compared(metrics, file, backbone):
    torch.save(backbone, file)
    for side in range(31, 40):
        assert metrics.lpips(pictures(0, 1, side), pictures(1, 1, side))[0] > 0


@pytest.fixture
def models(host, monkeypatch, tmp_path):
    """An own folder of models, with one more folder that ComfyUI knows."""
    import folder_paths

    (tmp_path / "models" / "other").mkdir(parents=True)
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "other", ([str(tmp_path / "models" / "other")], set()))
    return tmp_path / "models"


@pytest.mark.parametrize("folder", ["lpips", "other"])
def test_a_backbone_in_a_model_folder_is_found(host, metrics, models, backbone, folder):
    (models / folder).mkdir(exist_ok=True)
    torch.save(backbone, models / folder / FILE)
    images = pictures(0, 1).movedim(1, -1)
    assert "LPIPS: 0.0000" in host.run("OTCompare", cached=images, full=images + 1e-6, lpips=True)[0]


def test_the_node_downloads_it_only_when_told(host, metrics, models, backbone, monkeypatch):
    images, asked = pictures(0, 1).movedim(1, -1), []

    def fetch(url, target, hash_prefix=None, progress=True):
        asked.append((url.rpartition("/")[2], hash_prefix))
        torch.save(backbone, target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    inputs = {"cached": images, "full": images + 1e-6, "lpips": True}
    assert "LPIPS: not measured" in host.run("OTCompare", **inputs)[0] and not asked and not (models / "lpips").exists()
    assert "LPIPS: 0.0000" in host.run("OTCompare", download=True, **inputs)[0]
    assert asked == [(FILE, "7be5be79")] and (models / "lpips" / FILE).is_file()


def test_loading_it_leaves_chance_as_it_was(metrics, file, backbone):
    torch.save(backbone, file)
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    metrics.prepare_lpips()
    assert torch.equal(torch.rand(3), wanted)


def test_the_node_shows_it(host, metrics, file, backbone):
    torch.save(backbone, file)
    images = pictures(0, 1).movedim(1, -1)
    assert "LPIPS: 0.0000" in host.run("OTCompare", cached=images, full=images + 1e-6, lpips=True)[0]


@pytest.mark.parametrize("download", [False, True])
def test_without_its_backbone_it_says_where_that_belongs(metrics, file, download):
    with pytest.raises(metrics.OTCacheError) as error:
        metrics.prepare_lpips(download=download)
    assert str(file.parent) in str(error.value) and metrics.DEFAULT in str(error.value) and FILE in str(error.value)
    assert ("no route to" in str(error.value)) == download


@pytest.mark.parametrize("content", [b"", b"not a network", "half"])
def test_a_broken_backbone_is_our_error_and_the_next_one_is_tried(metrics, file, backbone, content):
    torch.save(backbone, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(metrics.OTCacheError, match="is damaged; delete it"):
        metrics.lpips(pictures(0), pictures(1))
    file.write_bytes(whole)
    assert (metrics.lpips(pictures(0), pictures(1)) > 0).all()
