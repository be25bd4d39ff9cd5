"""The library as a package of its own: built, installed somewhere, and used from elsewhere."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
pytest.importorskip("setuptools", reason="nothing can be built without it")


def run(*command, cwd, **environment) -> str:
    given = os.environ | {"PYTHONPATH": "", "PYTHONSAFEPATH": "1"} | environment
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built without a network, from a copy, since building leaves files behind."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("otcache_core", "nodes"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE", "__init__.py"):
        shutil.copy(REPOSITORY / name, source / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet")
    run(*pip, "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source, cwd=folder)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel) -> Path:
    target = wheel.parent / "installed"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, "--no-index", "--no-deps", "--target", target, wheel, cwd=wheel.parent)
    return target


def test_the_wheel_is_the_library_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    own = {name for name in names if ".dist-info/" not in name}
    files = (path for path in (REPOSITORY / "otcache_core").rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert own == {path.relative_to(REPOSITORY).as_posix() for path in files}


def test_the_wheel_names_what_it_needs_without_comfyui(wheel):
    archive = zipfile.ZipFile(wheel)
    [metadata] = (name for name in archive.namelist() if name.endswith("/METADATA"))
    needs = [line for line in archive.read(metadata).decode().splitlines() if line.startswith("Requires-Dist:")]
    for name in ("torch", "numpy", "scipy", "pydantic", "safetensors"):
        assert any(line.startswith(f"Requires-Dist: {name}") and 'extra == "standalone"' in line for line in needs), name


def test_the_installed_library_works_from_elsewhere(installed, tmp_path):
    """With the data that it reads: weights of the tiny model, published schedules, the report's style."""
    code = (
        "import otcache_core\n"
        "from otcache_core.demo.generator import DemoGenerator\n"
        "from otcache_core.drawing.html_page import render\n"
        "DemoGenerator(); assert '<style>' in render('t', 'l', [], '')\n"
        "print(otcache_core.__file__)"
    )
    assert Path(run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed)).strip()).is_relative_to(installed)


def test_the_console_command_shows_the_presets(installed, tmp_path):
    [command] = (installed / "bin").glob("otcache*")
    assert "lemica-flux1-dev-15" in run(command, "show", cwd=tmp_path, PYTHONPATH=str(installed))


def test_a_missing_requirement_is_one_line_with_the_extra(installed, tmp_path):
    (tmp_path / "pydantic.py").write_text("raise ModuleNotFoundError(\"No module named 'pydantic'\", name='pydantic')")
    done = subprocess.run(
        [sys.executable, "-m", "otcache_core", "show"], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(installed)])},
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "pydantic" in done.stderr and '".[standalone]"' in done.stderr
