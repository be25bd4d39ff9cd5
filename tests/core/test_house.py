"""The rooms of otcache_core: imports run one way, modules stay small, and public names have one place."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import otcache_core

ROOT = Path(otcache_core.__file__).parent
FLOORS = ["errors", "files", "schedules", "sampling", "calibration", "drawing", "commands", "__main__"]  # upwards
APART = "demo"  # only these floors may use it
USERS_OF_DEMO = {"commands", "__main__", "demo"}
LONGEST = 250
MODULES = sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    """The room of a module, or its own name where it lies in none."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path, root: Path = ROOT) -> list[tuple[int, str]]:
    """(line, room) of everything that a module imports from the package, wherever in it."""
    found = []
    package = [root.name, *path.relative_to(root).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = [*base, *(node.module.split(".") if node.module else [])]
            names = [[*stem, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        else:
            continue
        found += [(node.lineno, name[1]) for name in names if name[0] == root.name and len(name) > 1]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_import_runs_up(path):
    mine = room(path)
    for line, theirs in imports(path):
        if mine == "__init__":  # lazy, and for type checkers
            continue
        if theirs == APART:
            assert mine in USERS_OF_DEMO, f"{path}:{line}: {mine} must not use {APART}"
        elif mine == APART:
            assert theirs in ("errors", "files"), f"{path}:{line}: {APART} stands apart"
        else:
            assert theirs in FLOORS, f"{path}:{line}: unknown room {theirs}"
            assert FLOORS.index(theirs) <= FLOORS.index(mine), f"{path}:{line}: {mine} must not use {theirs}"


def test_the_import_reader_finds_every_form(tmp_path):
    pack = tmp_path / "pack"
    (pack / "b").mkdir(parents=True)
    module = pack / "b" / "c.py"
    lines = ["from ..d import x", "from .. import e", "from . import f", "import pack.g.h"]
    module.write_text("\n".join([*lines, "def late():", "    from ..i.j import k"]))
    assert imports(module, pack) == [(1, "d"), (2, "e"), (3, "b"), (4, "g"), (6, "i")]


def test_there_is_nothing_but_the_rooms():
    assert {room(path) for path in MODULES} == {*FLOORS, APART, "__init__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_modules_are_short_and_comfy_free(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST
    assert not re.search(r"^\s*(import|from) (comfy|folder_paths|server|nodes)", text, re.MULTILINE)


@pytest.mark.parametrize("path", sorted((ROOT.parent / "nodes").rglob("*.py")), ids=lambda path: path.name)
def test_nodes_use_their_host_and_the_library_and_not_the_other_way_round(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST
    if path.parent.name == "host":
        assert not re.search(r"^\s*from \.\.(?!\.)", text, re.MULTILINE), "nodes/host must not use nodes"
        assert not re.search(r"^\s*from \.\.\.(?!otcache_core)", text, re.MULTILINE)


@pytest.mark.parametrize("path", sorted((ROOT.parent / "web" / "js").rglob("*.*js")), ids=lambda path: path.name)
def test_browser_modules_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES}), ids=lambda path: path.name)
def test_every_folder_says_what_it_is_for(folder):
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))


def test_public_names_are_where_they_are_said_to_be():
    for name, module in otcache_core.PUBLIC.items():
        defined = getattr(otcache_core, name)
        assert defined is getattr(import_module(f"otcache_core.{module}"), name)
        assert defined.__module__ == f"otcache_core.{module}"
    assert set(otcache_core.PUBLIC) <= set(dir(otcache_core)) and set(otcache_core.__all__) == set(otcache_core.PUBLIC)
    with pytest.raises(AttributeError, match="nothing"):
        _ = otcache_core.nothing


def test_importing_the_package_brings_nothing_heavy():
    code = "import sys, otcache_core; print(sorted({'torch', 'numpy', 'scipy', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
