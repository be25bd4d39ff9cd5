"""The folder of saved schedules, models/otcache_schedules, known to ComfyUI like any other model folder."""

import os
from pathlib import Path

import folder_paths

from ..otcache_core.errors import OTCacheError
from .host.learned import FOLDER, LEARNED

SUFFIX = ".json"
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}  # on Windows
_LONGEST = 100


def register_folder() -> None:
    """Add the folder under ComfyUI's models; paths that the user configured for it stay and come first."""
    paths, _ = folder_paths.folder_names_and_paths.get(FOLDER, ([], set()))
    own = os.path.join(folder_paths.models_dir, FOLDER)
    folder_paths.folder_names_and_paths[FOLDER] = (paths if own in paths else [*paths, own], {SUFFIX})


def saved_names() -> list[str]:
    """Files relative to the folder, as they are now; each ends in .json, which no preset's name does.

    What is kept there of learnt models is not among them.
    """
    names = [Path(name) for name in folder_paths.get_filename_list(FOLDER)]
    return [str(name) for name in names if not name.name.startswith(".") and name.parts[0] != LEARNED]


def saved_path(name: str) -> Path:
    """Where the saved schedule `name` lies; raises `OTCacheError` unless it is one of `saved_names`."""
    path = folder_paths.get_full_path(FOLDER, name) if name in saved_names() else None
    if path is None:
        raise OTCacheError(f'There is no saved schedule "{name[:_LONGEST]}"; refresh the nodes and choose one of the list.')
    return Path(path)


def shown_path(path: Path) -> str:
    """`path` as people know it, from ComfyUI's folder on: models/otcache_schedules/NAME; whole where it lies elsewhere."""
    base = Path(folder_paths.models_dir).parent
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)


def path_to_save(name: str) -> Path:
    """Where a schedule called `name` is to be written.

    Raises `OTCacheError` for a name that is no plain file name on every system: it must not lead out of the folder.
    """
    plain = name.strip().removesuffix(SUFFIX)
    good = (
        0 < len(plain) <= _LONGEST
        and all(c.isalnum() or c in " ._-()+,=@" for c in plain)
        and not plain.startswith(".")
        and not plain.endswith((".", " "))
        and plain.split(".")[0].strip().lower() not in _RESERVED
    )
    if not good:
        raise OTCacheError(
            f"{ascii(name[:_LONGEST])} cannot be a schedule's file name; use letters, digits, spaces and . _ - ( ), "
            f"at most {_LONGEST} of them, with a letter or digit in front."
        )
    return Path(folder_paths.get_folder_paths(FOLDER)[0], plain + SUFFIX)
