"""README, CONTRIBUTING and docs/ say what is there."""

import re
from pathlib import Path

import pytest

import otcache_core

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def links(page: Path) -> list[str]:
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text(page)) if "://" not in target]


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    titles = re.findall(r"^#+ (.+)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@every_page
def test_links_lead_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_the_front_page_is_short_and_leads_to_every_page_and_room():
    front = PAGES[0]
    assert len(text(front).splitlines()) < 120
    reached = {(front.parent / link).resolve() for link in links(front)}
    further = {(page.parent / link).resolve() for page in reached if page.suffix == ".md" for link in links(page)}
    assert {page for page in PAGES if page != front} <= reached | further
    rooms = {path.parent for path in (REPOSITORY / "otcache_core").glob("*/__init__.py")}
    assert rooms and rooms <= reached


@every_page
def test_what_is_said_to_be_in_a_file_is_there(page):
    said = re.findall(r"`([\w.]+)` (?:in|\()\s?(?:\[[^\]]+\]\(([^)]+)\)|`([^`]+\.\w+)`)", text(page))
    assert said or page.name not in ("README.md", "CONTRIBUTING.md")
    for name, link, plain in said:
        target = page.parent / link if link else REPOSITORY / plain
        for part in name.split("."):
            assert re.search(rf"^\s*((export )?(class|def) {part}\b|{part}\b.*=)", text(target), re.MULTILINE), (name, target)


@every_page
def test_commands_that_are_named_exist(page):
    goals = set(re.search(r"^\.PHONY: (.+)$", text(REPOSITORY / "Makefile"), re.MULTILINE)[1].split())
    for goal in re.findall(r"(?:^|`)make ([a-z-]+)", text(page), re.MULTILINE):
        assert goal in goals
    for path in re.findall(r"python (\w+/[\w/]+\.py)|(?:pytest |`)(tests/[\w/.]+)", text(page)):
        assert (REPOSITORY / "".join(path)).exists(), path
    for module in re.findall(r"python -m ((?:tools|otcache_core)[.\w]*)", text(page)):
        path = REPOSITORY / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_the_public_names_are_listed():
    table = text(REPOSITORY / "docs" / "library.md")
    rows = re.findall(r"^\| (`.+?`) \|", table, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(otcache_core.PUBLIC)
