"""The folder that a command writes its results into."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OTCacheError
from ..files import written_whole


@contextmanager
def output_folder(path: str | Path) -> Iterator[Callable[[dict[str, bytes]], None]]:
    """Check at once that `path` can be a folder and be written to, and yield a function that writes files into it.

    Files are given as relative name -> bytes and each is written whole, replacing what was there. A folder made here
    in which nothing was written is removed. Raises `OTCacheError`.
    """
    path = Path(path)
    made = [p for p in (path, *path.parents) if not p.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise OTCacheError(f"Cannot write to {path}: {error.strerror}; choose a folder that you may write to.") from None

    def write(files: dict[str, bytes]) -> None:
        for name, data in files.items():
            with written_whole(path / name) as temporary:
                temporary.write_bytes(data)

    try:
        yield write
    finally:
        for folder in made:
            if folder.exists() and not os.listdir(folder):
                folder.rmdir()
