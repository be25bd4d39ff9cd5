"""One HTML file that opens anywhere: pictures inside it, no scripts, nothing loaded from elsewhere.

A report is sections of blocks: paragraphs, figures, tables and grids of pictures, which `html_page.html` lays out (in Jinja,
which torch brings). Every string is escaped, and the page forbids itself to load or run anything (Content-Security-Policy), so
a hostile prompt in it stays text.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ..errors import OTCacheError

HERE = Path(__file__).parent
KINDS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Figure:
    """A drawing: the bytes of a PNG or JPEG file, what it shows for those who cannot see it, and a caption."""

    data: bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under a head; the first cell of a row names it. Cells are text, or numbers already formatted.

    head: a title for each column, or nothing. words: the indices of columns that hold words, which are set flush left.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int] = ()


@dataclass(frozen=True)
class Grid:
    """Pictures in rows under column titles; a cell is a `Figure`, or text."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Figure | str]]


@dataclass(frozen=True)
class Section:
    """A titled part of the report; a plain string among the blocks is a paragraph, adjacent grids stand side by side."""

    title: str
    blocks: Sequence[str | Figure | Table | Grid]


def render(title: str, lead: str, sections: Sequence[Section], footer: str = "") -> str:
    """The page as text; raises `OTCacheError` when a picture is neither PNG nor JPEG."""
    page = Environment(loader=FileSystemLoader(HERE, encoding="utf-8"), autoescape=True, finalize=_printable)
    page.filters |= {"source": _source, "anchor": _anchor, "blocks": _blocks}
    page.tests |= {"picture": lambda block: isinstance(block, Figure), "numbers": lambda block: isinstance(block, Table)}
    style = Markup((HERE / "html_page.css").read_text(encoding="utf-8"))
    return page.get_template("html_page.html").render(
        title=title, lead=lead, sections=sections, footer=footer, policy=POLICY, style=style
    )


def _printable(value: object) -> object:
    """What is put into the page: control characters and lone surrogates, which it may not hold, become spaces."""
    if isinstance(value, Markup):
        return value
    return "".join(c if c.isprintable() or c == "\n" else " " for c in str(value))


def _source(figure: Figure) -> str:
    """The picture as an address."""
    kind = next((kind for magic, kind in KINDS.items() if figure.data.startswith(magic)), None)
    if kind is None:
        raise OTCacheError(f'The picture "{figure.alt[:80]}" is neither PNG nor JPEG; convert it before reporting it.')
    return f"data:{kind};base64,{base64.b64encode(figure.data).decode()}"


def _anchor(title: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in title.lower())


def _blocks(section: Section) -> list[str | Figure | Table | list[Grid]]:
    """Its blocks, grids that stand side by side as one."""
    runs = [(is_grid, list(run)) for is_grid, run in groupby(section.blocks, lambda block: isinstance(block, Grid))]
    return [block for is_grid, run in runs for block in ([run] if is_grid else run)]
