"""One HTML file that opens anywhere: pictures inside it, no scripts, nothing loaded from elsewhere.

A report is sections of blocks: paragraphs, figures, tables and grids of pictures. Every string is escaped, and the page
forbids itself to load or run anything (Content-Security-Policy), so a hostile prompt in it stays text.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import OTCacheError

STYLE = Path(__file__).with_name("html_page.css")
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
    body = "\n".join(_section(section) for section in sections)
    links = "".join(f'<a href="#{_anchor(s.title)}">{text(s.title)}</a>' for s in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(title)}</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<header><h1>{text(title)}</h1><p class="lead">{text(lead)}</p><nav>{links}</nav></header>
<main>
{body}
</main>
<footer>{text(footer)}</footer>
</body>
</html>
"""


def text(value: object) -> str:
    """`value` escaped for HTML; control characters and lone surrogates, which no page may hold, become spaces."""
    clean = "".join(c if c.isprintable() or c == "\n" else " " for c in str(value))
    return html.escape(clean, quote=True)


def _anchor(title: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in title.lower())


def _section(section: Section) -> str:
    parts, grids = [], []
    for block in section.blocks:
        if isinstance(block, Grid):
            grids.append(_grid(block))
            continue
        parts += _beside(grids)
        grids = []
        render_block = {Figure: _figure, Table: _table}.get(type(block), lambda paragraph: f"<p>{text(paragraph)}</p>")
        parts.append(render_block(block))
    parts += _beside(grids)
    inner = "\n".join(parts)
    return f'<section id="{_anchor(section.title)}">\n<h2>{text(section.title)}</h2>\n{inner}\n</section>'


def _beside(grids: list[str]) -> list[str]:
    return ['<div class="grids">\n' + "\n".join(grids) + "\n</div>"] if grids else []


def _image(figure: Figure) -> str:
    kind = next((kind for magic, kind in KINDS.items() if figure.data.startswith(magic)), None)
    if kind is None:
        raise OTCacheError(f'The picture "{figure.alt[:80]}" is neither PNG nor JPEG; convert it before reporting it.')
    return f'<img alt="{text(figure.alt)}" src="data:{kind};base64,{base64.b64encode(figure.data).decode()}">'


def _figure(figure: Figure) -> str:
    caption = f"<figcaption>{text(figure.caption)}</figcaption>" if figure.caption else ""
    return f'<figure><div class="card" tabindex="0">{_image(figure)}</div>{caption}</figure>'


def _head(cells: Sequence[str], words: Sequence[int] = ()) -> str:
    if not any(cells):
        return ""
    titles = "".join(f'<th scope="col"{_flush(i, words)}>{text(cell)}</th>' for i, cell in enumerate(cells))
    return f"<thead><tr>{titles}</tr></thead>"


def _flush(column: int, words: Sequence[int]) -> str:
    return ' class="left"' if column in words else ""


def _table(table: Table) -> str:
    rows = []
    for first, *rest in table.rows:
        cells = "".join(f"<td{_flush(i, table.words)}>{text(cell)}</td>" for i, cell in enumerate(rest, 1))
        rows.append(f'<tr><th scope="row">{text(first)}</th>{cells}</tr>')
    body = "\n".join(rows)
    caption = text(table.caption)
    # A table that is wider than the screen scrolls by itself, and can be reached with the keyboard.
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table>'
        f"<caption><span>{caption}</span></caption>{_head(table.head, table.words)}<tbody>\n{body}\n</tbody></table></div>"
    )


def _grid(grid: Grid) -> str:
    rows = []
    for row in grid.rows:
        cells = []
        for cell in row:
            if isinstance(cell, Figure):
                caption = f"<span>{text(cell.caption)}</span>" if cell.caption else ""
                cells.append(f"<td>{_image(cell)}{caption}</td>")
            else:
                cells.append(f'<td class="words">{text(cell)}</td>')
        rows.append("<tr>" + "".join(cells) + "</tr>")
    body = "\n".join(rows)
    return f'<table class="grid"><caption>{text(grid.caption)}</caption>{_head(grid.head)}<tbody>\n{body}\n</tbody></table>'
