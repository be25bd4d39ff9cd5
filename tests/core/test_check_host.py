"""`make check-host`: what it installs, what it reads from pytest, and the line at its end."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import check_host
from tools.check_host import Outcome, line, main, read_report, version_of, with_frontend

REPOSITORY = Path(__file__).resolve().parents[2]
SUITE = """
import pytest

def test_good():
    pass

@pytest.mark.parametrize("level", ["one", "two"])
def test_bad(level):
    assert level == "one"

@pytest.fixture
def broken():
    raise OSError

def test_not_set_up(broken):
    pass

@pytest.fixture
def not_cleared():
    yield
    raise OSError

def test_bad_at_both_ends(not_cleared):
    assert False

@pytest.mark.skip
def test_left_out():
    pass
"""


def host_of(folder: Path, version: str = '__version__ = "0.35.1"') -> Path:
    """The least that counts as a ComfyUI."""
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").touch()
    (folder / "requirements.txt").write_text("torch\n")
    (folder / "comfyui_version.py").write_text(f"# written by a script\n{version}\n")
    return folder


def suite(folder: Path, name: str, text: str) -> str:
    path = folder / f"test_{name}.py"
    path.write_text(text)
    return str(path)


@pytest.fixture
def here(monkeypatch, tmp_path):
    """A ComfyUI whose environment is this one; commands run in an empty folder."""
    monkeypatch.setenv("COMFYUI_PATH", str(host_of(tmp_path / "ComfyUI")))
    monkeypatch.setattr(check_host, "make_environment", lambda *_: Path(sys.executable))
    monkeypatch.setattr(check_host, "frontend_of", lambda _: "1.58.1")
    monkeypatch.setattr(check_host, "REPOSITORY", tmp_path)
    return tmp_path


def test_versions(tmp_path):
    assert version_of(host_of(tmp_path / "a")) == "0.35.1"
    assert version_of(host_of(tmp_path / "b", "__version__='0.36.0rc1'")) == "0.36.0rc1"
    assert version_of(host_of(tmp_path / "c", "version = 1")) == version_of(tmp_path) == "unknown"


def test_the_frontend_is_replaced_and_nothing_else():
    others = ["comfyui-workflow-templates==0.11", "# torch", "torch"]
    theirs = ["comfyui-frontend-package==1.49.6", " comfyui_frontend_package>=1", *others]
    ours = with_frontend("\n".join(theirs), "1.58.*").splitlines()
    assert ours == [*others, "comfyui-frontend-package==1.58.*"]
    assert with_frontend("torch", "1").splitlines() == ["torch", "comfyui-frontend-package==1"]


def test_the_line_names_what_failed(here, capfd):
    good = suite(here, "fine", "def test_fine():\n    pass\n")
    assert main(["--tests", suite(here, "mixed", SUITE), good]) == 1
    assert capfd.readouterr().out.splitlines()[-1] == (
        "ComfyUI 0.35.1, frontend 1.58.1: 3 passed, 1 skipped, 3 failed: "
        "test_mixed::test_bad[two] (AssertionError: assert 'two' == 'one'), "
        "test_mixed::test_not_set_up, test_mixed::test_bad_at_both_ends"
    )
    assert main(["--tests", good]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "ComfyUI 0.35.1, frontend 1.58.1: 1 passed, 0 skipped"


def test_what_could_not_be_read_or_found_has_failed(here, capfd):
    assert main(["--tests", suite(here, "wrong", "import nowhere_at_all\n"), "nowhere"]) == 1
    last = capfd.readouterr().out.splitlines()[-1]
    assert "0 passed, 0 skipped, 2 failed: test_wrong (collection failure), nowhere (pytest ended with 4)" in last


def test_tests_that_were_all_skipped_are_told_loudly(here, capfd):
    skipped = suite(here, "skipped", "import pytest\n\n@pytest.mark.skip\ndef test_it():\n    pass\n")
    good = suite(here, "fine", "def test_fine():\n    pass\n")
    assert main(["--tests", good, skipped]) == 0
    assert capfd.readouterr().out.splitlines()[-1].endswith(f"1 passed, 1 skipped, NOTHING WAS RUN OF {skipped}")
    assert main(["--tests", skipped]) == 1


def test_a_report_that_is_not_there_or_not_whole(tmp_path):
    report = tmp_path / "report.xml"
    for text in (None, "<testsuites><testsuite>"):
        if text:
            report.write_text(text)
        assert read_report("tests/host", report, -9).failed == ("tests/host (pytest ended with -9)",)


def test_many_names_are_cut():
    text = line("1", "2", [Outcome("tests/host", 1, 0, tuple(f"t{i}" for i in range(23)))])
    assert text.endswith("23 failed: " + ", ".join(f"t{i}" for i in range(20)) + " and 3 more") and "\n" not in text


def test_a_wrong_path_or_wrong_requirements(here, capfd, monkeypatch):
    def fails(*_):
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr(check_host, "make_environment", fails)
    assert main([]) == 1
    assert capfd.readouterr().out == "ComfyUI 0.35.1: its requirements could not be installed, and nothing was tested\n"
    monkeypatch.setenv("COMFYUI_PATH", str(here / "nowhere"))
    assert main([]) == 2
    assert "there is no ComfyUI" in capfd.readouterr().err


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_hands_on_what_is_asked_for():
    def said(*variables):
        done = subprocess.run(["make", "-n", "check-host", *variables], cwd=REPOSITORY, capture_output=True, text=True)
        return done.stdout

    assert " --frontend " not in said() and "torch==" in said() and " requests" in said("PACKAGES=requests")
    assert "--frontend '1.58.*'" in said("FRONTEND=1.58.*") and "--tests tests/web" in said("TESTS=tests/web")
