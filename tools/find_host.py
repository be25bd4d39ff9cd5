"""Prints the folder of the ComfyUI that the host tests use.

Without one it says how to get one and exits with 1; with a wrong COMFYUI_PATH it exits with 2.
"""

import os
import sys
from pathlib import Path

HINT = (
    "No ComfyUI was found. Set COMFYUI_PATH to its folder, or get one where it is looked for (~/comfy/ComfyUI):\n"
    "    pip install comfy-cli && comfy --skip-prompt install --cpu"
)


def find_host() -> Path | None:
    """COMFYUI_PATH, else comfy-cli's default place, else the ComfyUI in whose custom_nodes this repository lies.

    Raises FileNotFoundError when COMFYUI_PATH is set and holds none.
    """
    chosen = os.environ.get("COMFYUI_PATH")
    if chosen:
        if not _is_host(Path(chosen)):
            raise FileNotFoundError(f"COMFYUI_PATH is {chosen}, but there is no ComfyUI (main.py and comfy/).")
        return Path(chosen).resolve()
    repository = Path(__file__).resolve().parents[1]
    return next((path for path in (Path.home() / "comfy" / "ComfyUI", repository.parents[1]) if _is_host(path)), None)


def _is_host(path: Path) -> bool:
    return (path / "main.py").is_file() and (path / "comfy").is_dir()


if __name__ == "__main__":
    try:
        found = find_host()
    except FileNotFoundError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    if found is None:
        sys.exit(HINT)
    sys.stdout.write(f"{found}\n")
