"""What a long calibration has measured so far, kept in a file, so that an interrupted one goes on where it stopped."""

import json
from collections.abc import Hashable
from pathlib import Path

from ..errors import OTCacheError
from .same_model import RUNS, Signature, name_of_model


class MeasurementLog:
    """Measurements by key, one JSON line each, appended as they are made.

    Several processes may share a file; each knows what lay in it when it began, and what it measured itself, so that it is no
    way to divide work (`SharedLog` is). A line that is damaged, as the last one of a killed process may be, is measured again.
    `path` None keeps everything in memory only. Raises `OTCacheError` when the file cannot be written.
    """

    shared = False

    def __init__(self, path: str | Path | None = None):
        self._path = None if path is None else Path(path)
        self._known: dict[Hashable, object] = {}
        self._failed: dict[Hashable, Exception] = {}
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a+b") as file:
                file.seek(0)
                data = file.read()
                if data and not data.endswith(b"\n"):  # so that the next line is not glued to a damaged one
                    file.write(b"\n")
        except OSError as error:
            raise self._unusable(error) from None
        for line in data.splitlines():
            try:
                key, value = json.loads(line)
                self._known[frozen(key)] = value
            except (ValueError, TypeError, RecursionError):
                continue

    def get(self, key):
        """What was measured for `key`, as JSON gives it back, or None; raises the error of one that `failed` here."""
        if (error := self._failed.get(frozen(key))) is not None:
            raise error
        return self._known.get(frozen(key))

    def knows(self, key) -> bool:
        """Whether `key` has been measured, or failed."""
        return frozen(key) in self._known or frozen(key) in self._failed

    def failed(self, key, error: Exception) -> None:
        """Remember, in memory only, that measuring `key` ended with `error`."""
        self._failed[frozen(key)] = type(error)(str(error))  # without its traceback, which would hold tensors

    def put(self, key, value) -> None:
        """Remember `value`, anything that JSON can hold."""
        self._known[frozen(key)] = value
        if self._path is not None:
            try:
                # One write in append mode, unbuffered: lines of two processes do not run into each other.
                with self._path.open("ab", buffering=0) as file:
                    file.write(json.dumps([key, value]).encode("ascii") + b"\n")
            except OSError as error:
                raise self._unusable(error) from None

    def release(self, keys) -> None:
        """Nothing is held: what is to be measured is this process's."""

    def _unusable(self, error: OSError) -> OTCacheError:
        reason = error.strerror or error
        return OTCacheError(f"Cannot write {self._path}: {reason}; free space or choose a folder that you may write to.")


def frozen(key) -> Hashable:
    """A key as dictionaries take it: tuples in place of lists."""
    return tuple(map(frozen, key)) if isinstance(key, (list, tuple)) else key


def model_log(folder: str | Path, name: str, runs: Signature) -> MeasurementLog:
    """The log in `folder` called `name` and something, of the model whose full runs these are; a new one if there is none.

    Raises `OTCacheError` when it cannot be written.
    """
    known = ((path.stem, _first(path)) for path in sorted(Path(folder).glob(f"{name}-*.jsonl")))
    log = MeasurementLog(Path(folder) / f"{name_of_model(name, runs, known)}.jsonl")
    if log.get(RUNS) is None:
        log.put(RUNS, runs)
    return log


def _first(path: Path):
    """The signature in a log's first line, or None."""
    try:
        with path.open("rb") as file:
            key, value = json.loads(file.readline())
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return value if key == RUNS else None
