"""Checks a ComfyUI in one command: the tests of the nodes and of the frontend, and one line that says what failed.

Run: python -m tools.check_host [--frontend VERSION] [--tests PATH ...] [PACKAGE ...], with COMFYUI_PATH set to its folder.

Its environment is its own (.venv-hosts/VERSION), made on first use with that ComfyUI's requirements, ours and the packages
named (a torch). --frontend takes another comfyui-frontend-package than ComfyUI asks for, such as 1.58.1 or 1.58.*. Exits with
1 when a test failed or none was run, with 2 when COMFYUI_PATH is wrong.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from .find_host import HINT, REPOSITORY, find_host

ENVIRONMENTS = REPOSITORY / ".venv-hosts"
TESTS = ("tests/host", "tests/browser")
FRONTEND = "comfyui-frontend-package"
MOST, LONGEST = 20, 200  # names of tests on the line, characters of what one says


@dataclass(frozen=True)
class Outcome:
    """What one pytest run of `tests` gave. failed: names, with those that could not be set up or read;
    why: what the first of them says.
    """

    tests: str
    passed: int = 0
    skipped: int = 0
    failed: tuple[str, ...] = ()
    why: str = ""

    @property
    def ran(self) -> bool:
        """Whether any test was run, and not only skipped."""
        return bool(self.passed or self.failed)


def version_of(host: Path) -> str:
    """The version that the ComfyUI in `host` gives itself, or "unknown"."""
    try:
        words = (host / "comfyui_version.py").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    found = re.search(r"""^__version__\s*=\s*["']([\w.+-]+)["']""", words, re.MULTILINE)
    return found[1] if found else "unknown"


def with_frontend(requirements: str, version: str) -> str:
    """The text of a requirements file with the frontend package in `version` in place of its own."""
    others = [line for line in requirements.splitlines() if not re.match(FRONTEND.replace("-", "[-_]"), line.strip(), re.I)]
    return "\n".join([*others, f"{FRONTEND}=={version}", ""])


def make_environment(host: Path, frontend: str, packages: list[str]) -> Path:
    """The interpreter of an environment in which the ComfyUI in `host` runs. Raises CalledProcessError when pip fails.

    Where all is installed already this takes seconds and no network.
    """
    folder = ENVIRONMENTS / version_of(host)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    with tempfile.TemporaryDirectory() as base:
        theirs = host / "requirements.txt"
        if frontend:
            text = with_frontend(theirs.read_text(encoding="utf-8"), frontend)
            theirs = Path(base) / "requirements.txt"
            theirs.write_text(text, encoding="utf-8")
        files = [f"-r{path}" for path in (theirs, REPOSITORY / "requirements.txt", REPOSITORY / "requirements-dev.txt")]
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *packages, *files], check=True)
    return python


def frontend_of(python: Path) -> str:
    """The version of the frontend package that is installed for `python`, or "none"."""
    code = f"from importlib.metadata import version; print(version('{FRONTEND}'))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    return done.stdout.strip() or "none"


def run_tests(python: Path, tests: str, host: Path) -> Outcome:
    """What pytest says of the folder or file `tests` with the ComfyUI in `host`; it prints as it goes."""
    with tempfile.TemporaryDirectory() as base:
        report = Path(base) / "report.xml"
        command = [str(python), "-m", "pytest", tests, "-q", f"--junitxml={report}"]
        done = subprocess.run(command, cwd=REPOSITORY, env=os.environ | {"COMFYUI_PATH": str(host)})
        return read_report(tests, report, done.returncode)


def read_report(tests: str, report: Path, status: int) -> Outcome:
    """What the JUnit file `report` says of a pytest run that ended with `status`."""
    try:
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return Outcome(tests, failed=(f"{tests} (pytest ended with {status})",))
    ended = [(_name(case), {child.tag for child in case} & {"failure", "error", "skipped"}) for case in cases]
    failed = list(dict.fromkeys(name for name, how in ended if how - {"skipped"}))  # a test and its clearing up may both fail
    if status not in (0, 5) and not failed:  # 5: there is no test
        failed = [f"{tests} (pytest ended with {status})"]
    passed, skipped = (sum(how == kind for _, how in ended) for kind in (set(), {"skipped"}))
    says = (child.get("message", "") for case in cases for child in case if child.tag in ("failure", "error"))
    return Outcome(tests, passed, skipped, tuple(failed), next(says, "").partition("\n")[0][:LONGEST])


def _name(case: ElementTree.Element) -> str:
    return "::".join(filter(None, (case.get("classname", "").rpartition(".")[2], case.get("name"))))


def line(version: str, frontend: str, outcomes: list[Outcome]) -> str:
    """What is to be known, in one line."""
    failed = [name for outcome in outcomes for name in outcome.failed]
    words = [f"{sum(outcome.passed for outcome in outcomes)} passed", f"{sum(outcome.skipped for outcome in outcomes)} skipped"]
    if failed:
        more = f" and {len(failed) - MOST} more" if len(failed) > MOST else ""
        why = next((f" ({outcome.why})" for outcome in outcomes if outcome.why), "")
        words.append(f"{len(failed)} failed: {failed[0]}{why}{''.join(f', {name}' for name in failed[1:MOST])}{more}")
    idle = [outcome.tests for outcome in outcomes if not outcome.ran]
    if idle:
        words.append(f"NOTHING WAS RUN OF {' AND '.join(idle)}")
    return f"ComfyUI {version}, frontend {frontend}: {', '.join(words)}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.check_host", description=__doc__.partition("\n")[0])
    parser.add_argument("--frontend", default="", metavar="VERSION")
    parser.add_argument("--tests", nargs="+", default=TESTS, metavar="PATH")
    parser.add_argument("packages", nargs="*", metavar="PACKAGE")
    chosen = parser.parse_args(arguments)
    try:
        host = find_host()
    except FileNotFoundError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if host is None:
        sys.stderr.write(f"{HINT}\n")
        return 2
    version = version_of(host)
    try:
        python = make_environment(host, chosen.frontend, chosen.packages)
    except subprocess.CalledProcessError:
        sys.stdout.write(f"ComfyUI {version}: its requirements could not be installed, and nothing was tested\n")
        return 1
    outcomes = [run_tests(python, tests, host) for tests in chosen.tests]
    sys.stdout.write(f"{line(version, frontend_of(python), outcomes)}\n")
    return int(any(outcome.failed for outcome in outcomes) or not any(outcome.ran for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
