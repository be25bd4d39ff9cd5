"""The files that `comfy node pack` puts into the registry's zip."""

import shutil
import subprocess
from pathlib import Path


def packed_files(repository: Path) -> list[str]:
    """Relative paths: what git tracks without what .comfyignore names, as comfy-cli does it.

    New files count as tracked already, so that a test notices what they do before they are committed.
    """
    known = _git_files(repository, "--cached", "--others", "--exclude-standard", "--exclude-from=.comfyignore")
    left_out = _git_files(repository, "--cached", "--ignored", "--exclude-from=.comfyignore")
    return sorted(name for name in known - left_out if (repository / name).is_file())


def unpacked(repository: Path, folder: Path) -> Path:
    """A new folder that holds what a person has who installed the zip."""
    for name in packed_files(repository):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(repository / name, folder / name)
    return folder


def _git_files(repository: Path, *options: str) -> set[str]:
    command = ["git", "-C", str(repository), "ls-files", "-z", *options]
    listed = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout
    return set(filter(None, listed.split("\0")))
