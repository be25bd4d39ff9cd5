"""Tensors that lie in files instead of in memory, and memory that is given back."""

import ctypes
import tempfile
import weakref
from functools import cache
from itertools import count
from pathlib import Path

import torch

from ..errors import OTCacheError


class Files:
    """A temporary folder of tensors, which goes with the last of them."""

    def __init__(self):
        self._folder: tempfile.TemporaryDirectory | None = None
        self._numbers = count()

    def put(self, tensor: torch.Tensor) -> "Filed":
        """`tensor`, written to a file; raises `OTCacheError` where there is no room for it."""
        try:
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="otcache-", ignore_cleanup_errors=True)
            return Filed(tensor, Path(self._folder.name) / str(next(self._numbers)), self._folder)
        except OSError as error:
            why = error.strerror or error
            raise OTCacheError(f"Cannot write temporary files: {why}; free space, or set TMPDIR to another folder.") from None


class Filed:
    """A tensor in the file `path`, which is removed with this object; raises `OSError` when it cannot be written."""

    def __init__(self, tensor: torch.Tensor, path: Path, folder: tempfile.TemporaryDirectory):
        self.shape, self.dtype, self.device, self._path, self._folder = tensor.shape, tensor.dtype, tensor.device, path, folder
        self.nbytes = tensor.nbytes
        weakref.finalize(self, _remove, path)
        tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tofile(path)

    def read(self) -> torch.Tensor:
        """The tensor, mapped from the file where it belongs on the CPU."""
        data = torch.from_file(str(self._path), shared=False, size=self.nbytes, dtype=torch.uint8)
        return data.view(self.dtype).reshape(self.shape).to(self.device)


def fetched(tensor: torch.Tensor | Filed) -> torch.Tensor:
    """The tensor, wherever it lies."""
    return tensor.read() if isinstance(tensor, Filed) else tensor


def give_back() -> None:
    """Give back to the system what is freed and lies between what is not, where the allocator keeps it (glibc).

    It takes tensors of up to 32 MiB from one heap: latents of that size, which come and go, leave gaps of hundreds of MB in it.
    """
    _trim()(0)


@cache
def _trim():
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another allocator, or Windows
        return lambda _: 0


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # still mapped, on Windows: it goes with the folder
        pass
