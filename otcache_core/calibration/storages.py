"""Opening what Optuna keeps trials in: memory, SQLite, PostgreSQL, MySQL, a journal on a shared disk, or a gRPC proxy."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OTCacheError
from .places import Place, find_place

if TYPE_CHECKING:
    import optuna

SECONDS = 10  # until a server that does not answer is given up
BUSY_SECONDS = 60  # until an SQLite file that other workers write to is given up
ATTEMPTS = 5  # two workers that begin at the same moment both make the tables, and one of them fails
JOURNAL, GRPC = "journal:", "grpc://"
# What to install where a module is missing; SQLAlchemy names modules, pip packages.
PACKAGES = {
    "psycopg": '"psycopg[binary]"', "psycopg2": "psycopg2-binary", "pymysql": "pymysql", "MySQLdb": "mysqlclient",
    "grpc": "grpcio protobuf", "google": "grpcio protobuf",
}  # fmt: skip


def open_storage(storage: str | Place | None) -> "optuna.storages.BaseStorage":
    """An Optuna storage from a name (see `find_place`), a URL, `journal:` and a path, a path of SQLite's, or None for memory.

    Raises `OTCacheError`, one sentence without a password, if it cannot be opened. A database that another program or another
    version of Optuna made is left as it is.
    """
    optuna, place = import_optuna(), find_place(storage)
    if place.url is None:
        return optuna.storages.InMemoryStorage()
    with opening(place):
        if not place.url.strip():
            raise ValueError("the path is empty")
        if place.url.startswith(JOURNAL):
            return _journal(place.url.removeprefix(JOURNAL))
        return _grpc(place.url) if place.url.startswith(GRPC) else _database(place.url)


def _database(address: str) -> "optuna.storages.RDBStorage":
    from sqlalchemy import URL, exc, make_url

    # A path is rendered by SQLAlchemy, since "?" and "%" mean something in a URL.
    url = make_url(address) if "://" in address else URL.create("sqlite", database=address)
    file = url.database if url.get_backend_name() == "sqlite" else None
    for attempt in range(ATTEMPTS):
        try:
            return _tables(url, file)
        except (exc.DatabaseError, import_optuna().exceptions.StorageInternalError):
            if attempt == ATTEMPTS - 1 or file and not Path(file).exists():
                raise
            if not _begun(url):
                raise
    raise AssertionError  # the last attempt returned or raised


def _options(url) -> dict:
    """SQLAlchemy's, so that no worker waits for ever or fails since its connection was idle during an evaluation."""
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": BUSY_SECONDS}}
    limit = {} if "connect_timeout" in url.query else {"connect_args": {"connect_timeout": SECONDS}}
    return {"pool_pre_ping": True} | (limit if url.get_backend_name() in ("postgresql", "mysql", "mariadb") else {})


def _tables(url, file: str | None) -> "optuna.storages.RDBStorage":
    storages = import_optuna().storages
    address = url.render_as_string(hide_password=False)
    there = _names_of_tables(url) if file is None or Path(file).exists() else set()
    if {"version_info", "alembic_version"} <= there:
        # Looked at before anything is written: Optuna adds its tables to any database.
        found = storages.RDBStorage(address, _options(url), skip_table_creation=True, skip_compatibility_check=True)
        if found.get_current_version() != found.get_head_version():
            older = found.get_current_version() in found.get_all_versions()
            raise ValueError(
                "it was made by another version of Optuna; "
                + ("upgrade it with Optuna's storage upgrade" if older else "update Optuna here")
            )
        return found
    if there and file is not None and "studies" not in there:
        raise ValueError("it is another program's database")
    return storages.RDBStorage(address, _options(url))


def _names_of_tables(url) -> set[str]:
    from sqlalchemy import create_engine, inspect

    engine = create_engine(url, **_options(url))
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def _begun(url) -> bool:
    """Whether somebody has begun to make Optuna's tables there."""
    from sqlalchemy import exc

    try:
        return "studies" in _names_of_tables(url)
    except exc.SQLAlchemyError:
        return False


def _journal(path: str) -> "optuna.storages.JournalStorage":
    storages = import_optuna().storages
    if not path.strip():
        raise ValueError("the path is empty")
    # Symbolic links work on older network disks too; Windows allows them to administrators only.
    kind = storages.journal.JournalFileOpenLock if os.name == "nt" else storages.journal.JournalFileSymlinkLock
    lock = kind(path)
    whole = _WholeLines(path, lock)
    found = storages.JournalStorage(storages.journal.JournalFileBackend(path, lock_obj=whole))
    if _half_line(path):
        whole.acquire()
        lock.release()
    return found


class _WholeLines:
    """A lock of a journal that, once it is held, cuts off what a killed worker began to write.

    Others would glue their next line to it, and nobody could read the file any more.
    """

    def __init__(self, path: str, lock):
        self._path, self._lock, self.release = path, lock, lock.release

    def acquire(self) -> bool:
        self._lock.acquire()
        try:
            if half := _half_line(self._path):
                os.truncate(self._path, Path(self._path).stat().st_size - half)
        except BaseException:
            self._lock.release()
            raise
        return True


def _half_line(path: str) -> int:
    """Bytes after the last whole line; raises ValueError when the file is no journal."""
    begin = b'{"op_code":'
    with open(path, "rb") as file:
        first = file.read(len(begin))
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        # Every writer looks: mostly the last byte tells.
        file.seek(end if file.read() == b"\n" else max(end - 2**20, 0))
        tail = file.read().rpartition(b"\n")[2]
    # Optuna itself would take a file of one line, whatever it is, and write after it.
    if any(part[: len(begin)] != begin[: len(part)] for part in (first, tail)):
        raise ValueError("it is no journal of Optuna's")
    return len(tail)


def _grpc(address: str) -> "optuna.storages.GrpcStorageProxy":
    from urllib.parse import urlsplit

    parts = urlsplit(address)
    if not parts.hostname or not parts.port or parts.path.strip("/"):
        raise ValueError("it must be grpc://host:port")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    found = import_optuna().storages.GrpcStorageProxy(host=host, port=parts.port)
    found.wait_server_ready(timeout=SECONDS)
    return found


@contextmanager
def opening(place: Place) -> Iterator[None]:
    """Turn what SQLAlchemy, gRPC and drivers raise, a zoo of types, into `OTCacheError`."""
    try:
        yield
    except Exception as error:
        command = _command(error)
        if command:
            raise OTCacheError(f"The storage {place.name} needs a package: run {command} in the same environment.") from None
        server = place.url is not None and "://" in place.url and not place.url.startswith("sqlite")
        raise OTCacheError(
            f"The storage {place.name} cannot be opened ({_reason(error, place)}); "
            + ("check the address and that its server runs" if server else "give the path of a new file in an existing folder")
            + ", or give another that you may write to."
        ) from None


@contextmanager
def kept(storage: str | Place | None) -> Iterator[None]:
    """Turn what the storage raises while a search runs into `OTCacheError`; what the search itself raises is left alone."""
    try:
        yield
    except Exception as error:
        cause = None if isinstance(error, OTCacheError) else _of_storage(error)
        if cause is None:
            raise
        place = find_place(storage)
        raise OTCacheError(
            f"The storage {place.name} failed ({_reason(cause, place)}); what was tried before is kept there, so mend it and "
            "start again."
        ) from None


def _of_storage(error: BaseException | None) -> BaseException | None:
    """What a storage raised that led to `error`, or None: no objective is ever called from within a storage."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            if str(trace.tb_frame.f_globals.get("__name__")).startswith("optuna.storages"):
                return error
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    return None


def _reason(error: BaseException, place: Place) -> str:
    cause = error.__cause__ or error
    # Of SQLAlchemy's the driver's own words, without the statement and its numbers.
    cause = getattr(cause, "orig", None) or cause
    details = getattr(cause, "details", None)  # of gRPC's
    text = details() if callable(details) else str(cause) or str(error) or type(error).__name__
    return place.without_secrets(text.strip().split("\n")[0])[:300].rstrip(".")


def _command(error: BaseException | None) -> str | None:
    """The command that installs the driver that is missing, if one is."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            name = error.name.partition(".")[0]
            package = PACKAGES.get(name, name)
            return f"'pip install {package}'" if '"' in package else f'"pip install {package}"'
        error = error.__cause__
    return None


def import_optuna():
    """Optuna, imported only when a search begins; raises `OTCacheError` with the command that installs it."""
    try:
        import optuna
    except ImportError:
        raise OTCacheError('The anchor search needs Optuna: run "pip install optuna" in the same environment.') from None
    for category in (optuna.exceptions.ExperimentalWarning, FutureWarning):
        warnings.filterwarnings(
            "ignore", category=category, module=r"(.*\.)?otcache_core\.calibration\.(search|study|storages)|optuna"
        )
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it logs a traceback when a trial is interrupted
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return optuna
