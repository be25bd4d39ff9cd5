"""The report page, parsed as a browser would."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from otcache_core.errors import OTCacheError
from otcache_core.figures import png_bytes
from otcache_core.report import Figure, Grid, Section, Table, render, write_report

HOSTILE = "<script>alert(1)</script> \" onerror='x' & </style></table> \x00\x1b[31m \ud800 <img src=http://evil.example/x>"
ALLOWED = {
    "a", "body", "caption", "div", "figcaption", "figure", "footer", "h1", "h2", "head", "header", "html", "img", "main",
    "meta", "nav", "p", "section", "span", "style", "table", "tbody", "td", "th", "thead", "title", "tr",
}  # fmt: skip


class Page(HTMLParser):
    """Tags with their attributes, and all text, of a page."""

    VOID = {"meta", "img"}

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict]] = []
        self.words, self._open = "", []
        self.feed(html)
        self.close()
        assert not self._open, "every tag is closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.words += data

    def find(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def check_page(html: str) -> Page:
    """A page that is well formed, loads nothing, and describes all its pictures, which decode."""
    page = Page(html)
    assert {tag for tag, _ in page.tags} <= ALLOWED
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert "style" not in attributes
        if "href" in attributes:
            assert tag == "a" and attributes["href"].startswith("#")
            assert attributes["href"][1:] in [section["id"] for section in page.find("section")]
    for image in page.find("img"):
        kind, _, data = image["src"].partition(";base64,")
        assert kind in ("data:image/png", "data:image/jpeg") and image["alt"]
        Image.open(io.BytesIO(base64.b64decode(data, validate=True))).load()
    addresses = {name for _, attributes in page.tags for name in attributes} & {"href", "src", "srcset", "action", "data"}
    assert addresses <= {"href", "src"}
    assert "@import" not in html and "url(" not in html  # in the style sheet; base64 holds neither
    policy = next(meta["content"] for meta in page.find("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert len(page.find("caption")) == len(page.find("table"))
    return page


def picture(kind: str = "PNG") -> bytes:
    if kind == "PNG":
        return png_bytes(np.random.default_rng(0).random((8, 8, 3)))
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(data, kind)
    return data.getvalue()


def sections(words: str) -> list[Section]:
    figure = Figure(picture(), words, words)
    return [
        Section("Words " + words, [words, figure, Figure(picture("JPEG"), "a red square")]),
        Section("Tables", [Table(words, ["a", words], [[words, 1], ["x", words]], words=(1,))]),
        Section("Grids", [Grid(words, [words, "b"], [[figure, words], ["", figure]]), Grid("next", ["a"], [[figure]]), words]),
    ]


def test_page_is_whole_and_self_contained():
    page = check_page(render("Title", "lead", sections("plain words"), "end"))
    assert len(page.find("img")) == 5
    assert len(page.find("section")) == 3


def test_hostile_words_stay_words():
    page = check_page(render(HOSTILE, HOSTILE, sections(HOSTILE), HOSTILE))
    assert page.words.count("<script>alert(1)</script> \" onerror='x' &") >= 12
    assert not [c for c in page.words if not c.isprintable() and c != "\n"]
    assert len(page.find("img")) == 5


def test_numbers_and_words_of_tables_are_set_apart():
    page = check_page(render("t", "l", [Section("s", [Table("c", ["row", "words", "1"], [["a", "b", 2]], words=(1,))])]))
    assert [cell.get("class") for cell in page.find("td")] == ["left", None]
    assert page.find("th")[-1]["scope"] == "row"


def test_report_replaces_an_older_one(tmp_path):
    path = tmp_path / "out" / "report.html"
    write_report(path, "one", "", sections("x"))
    write_report(path, "two", "", sections("x"))
    assert "<title>two</title>" in path.read_text(encoding="utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_what_is_no_picture_is_named_and_nothing_is_written(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("older")
    with pytest.raises(OTCacheError, match="strips.*PNG"):
        write_report(path, "t", "", [Section("s", [Figure(b"<svg onload=x>", "strips")])])
    assert path.read_text() == "older" and len(list(tmp_path.iterdir())) == 1


def test_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OTCacheError, match="Cannot write"):
        write_report(tmp_path / "file" / "report.html", "t", "", [])
