"""What was learnt of models, on disk: one folder for each model, one small file for each lesson.

A lesson never rewrites another's file, so that two servers on one folder lose nothing; statistics are added when read.
"""

import hashlib
import logging
import re
import shutil
import uuid
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import folder_paths
import torch

from ...otcache_core.calibration.statistics import Origin, Statistics, load_statistics
from ...otcache_core.errors import OTCacheError
from ...otcache_core.schedules.schedule import Schedule, load_schedule
from .suitability import noise_kind
from .weight_samples import own_weights, weight_words

FOLDER = "otcache_schedules"  # in ComfyUI's models folder
LEARNED, SUFFIX = "learned", ".safetensors"  # LEARNED: the folder in it of what ordinary runs taught
MARK = 20  # hexadecimal digits of a key
ENOUGH = 8  # runs on one grid with one sampler and guidance: more of them change nothing

# By file: its state, and what lies in it, or why nothing does.
_read: dict[Path, tuple[tuple[int, int], Statistics | Schedule | str]] = {}


def model_key(patcher) -> str:
    """The name under which what is learnt of a ModelPatcher's model is kept: its class and a hash.

    Equal for equal configuration, kind of prediction and weights before patches, whatever LoRA, shift, device or wrapper is
    on it. A merge, whose patches are another model's weights, is another model. Weights are sampled where they lie, which
    takes milliseconds.
    """
    model, sampling = patcher.model, patcher.get_model_object("model_sampling")
    kinds = [cls.__name__ for cls in type(sampling).__mro__ if not cls.__name__.startswith("ModelSampling")]
    config = getattr(getattr(model, "model_config", None), "unet_config", None)
    words = [type(model).__name__, noise_kind(sampling), kinds, sorted(map(str, (config or {}).items()))]
    weights = {name: tensor for name, tensor in own_weights(patcher).items() if name.startswith("diffusion_model.")}
    words += [weight_words(weights), *merged_words(patcher)]
    mark = hashlib.sha256(repr(words).encode()).hexdigest()[:MARK]
    return f"{re.sub(r'[^A-Za-z0-9_-]', '', type(model).__name__)[:60]}-{mark}"


def merged_words(patcher) -> list:
    """What tells merges with other models apart: whose weights, and how strong; nothing where none was merged in."""
    shares, theirs = [], {}
    for name, patches in patcher.patches.items():
        for number, (share, value, own, *rest) in enumerate(patches):
            if isinstance(value, list) and isinstance(value[0][0], torch.Tensor):  # [(weight, ...), patches on it, ...]
                shares.append((name, number, share, own, *rest[:1]))
                theirs[name, number] = value[0][0]
    return [sorted(shares), weight_words(theirs)] if theirs else []


def folder(key: str) -> Path:
    """Where lessons about the model `key` are written."""
    return Path(folder_paths.get_folder_paths(FOLDER)[0], LEARNED, key)


def recall(key: str) -> list[Statistics]:
    """All that was learnt of the model `key`, lessons of one grid and origin added; files that are damaged are left out.

    Each of those is named once in the log.
    """
    found: list[Statistics] = []
    for path in sorted(folder(key).glob(f"[!.]*{SUFFIX}")):
        known = _load(path)
        same = next((i for i, other in enumerate(found) if known and other.fits(known)), None)
        if same is not None:
            found[same] += known
        elif known:
            found.append(known)
    return found


def titles() -> dict[str, tuple[str, Statistics]]:
    """All that was learnt, by what people are shown: (model key, statistics) of each grid, sampler and guidance."""
    root = folder("")
    found = {}
    for key in sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else ():
        for known in recall(key):
            if not known.taught:
                continue
            made = known.origin
            title = f"learnt: {key[: -MARK + 6]}, {made.sampler}, cfg {made.cfg:g}, {known.steps} steps"
            title += "" if known.bands == 2 else f", {known.bands} bands"  # not of a picture's latents
            start = f" from {known.sigmas[0]:.3g}" if any(title == other for other in found) else ""
            found.setdefault(title + start, (key, known))
    return found


def _load(path: Path, load: Callable = load_statistics):
    """What `load` reads from `path`, read again only when the file has changed; None when it is damaged or gone."""
    try:
        state = path.stat()
        mark = state.st_mtime_ns, state.st_size
    except OSError:  # another server has just removed it
        return None
    if path not in _read or _read[path][0] != mark:
        try:
            _read[path] = mark, load(path)
        except OTCacheError as error:
            logging.warning("OTCache: %s", error)
            _read[path] = mark, str(error)
    known = _read[path][1]
    return None if isinstance(known, str) else known


def remember(key: str, statistics: Statistics) -> None:
    """Keep a lesson about the model `key`; raises `OTCacheError` when it cannot be written."""
    statistics.save(folder(key) / f"{uuid.uuid4().hex}{SUFFIX}")


def remember_anchor(key: str, origin: Origin, anchor: Schedule) -> None:
    """Keep a calibrated anchor and the budgets that it carries; raises `OTCacheError` when it cannot be written."""
    anchor.save(folder(key) / f"{_anchor_name(origin)}{uuid.uuid4().hex}.json")


def recall_anchor(key: str, origin: Origin) -> Schedule | None:
    """The newest anchor calibrated at this guidance, or None."""
    for path in sorted(folder(key).glob(f"{_anchor_name(origin)}*.json"), key=lambda path: path.stat().st_mtime, reverse=True):
        if (anchor := _load(path, load_schedule)) is not None:
            return anchor
    return None


def _anchor_name(origin: Origin) -> str:
    return f"anchor-{origin.sampler}-cfg{origin.cfg:g}-"


@contextmanager
def kept_if_possible():
    """Say in the log, and no more, that something could not be kept."""
    try:
        yield
    except OTCacheError as error:
        logging.warning("OTCache: %s", error)


def forget(key: str) -> None:
    """Drop all that was learnt of the model `key`."""
    shutil.rmtree(folder(key), ignore_errors=True)
    for path in [path for path in _read if path.parent == folder(key)]:
        _read.pop(path, None)
