"""Clones the ComfyUI that the nodes' tests are known to pass with into .comfyui, unless find_host.py finds one already.

Run: python -m tools.get_host, which needs git. Exits with 1 and one line when it cannot be had, with 2 when COMFYUI_PATH is
wrong. COMFYUI_URL and COMFYUI_TAG choose another repository and tag.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .find_host import CLONE, find_host, is_host

URL = "https://github.com/Comfy-Org/ComfyUI"
TAG = "v0.33.0"
ANSWER, WHOLE = 20, 600  # seconds that the repository may take to answer, and the clone to arrive


class NotCloned(Exception):
    """Says why in one line."""


def clone(url: str, tag: str, target: Path, answer: float = ANSWER, whole: float = WHOLE) -> None:
    """The files of `tag` as a shallow clone in `target`, which appears when all of it is there.

    A clone that was cut off leaves `target` as it was. Raises `NotCloned`.
    """
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        git("ls-remote", "--exit-code", "--tags", url, tag, limit=answer)
        git("clone", "--quiet", "--depth", "1", "--branch", tag, url, str(part), limit=whole)
        if not is_host(part):
            raise NotCloned("it holds no ComfyUI (main.py and comfy/)")
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    except NotCloned as error:
        raise NotCloned(f"ComfyUI {tag} could not be cloned from {url}: {error}.") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def git(*arguments: str, limit: float) -> None:
    """Run git without ever asking for a password; raises `NotCloned` when it fails or takes more than `limit` seconds."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        quiet = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
        try:
            process = subprocess.Popen(
                ["git", "-c", "advice.detachedHead=false", *arguments],
                env=quiet, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said,
            )  # fmt: skip
        except FileNotFoundError:
            raise NotCloned("there is no git") from None
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            raise NotCloned(f"git {arguments[0]} took more than {limit:g} seconds") from None
        finally:
            process.terminate()  # git ends its own helpers then
            process.wait()
        if status:
            said.seek(0)
            reasons = [line for line in said.read().splitlines() if line.startswith("fatal: ")]
            raise NotCloned(reasons[0].removeprefix("fatal: ").rstrip(".") if reasons else "there is no such tag")


def main() -> int:
    try:
        found = find_host()
    except FileNotFoundError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if found:
        sys.stderr.write(f"ComfyUI is in {found}.\n")
        return 0
    url, tag = os.environ.get("COMFYUI_URL") or URL, os.environ.get("COMFYUI_TAG") or TAG
    sys.stderr.write(f"No ComfyUI was found. Cloning {tag} of {url} into {CLONE} ...\n")
    try:
        clone(url, tag, CLONE)
    except NotCloned as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
