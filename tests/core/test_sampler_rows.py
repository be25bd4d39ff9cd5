"""The rows of benchmarks/samplers.py that are kept for a program that was interrupted."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # as where its programs are started

from sampler_rows import HOLD, HOLD_DENOISED, OURS, OWN, PLAIN, Form, Kept, Row  # noqa: E402

FOUND = {way: (30.25, 20.5) for way in (OURS, PLAIN, HOLD, HOLD_DENOISED)}
ROWS = [
    Row("lcm", 7.5, 20, 4, "own", True, 4, 20, plain=(4, 4), found=FOUND),
    Row("lcm", 7.5, 20, 7, "own", True, 20, 20, reason="nothing was learnt"),
]


def test_rows_that_are_kept_are_read_again(tmp_path):
    kept = Kept(tmp_path / "rows", Form())
    kept.write(ROWS)
    assert kept.read("lcm", 20, 7.5) == Kept(tmp_path / "rows", Form()).read("lcm", 20, 7.5) == ROWS


@pytest.mark.parametrize("other", [("euler", 20, 7.5), ("lcm", 50, 7.5), ("lcm", 20, 7.0)])
def test_others_are_yet_to_be_measured(tmp_path, other):
    kept = Kept(tmp_path, Form())
    kept.write(ROWS)
    kept.write([])
    assert kept.read(*other) == []
    for form in (Form(4), Form(lessons=(OWN,)), Form(shares=(3,))):
        assert Kept(tmp_path, form).read("lcm", 20, 7.5) == []


def test_a_row_that_was_half_written_is_none(tmp_path):
    """Its file has another name until it is whole."""
    kept = Kept(tmp_path, Form())
    kept.write([replace(ROWS[0], sampler="ddim")])
    file = next(tmp_path.iterdir())
    file.rename(file.with_suffix(".part"))
    assert kept.read("ddim", 20, 7.5) == []


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = Kept(None, Form())
    kept.write(ROWS)
    assert kept.read("lcm", 20, 7.5) == [] and not list(tmp_path.iterdir())
