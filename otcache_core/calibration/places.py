"""Where trials are kept, told without its secret: names that stand for database URLs, and URLs that can be shown.

A database URL may carry a password, and what stands in a node is saved in every workflow and picture. So it can be named
instead: `env:OTCACHE_STORAGE` is an environment variable, `file:name.txt` the first line of a file in a folder of ours.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import OTCacheError

VARIABLE = re.compile(r"OTCACHE_[A-Z0-9_]{1,100}")
"""Environment variables that may be named: a stranger's workflow must not make us read any other."""

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
LONGEST = 4096  # characters of a URL
HIDDEN = "***"
_SECRET = re.compile(r"pass|pwd|secret|token|key", re.IGNORECASE)  # in names of a URL's options
_OPTION = re.compile(rf"([?&][^=&\s]*(?:{_SECRET.pattern})[^=&\s]*=)([^&\s]*)", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where trials are kept. name: what may be shown of it; url: a URL, a path, or None for memory, never to be shown."""

    name: str = "memory"
    url: str | None = field(default=None, repr=False)

    def without_secrets(self, text: str) -> str:
        """`text`, such as an exception's, without this place's secrets, and on one line.

        What is said of a URL that cannot be read may quote any part of it, so that nothing is left.
        """
        if self.url and "://" in self.url and _parsed(self.url) is None:
            return "it is no URL that can be read"
        for secret in sorted(secrets(self.url or ""), key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        if self.url and self.url != self.name:
            text = text.replace(self.url, self.name)
        return without_passwords(" ".join(text.split()))


def find_place(storage: "str | Place | None", folder: str | Path = "") -> Place:
    """What `storage` names: itself, the variable of `env:...`, or the file in `folder` of `file:...`.

    Raises `OTCacheError`, in whose words no secret is, for a name that is not allowed or leads to nothing.
    """
    if storage is None:
        return Place()
    if isinstance(storage, Place):
        return storage
    kind, _, name = storage.strip().partition(":")
    if kind == "env":
        return Place(f"env:{_short(name)}", _of_variable(name))
    if kind == "file":
        return Place(f"file:{_short(name)}", _of_file(name, Path(folder)))
    return Place(without_passwords(shown(storage)), storage)


def shown(url: str) -> str:
    """`url` without its secrets; a path as it is."""
    for secret in sorted(secrets(url), key=len, reverse=True):
        url = url.replace(secret, HIDDEN)
    return url


def has_password(storage: str) -> bool:
    """Whether this is a URL that has a secret in it."""
    return bool(secrets(storage)) or without_passwords(storage) != storage


def secrets(url: str) -> set[str]:
    """The parts of a URL that must not be shown, as they stand in it and as they are meant; none for a path."""
    if "://" not in url:
        return set()
    parsed = _parsed(url)
    if parsed is None:
        return {url.split("://", 1)[1]} - {""}
    found = {parsed.password or ""}
    for name, value in parsed.query.items():
        if _SECRET.search(name):
            found |= {value} if isinstance(value, str) else set(value)
    # As they stand in the text too: "%40" is "@".
    found |= {match[2] for match in _OPTION.finditer(url)}
    for match in re.finditer(r"://[^/?#]*?:([^/?#]*)@", url):
        found.add(match[1])
        parts = re.split("[@:]", match[1])  # a bare "@" makes drivers take the rest of the password for a host or a port
        found |= {part for part in parts if len(part) > 3} if len(parts) > 1 else set()
    return found - {""}


def _parsed(url: str):
    """SQLAlchemy's URL, or None for what it cannot read."""
    from sqlalchemy import make_url  # Optuna's own dependency

    try:
        return make_url(url)
    except Exception:  # of many types
        return None


def without_passwords(text: str) -> str:
    """`text` with the password of every URL in it hidden, whatever characters it is of."""
    return _OPTION.sub(rf"\1{HIDDEN}", re.sub(r"(://[^\s:/@]*):\S*@", rf"\1:{HIDDEN}@", text))


def _of_variable(name: str) -> str:
    if not VARIABLE.fullmatch(name):
        raise OTCacheError(
            f'"env:{_short(name)}" is not allowed: name an environment variable that begins with OTCACHE_, such as '
            "env:OTCACHE_STORAGE."
        )
    url = os.environ.get(name, "").strip()
    if not url:
        raise OTCacheError(f"The environment variable {name} is not set; set it to a database URL and start again.")
    return url


def _of_file(name: str, folder: Path) -> str:
    if not FILE_NAME.fullmatch(name):
        raise OTCacheError(
            f'"file:{_short(name)}" is not allowed: give the plain name of a file in {folder.absolute()}, without a folder.'
        )
    path = folder / name
    try:
        if path.resolve().parent != folder.resolve():
            raise OTCacheError(f'"file:{name}" is not allowed: it leads out of {folder.absolute()}; put the file itself there.')
        with path.open(encoding="utf-8") as file:
            url = file.readline(LONGEST + 1).strip()
    except OSError as error:
        raise OTCacheError(f"Cannot read {path.absolute()}: {error.strerror}; write the database URL into it.") from None
    except UnicodeDecodeError:
        url = ""
    if not url or len(url) > LONGEST or not url.isprintable():
        raise OTCacheError(f"{path.absolute()} does not begin with a database URL; write one into its first line.")
    return url


def _short(name: str) -> str:
    return ascii(name[:100])[1:-1]
