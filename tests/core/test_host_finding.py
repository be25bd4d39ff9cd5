"""Where the nodes' tests find a ComfyUI, and how `make test` gets one by itself.

In a copy of the tools and the Makefile, with a home that holds no ComfyUI; the upstream is a small repository on disk.
"""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tools.get_host import TAG, NotCloned, clone

REPOSITORY = Path(__file__).resolve().parents[2]
NOT_RUN = "NO TEST IN tests/host WAS RUN"
needs_git = pytest.mark.skipif(not shutil.which("git"), reason="needs git")
needs_make = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def put_host(folder: Path) -> Path:
    """The least that counts as a ComfyUI."""
    (folder / "comfy").mkdir(parents=True)
    for name in ("main.py", "comfy/__init__.py", "requirements.txt"):
        (folder / name).touch()
    return folder


@pytest.fixture
def upstream(tmp_path) -> Path:
    """A repository with a ComfyUI under the pinned tag, and something else under "empty"."""
    folder = tmp_path / "upstream"
    folder.mkdir()
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", "nothing yet")
    git(folder, "tag", "empty")
    put_host(folder)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "a ComfyUI")
    git(folder, "tag", TAG)
    return folder


class Fresh:
    """A copy of what finds a ComfyUI, in `folder`, and commands in it as on a machine that has none."""

    def __init__(self, base: Path):
        self.home, self.folder = base / "home", base / "a" / "custom_nodes" / "pack"
        self.home.mkdir()
        shutil.copytree(REPOSITORY / "tools", self.folder / "tools")
        shutil.copy(REPOSITORY / "Makefile", self.folder)
        self.clone = self.folder / ".comfyui"

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess:
        mine = ("COMFYUI_", "OTCACHE_", "MAKE", "MFLAGS", "PYTHON")
        rest = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
        rest |= {"HOME": str(self.home), "USERPROFILE": str(self.home)} | variables
        return subprocess.run(command, cwd=self.folder, env=rest, capture_output=True, text=True, timeout=120)

    def find(self, **variables: str) -> tuple[int, str]:
        done = self.run(sys.executable, "tools/find_host.py", **variables)
        return done.returncode, done.stdout.strip() or done.stderr.strip()

    def make(self, *goals: str, **variables: str) -> subprocess.CompletedProcess:
        return self.run("make", *goals, f"PYTHON={sys.executable}", **variables)


@pytest.fixture
def fresh(tmp_path) -> Fresh:
    return Fresh(tmp_path)


def test_places_are_tried_in_order(fresh, tmp_path):
    status, said = fresh.find()
    assert status == 1 and "COMFYUI_PATH" in said and "make host" in said and "\n" not in said
    for place in (fresh.clone, tmp_path / "a", fresh.home / "comfy" / "ComfyUI"):  # each goes before those already there
        put_host(place)
        assert fresh.find() == (0, str(place))
    chosen = put_host(tmp_path / "chosen")
    assert fresh.find(COMFYUI_PATH=str(chosen)) == (0, str(chosen))


def test_a_wrong_path_is_told_and_not_passed_over(fresh, tmp_path):
    put_host(fresh.clone)
    status, said = fresh.find(COMFYUI_PATH=str(tmp_path))
    assert status == 2 and str(tmp_path) in said


@needs_git
@needs_make
def test_make_host_clones_once(fresh, upstream):
    address = f"COMFYUI_URL={upstream.as_uri()}"
    done = fresh.make("host", address)
    assert done.returncode == 0 and fresh.find() == (0, str(fresh.clone)), done.stderr
    assert (fresh.clone / ".git" / "shallow").exists() and not fresh.clone.with_name(".comfyui.part").exists()
    shutil.rmtree(upstream)
    assert fresh.make("host", address).returncode == 0


@needs_git
@needs_make
def test_make_host_leaves_one_that_is_found_alone(fresh, upstream):
    put_host(fresh.home / "comfy" / "ComfyUI")
    done = fresh.make("host", f"COMFYUI_URL={upstream.as_uri()}")
    assert done.returncode == 0 and not fresh.clone.exists()


@needs_git
@needs_make
@pytest.mark.skipif(os.name == "nt", reason="needs a shell script")
def test_the_tests_of_the_nodes_run_in_the_clone(fresh, upstream):
    python = fresh.folder / ".venv-host" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "in $COMFYUI_PATH: $*"\n')
    python.chmod(0o755)
    for name in ("requirements.txt", "requirements-dev.txt"):
        (fresh.folder / name).touch()
    done = fresh.make("test-host", "test-browser", f"COMFYUI_URL={upstream.as_uri()}")
    assert done.returncode == 0, done.stderr
    for kind in ("host", "browser"):
        assert f"in {fresh.clone}: -m pytest tests/{kind} -q" in done.stdout


@needs_git
@needs_make
def test_without_a_network_one_line_says_so_and_the_rest_goes_on(fresh):
    nobody = "COMFYUI_URL=http://127.0.0.1:9/ComfyUI"
    done = fresh.make("test-host", "test-browser", nobody)
    told = [line for line in done.stderr.splitlines() if "could not be cloned" in line]
    assert done.returncode == 0 and len(told) == 1 and TAG in told[0] and "127.0.0.1" in told[0], done.stderr
    assert NOT_RUN in done.stderr and not fresh.clone.exists()
    assert fresh.make("test-host", nobody, OTCACHE_REQUIRE_HOST="1").returncode != 0
    assert fresh.make("host", nobody).returncode != 0


@needs_make
def test_a_wrong_path_clones_nothing_and_fails(fresh, tmp_path):
    done = fresh.make("test-host", COMFYUI_PATH=str(tmp_path))
    assert done.returncode != 0 and str(tmp_path) in done.stderr and "Cloning" not in done.stderr


@needs_git
def test_half_a_clone_does_not_count_and_is_made_anew(fresh, upstream):
    part = put_host(fresh.clone.with_name(".comfyui.part"))
    (part / "left-over").touch()
    assert fresh.find()[0] == 1
    clone(upstream.as_uri(), TAG, fresh.clone)
    assert fresh.find()[0] == 0 and not part.exists() and not (fresh.clone / "left-over").exists()


@needs_git
@pytest.mark.parametrize(("tag", "words"), [("v0.0.1", "no such tag"), ("empty", "holds no ComfyUI")])
def test_what_holds_no_comfyui_is_not_kept(upstream, tmp_path, tag, words):
    with pytest.raises(NotCloned, match=words):
        clone(upstream.as_uri(), tag, tmp_path / "clone")
    assert not list(tmp_path.glob("clone*"))


@needs_git
def test_a_repository_that_does_not_answer_is_given_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(NotCloned, match="took more than 0.5 seconds"):
        clone(f"http://127.0.0.1:{silent.getsockname()[1]}/x", TAG, tmp_path / "clone", answer=0.5)
    assert not list(tmp_path.glob("clone*"))


def test_without_git_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotCloned, match="there is no git"):
        clone("x", TAG, tmp_path / "clone")


def test_ci_checks_out_the_same_version():
    for file in (REPOSITORY / ".github" / "workflows").glob("*.yml"):
        lines = file.read_text(encoding="utf-8").splitlines()
        found = [lines[i + 1].strip() for i, line in enumerate(lines) if "repository: Comfy-Org/ComfyUI" in line]
        assert found == [f"ref: {TAG}"], file.name
