"""Prints the folder of the ComfyUI that the host tests use.

Without one it says how to get one and exits with 1; with a wrong COMFYUI_PATH it exits with 2.
"""

import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CLONE = REPOSITORY / ".comfyui"  # what get_host.py makes
HINT = 'No ComfyUI was found: set COMFYUI_PATH to its folder, or run "make host" (without make: python -m tools.get_host).'


def find_host() -> Path | None:
    """COMFYUI_PATH, else comfy-cli's default place, else the ComfyUI in whose custom_nodes this repository lies, else `CLONE`.

    Raises FileNotFoundError when COMFYUI_PATH is set and holds none.
    """
    chosen = os.environ.get("COMFYUI_PATH")
    if chosen:
        if not is_host(Path(chosen)):
            raise FileNotFoundError(f"COMFYUI_PATH is {chosen}, but there is no ComfyUI (main.py and comfy/).")
        return Path(chosen).resolve()
    places = (Path.home() / "comfy" / "ComfyUI", REPOSITORY.parents[1], CLONE)
    return next((path for path in places if is_host(path)), None)


def is_host(path: Path) -> bool:
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
