"""The real ComfyUI in this process, for the benchmarks; found as the tests find it (tools/find_host.py)."""

import logging
import runpy
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def find_comfyui() -> Path:
    """Its folder; leaves with a hint when there is no ComfyUI."""
    finder = runpy.run_path(str(REPOSITORY / "tools" / "find_host.py"))
    path = finder["find_host"]()
    if path is None:
        sys.exit(finder["HINT"])
    return path


def boot_host(base: Path, cpu: bool = True):
    """The tests' `Host`, writing under `base`, on one thread; leaves with a hint when there is no ComfyUI.

    cpu: as for `in_process.boot`.
    """
    path = find_comfyui()
    sys.path.append(str(REPOSITORY / "tests" / "host"))
    from in_process import boot

    host = boot(path, REPOSITORY, base, cpu)
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    return host


def say(line: str = "") -> None:
    """Print at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
