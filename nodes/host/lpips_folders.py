"""Where LPIPS's backbone may lie in a ComfyUI."""

from pathlib import Path

import folder_paths


def lpips_folders() -> list[Path]:
    """models/lpips, where it is downloaded to, and every folder that ComfyUI knows models in."""
    known = [Path(path) for paths, _ in folder_paths.folder_names_and_paths.values() for path in paths]
    return list(dict.fromkeys([Path(folder_paths.models_dir, "lpips"), *known]))
