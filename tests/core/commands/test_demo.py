"""The demo's stages end to end on the exact mixture flow: what they measure, and what they write."""

import io

import numpy as np
import pytest
from mixture import MixtureGenerator, linear_sigmas
from page import check_page
from PIL import Image

from otcache_core.calibration.pipeline import Settings
from otcache_core.commands.bars import Bars
from otcache_core.commands.demo import DIRECT, EULER, OURS, PLAIN, Examiner, Plan, Results, Subject, run_all, summary_table
from otcache_core.commands.demo_page import all_files
from otcache_core.commands.embedded import check_cases, demo_plan
from otcache_core.commands.output_folder import output_folder
from otcache_core.errors import OTCacheError
from otcache_core.schedules.schedule import parse_schedule

STEPS = 16
HOSTILE = "<script>alert('{}')</script> $\\frac{{ & a prompt"
SETTINGS = Settings(budgets=(4, 5, 6, 8), reference_budget=8, anchor_budget=4, trials=4, model="<b>mixture")
PLAN = Plan(SETTINGS, picture_budgets=(6, 4), curve_budgets=(4, 5, 6, 8), direct_trials=3)


@pytest.fixture(scope="module")
def results() -> Results:
    subject = Subject(MixtureGenerator(), [1, 2], [11, 12, 13], lambda steps: linear_sigmas(steps, 3.0), STEPS,
                      HOSTILE.format, {"Model": "<i>a mixture</i>"})  # fmt: skip
    return run_all(subject, PLAN, Bars(quiet=True))


def test_every_method_is_measured_where_it_is_promised(results):
    for name, by_budget in results.methods.items():
        assert sorted(by_budget) == ([4, 6] if name == DIRECT else [4, 5, 6, 8])
    for budget, measured in results.methods[OURS].items():
        assert measured.evaluations == budget
        assert measured.pictures.shape == (3, 16, 16, 3)
    assert results.full.evaluations == STEPS
    assert (results.full.rmse == 0).all()


def test_speed_is_the_full_runs_time_over_each_schedules(results, monkeypatch):
    examiner = Examiner(results.subject)
    monkeypatch.setattr("time.perf_counter", lambda: examiner.generator.evaluations)  # a clock that evaluations drive
    found = examiner.speedups(results.calibrated.schedules)
    assert {budget: str(speed) for budget, speed in found.items()} == {
        4: "4.0 \u00b1 0.0", 5: "3.2 \u00b1 0.0", 6: "2.7 \u00b1 0.0", 8: "2.0 \u00b1 0.0"}  # fmt: skip
    assert set(results.speedups) == set(PLAN.curve_budgets)


def test_best_plain_solver_is_never_worse_than_euler(results):
    for budget, best in results.methods[PLAIN].items():
        assert best.rmse.mean() <= results.methods[EULER][budget].rmse.mean()
        assert best.label


def test_guard_scores_no_worse_than_the_geodesic(results):
    # Up to the margin by which a candidate may look worse on the first cases and still be right to drop.
    for budget, score in results.geodesic_scores.items():
        assert results.calibrated.schedules[budget].score <= score * 1.2


def test_files_are_complete_and_valid(results):
    files = all_files(results, seconds=1.0)
    assert list(files)[-1] == "report.html"
    page = check_page(files["report.html"].decode())
    assert page.words.count(HOSTILE.format(11)) == 1 and "<i>a mixture</i>" in page.words
    assert len(page.find("img")) == 3 + 3 * (1 + 3 * len(PLAN.picture_budgets))
    for name, data in files.items():
        if name.endswith(".json"):
            schedule = parse_schedule(data)
            assert schedule.steps == STEPS and schedule.weights
        elif name.endswith(".png"):
            Image.open(io.BytesIO(data)).load()
    assert len(parse_schedule(files["schedules/anchor.json"]).prepared) == 4
    names = {"reference", "anchor", "budget-04", "budget-05", "budget-06", "budget-08"}
    assert {name for name in files if name.startswith("schedules/")} == {f"schedules/{name}.json" for name in names}
    assert {f"pictures/{name}.png" for name in ("overview", "errors", "schedules", "warps", "case-3")} <= set(files)


def test_table_has_a_line_for_every_shown_budget(results):
    lines = summary_table(results).splitlines()[2:]
    assert [line.split()[:2] for line in lines] == [["4", "4"], ["6", "6"]]
    assert all("dB" in line for line in lines)
    assert summary_table(results).isascii()


def test_pictures_belong_to_the_right_case(results):
    # The cached picture of a case is nearer to its own full run than to that of any other.
    ours, full = results.methods[OURS][8].pictures, results.full.pictures
    distances = np.abs(ours[:, None] - full[None]).mean((2, 3, 4))
    assert (distances.argmin(1) == np.arange(len(full))).all()


@pytest.mark.parametrize("changes", [
    {"direct_trials": 0}, {"picture_budgets": (7,)}, {"curve_budgets": (9,)}, {"settings": Settings(trials=-1)},
])  # fmt: skip
def test_plan_that_does_not_fit_is_refused(changes):
    with pytest.raises(OTCacheError):
        Plan(**{"settings": SETTINGS, "picture_budgets": (4,), "curve_budgets": (4,)} | changes)


@pytest.mark.parametrize("call", [lambda: check_cases(0), lambda: check_cases(10**6), lambda: demo_plan(0, 0)])
def test_numbers_out_of_range_are_refused(call):
    with pytest.raises(OTCacheError, match="must be"):
        call()


def test_folder_replaces_files_and_keeps_others(tmp_path):
    for content in (b"one", b"two"):
        with output_folder(tmp_path / "new" / "out") as write:
            write({"a.txt": content, "sub/b.txt": content})
        (tmp_path / "new" / "out" / "mine.txt").write_text("kept")
    found = {p.name: p.read_bytes() for p in (tmp_path / "new").rglob("*") if p.is_file()}
    assert found == {"a.txt": b"two", "b.txt": b"two", "mine.txt": b"kept"}


def test_folder_made_in_vain_is_removed(tmp_path):
    with pytest.raises(KeyboardInterrupt), output_folder(tmp_path / "new" / "out"):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    (tmp_path / "old").mkdir()
    with pytest.raises(KeyboardInterrupt), output_folder(tmp_path / "old"):
        raise KeyboardInterrupt
    assert (tmp_path / "old").is_dir()


def test_folder_that_cannot_be_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OTCacheError, match="Cannot write"), output_folder(tmp_path / "file" / "out"):
        raise AssertionError("never reached")
