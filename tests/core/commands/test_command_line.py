"""The command line as its users meet it: exit codes, single lines for bad input, no traceback, nothing half-written."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from otcache_core.__main__ import main
from otcache_core.commands.schedule_text import describe, strip
from otcache_core.schedules.presets import preset, preset_names, shifted_sigmas
from otcache_core.schedules.schedule import load_schedule, make_schedule

ROOT = Path(__file__).parents[3]
NAME = "meancache-qwen-image-10"


def heed_interrupts() -> None:
    """A shell that starts the tests in the background has SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments, **environment) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "otcache_core", *map(str, arguments)], cwd=ROOT, encoding="utf-8", errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        preexec_fn=heed_interrupts if os.name == "posix" else None,
    )  # fmt: skip


def run(*arguments, **environment) -> tuple[int, str, str]:
    process = start(*arguments, **environment)
    out, error = process.communicate(timeout=300)
    return process.returncode, out, error


def check_complaint(result: tuple[int, str, str], *words: str) -> None:
    """Exit code 2, nothing on stdout, and one printable line on stderr that holds all `words`."""
    code, out, error = result
    assert code == 2 and not out
    assert error.startswith("otcache: ") and error.endswith("\n") and error[:-1].isprintable(), error
    for word in words:
        assert word in error


def schedule_file(tmp_path: Path, **changes) -> Path:
    fields = json.loads(preset(NAME).model_dump_json()) | changes
    path = tmp_path / "a schedule.json"
    path.write_text(json.dumps({name: value for name, value in fields.items() if value != "missing"}), encoding="utf-8")
    return path


@pytest.mark.parametrize(("changes", "words"), [
    ({"compute_steps": [0, 5, 5]}, ["a schedule.json", "compute_steps", "duplicates"]),
    ({"compute_steps": [0, 90]}, ["step 90", "49"]),
    ({"compute_steps": "missing"}, ["compute_steps"]),
    ({"sigmas": [1.0, 0.5, 0.7, 0.0], "compute_steps": [0], "spans": [0]}, ["sigmas", "fall"]),
    ({"spans": "missing"}, ["spans", "mean_velocity"]),
    ({"\x1b[2J\nevil": 1}, ["evil"]),
    ({"name": "x" * 10_000}, ["name"]),
    ({"version": 2}, ["version"]),
])  # fmt: skip
def test_schedule_file_with_a_bad_field(tmp_path, capsys, changes, words):
    code = main(["show", str(schedule_file(tmp_path, **changes))])
    check_complaint((code, *capsys.readouterr()), *words)


def test_bad_files_in_a_real_process(tmp_path):
    check_complaint(run("show", schedule_file(tmp_path, sigmas=[1, "NaN", 0])), "sigmas")
    (tmp_path / "no.json").write_bytes(b"\xff\xfe{")
    check_complaint(run("show", tmp_path / "no.json"), "no.json")
    check_complaint(run("show", "no-such-preset"), "no-such-preset", "lists the presets")


@pytest.mark.parametrize(("arguments", "words"), [
    (["show", "x" * 5000], ["neither"]),
    (["show", "a\x00b"], ["neither"]),
    (["show", NAME, "--steps", "0"], ["steps", "1 to"]),
    (["show", NAME, "--steps", "many"], ["--steps", "many"]),
    (["show", NAME, "--shift", "nan"], ["shift"]),
    (["show", NAME, "--shift", "-1"], ["shift"]),
    (["show", "--png", "a.png"], ["name a schedule"]),
    (["demo", "--seed", "-1"], ["seed"]),
    (["demo", "--trials", "0"], ["trials"]),
    (["demo", "--cases", "0"], ["cases"]),
    (["search"], ["--budget"]),
    (["dance"], ["dance"]),
    ([], ["demo", "search"]),
])  # fmt: skip
def test_bad_arguments(tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    code = main(arguments)
    check_complaint((code, *capsys.readouterr()), *words)
    assert not list(tmp_path.iterdir())


def test_bad_budget_storage_and_folder_are_said_before_any_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def said(*arguments):
        return main([*map(str, arguments)]), *capsys.readouterr()

    check_complaint(said("search", "--budget", 51, "--out", tmp_path / "new" / "s.json"), "budget is 51", "50")
    check_complaint(said("search", "--budget", 6, "--storage", tmp_path / "none" / "study.db"), "study.db", "cannot be opened")
    (tmp_path / "file").write_text("")
    check_complaint(said("demo", "--out", tmp_path / "file" / "out"), "Cannot write")
    check_complaint(run("search", "--budget", 6, "--out", tmp_path), "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_missing_and_damaged_weights(tmp_path, capsys, monkeypatch):
    import otcache_core.commands.embedded as module

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    real = module.DemoGenerator
    monkeypatch.setattr(module, "DemoGenerator", lambda: real(tmp_path))
    code = main(["demo", "--out", str(tmp_path / "out")])
    check_complaint((code, *capsys.readouterr()), "weights", "restore")
    for name in ("transformer", "vae"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"not safetensors at all")
    code = main(["search", "--budget", "5"])
    check_complaint((code, *capsys.readouterr()), "weights", "restore")
    assert not (tmp_path / "out").exists()


def test_show_prints_the_whole_schedule():
    code, out, error = run("show", NAME, PYTHONIOENCODING="utf-8")
    assert code == 0 and not error
    cells = out.splitlines()[2].split()[1]
    assert tuple(i for i, cell in enumerate(cells) if cell == "█") == preset(NAME).compute_steps and len(cells) == 50
    assert "10 of 50" in out and "5.00x" in out and "2601.19961" in out


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_show_falls_back_on_consoles_without_blocks(encoding):
    code, out, error = run("show", NAME, PYTHONIOENCODING=encoding)
    assert code == 0 and not error
    assert out.splitlines()[2].split()[1].replace("#", "").replace(".", "") == ""


def test_show_lists_presets(capsys):
    assert main(["show"]) == 0
    out, _ = capsys.readouterr()
    assert all(name in out for name in preset_names())


def test_show_retimes_and_draws(tmp_path, capsys):
    path = tmp_path / "new folder" / "strip.png"
    assert main(["show", NAME, "--steps", "28", "--shift", "3", "--png", str(path)]) == 0
    assert "of 28 steps" in capsys.readouterr().out
    Image.open(path).load()
    assert [p.name for p in path.parent.iterdir()] == ["strip.png"]


def test_names_cannot_command_the_terminal():
    hostile = {"name": "\x1b[2Ja\nb", "provenance": "\x9b\x07c"}
    schedule = make_schedule(sigmas=tuple(shifted_sigmas(4, 1.0)), compute_steps=(0, 2), **hostile)
    assert all(line.isprintable() for line in describe(schedule).split("\n"))


def test_strip_breaks_long_schedules_and_counts_every_step():
    schedule = make_schedule(sigmas=tuple(shifted_sigmas(120, 1.0)), compute_steps=(0, 50, 119))
    lines = strip(schedule)
    assert [line.split()[0] for line in lines] == ["0", "50", "100"]
    assert "".join(line.split()[1] for line in lines) == "".join("█" if i in (0, 50, 119) else "·" for i in range(120))


def test_search_writes_its_best_and_resumes(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    common = ["search", "--budget", "3", "--cases", "1", "--storage", str(tmp_path / "a study.db")]
    scores = []
    for trials in ("2", "4"):
        assert main([*common, "--trials", trials, "--out", str(tmp_path / "best.json")]) == 0
        schedule = load_schedule(tmp_path / "best.json")
        assert schedule.budget == 3 and schedule.steps == 50 and schedule.weights
        scores.append(schedule.score)
        assert "3 of 50 steps" in capsys.readouterr().out
    assert scores[1] <= scores[0]


def test_a_reader_that_leaves_early_is_no_error():
    process = start("show")
    process.stdout.close()
    assert process.wait(60) == 0
    assert not process.stderr.read()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for a single child")
@pytest.mark.parametrize(("stage", "older"), [("full runs", False), ("best", True)])
def test_interrupted_demo_leaves_nothing_half_written(tmp_path, stage, older):
    out = tmp_path / "out"
    if older:
        out.mkdir()
        (out / "report.html").write_text("older")
    process = start("demo", "--out", out, "--cases", 1)
    seen = ""
    while stage not in seen:  # "best" is what the search's bar reports
        seen += process.stderr.read(1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.splitlines()[-1] == "otcache: interrupted; nothing half-written is left."
    assert "Traceback" not in error
    assert [p.name for p in tmp_path.rglob("*")] == (["out", "report.html"] if older else [])
    if older:
        assert (out / "report.html").read_text() == "older"
