"""LPIPS's network. Its backbone is torchvision's AlexNet in a file of its own, looked for in folders and else asked for."""

import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from ..errors import OTCacheError

FILE = "alexnet-owt-7be5be79.pth"  # torchvision's name for it; the digits begin its SHA-256
DIGITS = "7be5be79"
INSTEAD = 'or use "ms-ssim*rmse"'


def torch_folder() -> Path:
    """Where torchvision itself keeps backbones."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def load_network(folders: Sequence[str | Path] = (), download: bool = False) -> torch.nn.Module:
    """The network, its backbone read from the first of `folders` that has it, else from torch's own folder.

    download: may be fetched from torchvision's address into the first folder (about 240 MB). Raises `OTCacheError` when the
    package is not installed, or when the backbone is in no folder, cannot be fetched or is damaged.
    """
    places = [*map(Path, folders), torch_folder()]
    try:
        import lpips as package
        from torchvision.models import AlexNet_Weights
    except ImportError:
        raise OTCacheError(f'Metric "lpips" needs a package: run "pip install lpips", {INSTEAD}.') from None
    path = next((place / FILE for place in places if (place / FILE).is_file()), None)
    if path is None:
        path = _fetched(AlexNet_Weights.IMAGENET1K_V1.url, places, download)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # the package calls torchvision by names that were given up
        network = package.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    try:
        _fill(network, torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError):
        raise OTCacheError(f'The backbone of "lpips" in {path} is damaged; delete it and get it again, {INSTEAD}.') from None
    return network


def _fill(network: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Copy AlexNet's convolutions; raises KeyError, RuntimeError or ValueError for other tensors."""
    with torch.no_grad():
        for part in network.net.children():
            for number, layer in part.named_children():
                for name, parameter in layer.named_parameters():
                    given = tensors[f"features.{number}.{name}"]
                    if given.shape != parameter.shape or not torch.isfinite(given).all():
                        raise ValueError("another network's")
                    parameter.copy_(given)


def _fetched(url: str, places: Sequence[Path], download: bool) -> Path:
    if not download:
        raise OTCacheError(
            f'The backbone of "lpips" is not here: allow its download (about 240 MB), or put {url} into {places[0]}, {INSTEAD}.'
        )
    path = places[0] / FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=DIGITS, progress=False)
    except (OSError, RuntimeError) as error:  # no network, a full disk, or another file than was asked for
        raise OTCacheError(
            f'The backbone of "lpips" could not be downloaded ({error}); put {url} into {path.parent}, {INSTEAD}.'
        ) from None
    return path
