"""The files that `comfy node pack` puts into the registry's zip."""

import shutil
import subprocess
import tempfile
from pathlib import Path


def packed_files(repository: Path) -> list[str]:
    """Relative paths: what git tracks, without what .comfyignore names, as comfy-cli does it.

    So a new file counts once it is added ("git add"), and what else lies in the folder does not. A folder that is no
    repository, such as an unpacked zip of the source, has all its files packed but those that .gitignore names.
    """
    if (repository / ".git").exists():
        known = _git_files(repository, "--cached")
        left_out = _git_files(repository, "--cached", "--ignored", "--exclude-from=.comfyignore")
        return sorted(name for name in known - left_out if (repository / name).is_file())
    with tempfile.TemporaryDirectory() as folder:
        git_dir = f"--git-dir={folder}/git"
        subprocess.run(["git", "init", "--quiet", "--bare", f"{folder}/git"], check=True)
        others = ("--others", "--exclude-standard", "--exclude-from=.comfyignore")
        return sorted(_git_files(repository, *others, of=(git_dir, "--work-tree=.")))


def unpacked(repository: Path, folder: Path) -> Path:
    """A new folder that holds what a person has who installed the zip."""
    for name in packed_files(repository):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(repository / name, folder / name)
    return folder


def _git_files(repository: Path, *options: str, of: tuple[str, ...] = ()) -> set[str]:
    command = ["git", "-C", str(repository), *of, "ls-files", "-z", *options]
    listed = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout
    return set(filter(None, listed.split("\0")))
