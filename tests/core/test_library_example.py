"""The example of docs/library.md does what it says."""

import re
from pathlib import Path

from mixture import MixtureGenerator, linear_sigmas

PAGE = Path(__file__).resolve().parents[2] / "docs" / "library.md"


def test_the_example_runs(tmp_path, monkeypatch):
    (example,) = re.findall(r"```python\n(from otcache_core import.+?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    given = {"generator": MixtureGenerator(), "cases": [1, 2], "new_cases": [3], "sigmas": linear_sigmas(50)}
    exec(example, given)  # noqa: S102
    assert given["latents"].shape[0] == 1 and given["latents"].isfinite().all()
    assert {schedule.budget for schedule in given["later"]} >= {10} and (tmp_path / "anchor.db").exists()
