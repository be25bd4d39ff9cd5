"""What the registry ships. All tests with a server run on an unpacked copy of it; see conftest."""

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from packing import packed_files, unpacked

REPOSITORY = Path(__file__).resolve().parents[2]
EVERYTHING = {
    "__init__.py", "nodes", "otcache_core", "web", "locales", "example_workflows", "subgraphs", "pyproject.toml",
    "requirements.txt", "README.md", "CHANGELOG.md", "LICENSE",
}  # fmt: skip


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def small(tmp_path) -> Path:
    """A folder with code, tests, and files that .gitignore and .comfyignore name; no repository yet."""
    for name in ("nodes/a.py", "tests/test_a.py", "cache/x.bin", "scratch é.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".gitignore").write_text("/cache/\n")
    (tmp_path / ".comfyignore").write_text("/tests/\n")
    return tmp_path


def test_what_git_does_not_track_is_not_packed(small):
    git(small, "init", "-q")
    git(small, "add", "nodes", "tests", ".gitignore", ".comfyignore")
    packed = [".comfyignore", ".gitignore", "nodes/a.py"]
    assert packed_files(small) == packed
    (small / "nodes" / "b.py").touch()
    assert packed_files(small) == packed
    git(small, "add", "nodes")
    assert packed_files(small) == [*packed, "nodes/b.py"]
    (small / "nodes" / "a.py").unlink()
    assert packed_files(small) == [".comfyignore", ".gitignore", "nodes/b.py"]


def test_a_folder_that_is_no_repository_is_packed_whole_but_for_what_is_ignored(small):
    expected = [".comfyignore", ".gitignore", "nodes/a.py", "scratch é.txt"]
    assert packed_files(small) == expected
    outer = small.parent / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    assert packed_files(small.rename(outer / "pack")) == expected  # as in the custom_nodes of a ComfyUI that is a clone


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="not a git repository, so that a stray file would count")
def test_zip_holds_what_runs_and_nothing_else():
    names = packed_files(REPOSITORY)
    visible = {name.partition("/")[0] for name in names if not name.startswith(".")}
    assert visible == EVERYTHING
    hidden = {name for name in names if name.startswith(".")}
    assert hidden <= {".gitignore", ".comfyignore"}
    assert sum((REPOSITORY / name).stat().st_size for name in names) < 20e6


def test_the_tested_server_has_the_packed_files_only(server):
    pack = (server.base / "custom_nodes" / "otcache").resolve()
    assert pack != REPOSITORY and not (pack / "tests").exists()
    found = {path.relative_to(pack).as_posix() for path in pack.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert found == set(packed_files(REPOSITORY))


def test_registry_understands_where_it_runs(host):
    from comfy_config.config_parser import extract_node_configuration

    project = extract_node_configuration(str(REPOSITORY)).project
    assert project.supported_os == ["OS Independent"]
    assert project.supported_comfyui_version == ">=0.3.64"  # the oldest that benchmarks/matrix.py is run on


@pytest.mark.skipif(not shutil.which("comfy"), reason="needs comfy-cli, which only publishing needs: pip install comfy-cli")
def test_comfy_cli_accepts_and_packs_the_same(tmp_path):
    """In a copy, where all is committed as far as git ls-files knows."""
    names = packed_files(REPOSITORY)
    copy = unpacked(REPOSITORY, tmp_path / "copy")
    (copy / "tests").mkdir()
    (copy / "tests" / "test_x.py").touch()

    def run(*command):
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    run("git", "init", "-q")
    run("git", "add", "-A")
    said = run("comfy", "--skip-prompt", "--no-enable-telemetry", "node", "validate")
    assert "warning" not in said.lower(), said
    run("comfy", "--skip-prompt", "--no-enable-telemetry", "node", "pack")
    with zipfile.ZipFile(copy / "node.zip") as file:
        assert sorted(file.namelist()) == names
        assert json.loads(file.read("subgraphs/OTCache text to image.json"))["nodes"]
