"""The lists of requirements say the same."""

from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[2]


def listed(name: str) -> set[Requirement]:
    lines = (REPOSITORY / name).read_text(encoding="utf-8").splitlines()
    return {Requirement(line) for line in lines if line.strip() and not line.startswith("#")}


def test_the_standalone_file_is_complete_but_for_lpips():
    pack = {requirement for requirement in listed("requirements.txt") if requirement.name != "lpips"}
    alone = listed("requirements-standalone.txt")
    assert len(pack) == len(listed("requirements.txt")) - 1 and pack < alone
    assert not {"lpips", "torchvision"} & {requirement.name for requirement in alone}


@pytest.fixture
def project():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_project_names_the_packs_requirements(project):
    assert {Requirement(line) for line in project["dependencies"]} == listed("requirements.txt")


def test_the_extra_adds_what_the_library_needs_without_comfyui(project):
    """And only there: ComfyUI must not be made to install another torch."""
    extra = {one.name: one for one in map(Requirement, project["optional-dependencies"]["standalone"])}
    file = {one.name: one for one in listed("requirements-standalone.txt")}
    pack = {one.name for one in listed("requirements.txt")}
    assert set(extra) == set(file) - pack and not set(extra) & pack
    [pinned] = file["torch"].specifier
    assert extra.pop("torch").specifier.contains(pinned.version) and pinned.operator == "=="
    assert all(file[name] == requirement for name, requirement in extra.items())
