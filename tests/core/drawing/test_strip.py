"""The strips' data, and the vectors that the browser's copy of the arithmetic is tested with."""

import json
from types import SimpleNamespace

from otcache_core.drawing.strip import budget_strip, run_strip
from otcache_core.schedules.interpolation import schedule_at
from otcache_core.schedules.presets import preset
from tools.parity_vectors import FILE, make_vectors, text_of


def test_vectors_are_up_to_date():
    assert FILE.read_text(encoding="utf-8") == text_of(make_vectors()), (
        "tests/web/vectors.json is out of date; run: python -m tools.parity_vectors, then npm test"
    )


def test_scores_are_kept_for_what_was_judged_only():
    inner = preset("lemica-flux1-dev-15").replace(score=0.0123456, psnr=33.25)
    anchor = preset("lemica-flux1-dev-10").replace(prepared=(inner,))
    asked = {"budget": 12, "choose": "by hand", "target_error": 0.03, "target_speedup": 4.0}
    data = budget_strip(preset("lemica-flux1-dev-26"), anchor, asked)
    assert data["prepared"] == {"15": {"steps": list(inner.compute_steps), "score": 0.0123, "psnr": 33.25}}
    assert data["curve"] == [[15, 0.0123]] and data["asked"] == asked
    assert json.loads(json.dumps(data)) == data
    other = preset("meancache-qwen-image-25")  # another grid: the anchor is re-timed
    assert data["warning"] == ""
    assert "Qwen-Image and FLUX.1 [dev]" in budget_strip(other, anchor, asked)["warning"]
    moved = budget_strip(other, anchor, asked)
    assert moved["curve"] == []
    [(budget, entry)] = moved["prepared"].items()
    assert entry["score"] is entry["psnr"] is None
    assert entry["steps"] == list(schedule_at(other, anchor, int(budget)).compute_steps)


def test_an_anchor_that_carries_nothing_has_its_own_score_and_only_positive_ones_make_a_curve():
    anchor = preset("lemica-flux1-dev-10").replace(score=0.02)
    asked = {"budget": 12, "choose": "by hand", "target_error": 0.03, "target_speedup": 4.0}
    assert budget_strip(preset("lemica-flux1-dev-26"), anchor, asked)["curve"] == [[10, 0.02]]
    data = budget_strip(preset("lemica-flux1-dev-26"), anchor.replace(score=-30.0), asked)  # a PSNR, to be made smaller
    assert data["curve"] == [] and json.loads(json.dumps(data, allow_nan=False)) == data


def test_run_strip_is_json_with_and_without_a_measurement():
    report = SimpleNamespace(steps=3, evaluations=2, computed=(True, False, True), seconds=(0.123456, 0.0001, 0.2),
                             ideal_speedup=1.5, measured_speedup=None, measured_spread=None, level="output", reason="",
                             level_reason="", warning="", note="", hint="fewer", extra=0)  # fmt: skip
    data = run_strip(report)
    assert json.loads(json.dumps(data)) == data
    assert data["computed"] == [1, 0, 1] and data["seconds"] == [0.1235, 0.0001, 0.2] and data["measured"] is None
    assert data["hint"] == "fewer"
