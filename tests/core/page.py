"""A page, parsed as a browser would."""

import base64
import io
from html.parser import HTMLParser

from PIL import Image

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
