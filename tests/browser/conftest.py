"""Chromium in front of the real server and frontend. Without one of them every test here is skipped, and says so loudly.

OTCACHE_BROWSER: the browser's executable, if it is not on the path. OTCACHE_SCREENSHOTS: a folder for the screenshots.
"""

import importlib.util
import os
import runpy
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
_finder = runpy.run_path(str(REPOSITORY / "tools" / "find_host.py"))
HOST = _finder["find_host"]()
CHROMIUM = os.environ.get("OTCACHE_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
MISSING = [
    hint
    for found, hint in (
        (HOST, "ComfyUI (set COMFYUI_PATH)"),
        (CHROMIUM, "Chromium (apt-get install chromium fonts-dejavu-core)"),
        (importlib.util.find_spec("playwright"), "Playwright (pip install playwright)"),
    )
    if not found
]

sys.path.append(str(REPOSITORY / "tests" / "host"))


def pytest_collection_modifyitems(config, items):
    if MISSING and os.environ.get("OTCACHE_REQUIRE_BROWSER") == "1":
        raise pytest.UsageError(f"browser tests need {', '.join(MISSING)}")
    for item in items:
        if MISSING and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=f"not found: {', '.join(MISSING)}"))


def pytest_terminal_summary(terminalreporter):
    if MISSING:
        for line in ("", "!!!!!!!!!!", f"NO BROWSER TEST WAS RUN. NOT FOUND: {', '.join(MISSING)}", "!!!!!!!!!!"):
            terminalreporter.write_line(line, red=True, bold=True)


@pytest.fixture(scope="session")
def server():
    """One server for all tests, so that the demo is calibrated once. It has the test pack tiny_clip as well."""
    from serving import Server

    with tempfile.TemporaryDirectory() as base:
        started = Server(HOST, REPOSITORY, Path(base))
        shutil.copy(REPOSITORY / "tests" / "host" / "tiny_clip.py", started.base / "custom_nodes")
        with started as running:
            yield running


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shots(tmp_path_factory):
    """Where screenshots go."""
    folder = Path(os.environ.get("OTCACHE_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def open_comfy(server, chromium):
    """open_comfy(vue=False, palette="dark", locale="en") -> `comfy.Comfy` on a fresh page."""
    from comfy_page import Comfy

    pages = []

    def open_page(**settings):
        pages.append(Comfy(server, chromium, **settings))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


sys.path.append(str(Path(__file__).parent))
