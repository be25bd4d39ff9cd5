"""What workers of one calibration share: a log in a storage that machines reach together, and a folder of full runs."""

import os
from collections.abc import Sequence
from pathlib import Path

from .full_runs import Progress
from .places import Place, find_place
from .same_model import digest
from .settings import Settings
from .shared_log import SharedLog
from .storages import GRPC, JOURNAL

FOLDER = "OTCACHE_RECORDINGS"  # the environment variable that names the folder; a workflow must not
WAITING = "waiting for another worker"


def is_shared(storage: str | Place | None) -> bool:
    """Whether a storage is meant for several machines: a server or a journal, not memory or an SQLite file."""
    url = find_place(storage).url or ""
    return url.startswith((JOURNAL, GRPC)) or ("://" in url and not url.startswith("sqlite"))


def shared_log(settings: Settings, cases: Sequence, sigmas, metric: str, progress: Progress | None = None) -> SharedLog | None:
    """The log of one calibration's parts, judged by `metric`; None where `settings` name no shared storage or no identity.

    Without an identity nothing would tell another model's parts before anything is recorded. `progress` is told again where
    it stands while the worker waits. Raises `OTCacheError` for a storage that cannot be opened.
    """
    if not (settings.identity and is_shared(settings.storage)):
        return None
    told = [[float(sigma) for sigma in sigmas], [str(case) for case in cases], metric, settings.model, settings.identity]
    log = SharedLog(find_place(settings.storage), f"otcache-parts-{digest(told)}")
    if isinstance(progress, Told):
        log.waiting = progress.again
    return log


def shared_folder(storage: str | Place | None, name: str) -> Path | None:
    """Where full runs lie that workers share: in the folder that OTCACHE_RECORDINGS names, else beside a journal, else nowhere.

    name: tells them from those of other models and cases.
    """
    if not is_shared(storage):
        return None
    if folder := os.environ.get(FOLDER, "").strip():
        return Path(folder, name)
    url = find_place(storage).url
    return Path(f"{url.removeprefix(JOURNAL)}.recordings", name) if url.startswith(JOURNAL) else None


class Told:
    """A `Progress` that can be told again what it was told last, with a note that this worker waits."""

    def __init__(self, progress: Progress):
        self._progress, self._last = progress, ("", 0, 1)

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        self._last = stage, done, total
        self._progress(stage, done, total, note)

    def again(self) -> None:
        if self._last[0]:
            self._progress(*self._last, WAITING)
