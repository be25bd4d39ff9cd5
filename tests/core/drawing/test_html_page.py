"""The report page, parsed as a browser would."""

import io
import re

import numpy as np
import pytest
from page import check_page
from PIL import Image

from otcache_core.drawing.html_page import Figure, Grid, Section, Table, render
from otcache_core.drawing.style import png_bytes
from otcache_core.errors import OTCacheError

HOSTILE = "<script>alert(1)</script> \" onerror='x' & </style></table> \x00\x1b[31m \ud800 <img src=http://evil.example/x>"


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


def test_numbers_of_tables_are_not_broken_between_lines():
    page = render("t", "l", [Section("s", [Table("c", ["row", "dB"], [["a", "57.5 (51.2)"]])])])
    [rule] = re.findall(r"^\.scroll td:not\(\.left\) \{(.*)\}$", page, re.MULTILINE)
    assert "nowrap" in rule and "scroll" in page.partition("</style>")[2]


def test_what_is_no_picture_is_named():
    with pytest.raises(OTCacheError, match="strips.*PNG"):
        render("t", "", [Section("s", [Figure(b"<svg onload=x>", "strips")])])
