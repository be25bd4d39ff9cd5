"""Every model at every reuse level and every sampler in every situation, in one or more ComfyUI versions:

    python benchmarks/matrix.py [--full] [--hosts FOLDER ...] [--out FILE] [--keep FOLDER]

Prints three tables in markdown. A cell is what was measured in three runs: by core, with every step computed (must be equal
bit by bit), and with a third of the steps computed. Exits with 1 when a cell is wrong. Each ComfyUI runs in a process of its
own; without --hosts it is the one that the tests find (tools/find_host.py). What lies in --keep is not measured again, so that
hours are not lost to the last of them. The cells are those of tests/host/test_matrix_*.py.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from booted import boot_host

SAMPLERS = ("euler", "dpmpp_2m", "uni_pc", "er_sde", "heun", "dpmpp_sde", "dpm_fast")
ABSENT = {"text": "not in this version", "reason": "", "good": True}
CORE_FAILS = "fails without us, too"
WIDTH = 8  # samplers in one table
LEGEND = """\
ComfyUI's own model classes in miniature with random weights; 12 steps, a schedule that computes 4 of them, linear
extrapolation halved. Random weights show that nothing is broken, not how good a picture is.

A cell says: evaluations made / asked for by the sampler, and the relative L2 distance of the result to the run in full.
Evaluations are counted inside the model: of the whole network where its output is reused, of its blocks where blocks are.
Each cell stands for three runs, and these were checked as well: a schedule that computes every step gives core's result *bit
for bit* (else NOT EXACT), the result is finite (else NOT FINITE), and the evaluations reported are those made (else
REPORTED). "in full": no step was skipped. "output instead": blocks could not be reused, the model's output was. Both always
come with a reason.

More than 4 evaluations: samplers of several evaluations a step make them all on computed steps; the first step after a change
of conditionings, LoRA strengths or context windows is computed, too; for uni_pc and dpm_2 ComfyUI drops the last sigma but
one, so that schedules are fitted anew. TorchCompileModel is compared with the compiled model in full."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="all samplers in the first host, not one of each kind")
    parser.add_argument("--hosts", nargs="+", metavar="FOLDER", help="ComfyUI folders, newest first")
    parser.add_argument("--out", type=Path, help="write the tables to this file instead of printing them")
    parser.add_argument("--jobs", type=int, default=1, help="how many ComfyUI run at the same time")
    parser.add_argument("--keep", type=Path, help="folder for the cells of each ComfyUI that is done")
    parser.add_argument("--cells", type=Path, help=argparse.SUPPRESS)  # of the one host, as JSON
    args = parser.parse_args()
    if args.cells:
        args.cells.write_text(json.dumps(measured(args.full)))
        return 0
    with ThreadPoolExecutor(args.jobs) as pool:
        folders = args.hosts or [None]
        hosts = list(pool.map(partial(in_a_process, keep=args.keep), folders, [args.full] + [False] * len(folders[1:])))
    cells = [cell for host in hosts for part in ("models", "situations", "samplers") for row in host[part].values()
             for cell in row.values()]  # fmt: skip
    wrong = sum(not cell["good"] for cell in cells)
    verdict = f"SOME CELLS ARE WRONG: {wrong} of {len(cells)}." if wrong else f"Every cell is right ({len(cells)} cells)."
    text = "\n".join([*document(hosts, args.full), "", verdict, ""])
    if args.out:
        args.out.write_text(text)
    else:
        sys.stdout.write(text)
    return 1 if wrong else 0


def in_a_process(folder: str | None, full: bool, keep: Path | None = None) -> dict:
    """`measured` in the ComfyUI of `folder`; kept in the folder `keep`, and taken from there where it is."""
    with tempfile.TemporaryDirectory() as base:
        cells = (keep or Path(base)) / f"{Path(folder or 'found').name}{'-full' if full else ''}.json"
        if cells.exists():
            return json.loads(cells.read_text())
        cells.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, __file__, "--cells", str(cells), *(["--full"] if full else [])]
        done = subprocess.run(command, env=os.environ | ({"COMFYUI_PATH": folder} if folder else {}))
        if done.returncode:
            sys.exit(f"The matrix could not be measured in {folder or 'the ComfyUI that was found'}; see the messages above.")
        return json.loads(cells.read_text())


def measured(full: bool) -> dict:
    """All cells of one ComfyUI: {version, models, situations: {row: {level: cell}}, samplers: {row: {sampler: cell}}}."""
    with tempfile.TemporaryDirectory() as base:
        host = boot_host(Path(base))
        from comfy.samplers import SAMPLER_NAMES
        from comfyui_version import __version__
        from matrix_cells import LEVELS, compiled, measure, sampler_kind, two_experts
        from matrix_models import MODELS, build
        from matrix_situations import SITUATIONS, cell_of

        cases = {name: build(tiny) for name, tiny in MODELS.items()}
        models = {name: row(name, LEVELS, partial(measure, host, case)) if case else dict.fromkeys(LEVELS, ABSENT)
                  for name, case in cases.items()}  # fmt: skip
        models["Wan 2.2, two experts"] = row("Wan 2.2, two experts", LEVELS, partial(two_experts, host))
        situations, samplers = {}, {}
        for name, situation in SITUATIONS.items():
            case = cases[situation.model]
            if situation.node and situation.node not in host.classes or case is None:
                situations[name], samplers[name] = (dict.fromkeys(columns, ABSENT) for columns in (LEVELS, SAMPLERS))
                continue
            cell, core = partial(cell_of, host, case, name), partial(situation.run, host, case, case.model)
            situations[name] = row(name, LEVELS, partial(cell, sampler="euler"), lambda _, core=core: core("euler"))
            samplers[name] = row(name, SAMPLER_NAMES if full else SAMPLERS, partial(cell, "output"), core)
        for place, first in (("before", "compile"), ("after", "ours")) if shutil.which("g++") else ():
            name = f"TorchCompileModel {place}"
            situations[name] = row(name, LEVELS, partial(compiled, host, cases["FLUX.1"], first=first))
        for name, sampler, cell in ((name, *item) for name, cells in samplers.items() for item in cells.items()):
            full = bool(sampler_kind(sampler) or SITUATIONS[name].in_full)
            cell["good"] &= cell["text"] == CORE_FAILS or bool(cell["reason"]) == full
        return {"version": __version__, "models": models, "situations": situations, "samplers": samplers}


def row(name: str, columns, cell: Callable, core: Callable | None = None) -> dict[str, dict]:
    """What `cell(column)` measured, as a table shows it. core: the same run without us, to tell whose a failure is."""
    cells = {}
    for column in columns:
        try:
            found = cell(column)
            cells[column] = {"text": found.text, "reason": found.reason, "good": found.good}
        except Exception as error:
            cells[column] = {"text": "FAILED", "reason": f"{type(error).__name__}: {error}", "good": False}
            if core and fails(core, column):
                cells[column] |= {"text": CORE_FAILS, "good": True}
        sys.stderr.write(f"{name}, {column}: {cells[column]['text']}\n")
    return cells


def fails(run: Callable, *args) -> bool:
    """Whether `run(*args)` raises."""
    try:
        run(*args)
    except Exception:
        return True
    return False


def document(hosts: list[dict], full: bool) -> list[str]:
    """The lines of all tables."""
    folders = " ".join(f"ComfyUI-{host['version']}" for host in hosts)
    command = f"python benchmarks/matrix.py{' --full' if full else ''} --hosts {folders}"
    lines = ["# Compatibility", "", f"Printed by `{command}`.", "", *LEGEND.splitlines()]
    for title, part in (("Models", "models"), ("Situations, euler", "situations")):
        lines += ["", f"## {title}", "", *by_version(hosts, part)]
    lines += ["", "## Samplers in situations, model output reused", "",
              "A cell holds for all versions of its table, unless it names some."]  # fmt: skip
    measured_in = {}  # sampler -> versions
    for host in hosts:
        for sampler in dict.fromkeys(sampler for cells in host["samplers"].values() for sampler in cells):
            measured_in.setdefault(sampler, []).append(host["version"])
    for versions in sorted(map(list, {tuple(versions) for versions in measured_in.values()}), key=len, reverse=True):
        samplers = [sampler for sampler, among in measured_in.items() if among == versions]
        for start in range(0, len(samplers), WIDTH):
            some = [host for host in hosts if host["version"] in versions]
            lines += ["", f"{', '.join(versions)}:", "", *by_sampler(some, samplers[start : start + WIDTH])]
    return lines + why(hosts, "samplers")


def by_version(hosts: list[dict], part: str) -> list[str]:
    """A table with one column for each version and reuse level, and why blocks are not reused."""
    columns = [(host, level) for host in hosts for level in ("output", "blocks")]
    lines = heading(["", *(f"{host['version']} {level}" for host, level in columns), "why not blocks"])
    for name in dict.fromkeys(name for host in hosts for name in host[part]):
        cells = [host[part].get(name, {}).get(level, ABSENT) for host, level in columns]
        reasons = dict.fromkeys(cell["reason"] for cell in cells if cell["reason"])
        lines.append(f"| {name} | {' | '.join(cell['text'] for cell in cells)} | {'; '.join(reasons)} |")
    return lines


def by_sampler(hosts: list[dict], samplers: list[str]) -> list[str]:
    """A table with one column for each sampler; its cells are those of all versions."""
    lines = heading(["", *samplers])
    for name in dict.fromkeys(name for host in hosts for name in host["samplers"]):
        cells = [merged({host["version"]: host["samplers"][name][sampler]["text"] for host in hosts}) for sampler in samplers]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def why(hosts: list[dict], part: str) -> list[str]:
    """One line for each reason in a table, and the columns that give it, or the rows of which all do but a few."""
    given = {}
    for name, cells in ((name, cells) for host in hosts for name, cells in host[part].items()):
        reasons = Counter(cell["reason"] for cell in cells.values() if cell["reason"])
        for column, cell in cells.items():
            if cell["reason"]:
                whole = reasons[cell["reason"]] > len(cells) / 2
                given.setdefault(cell["reason"], {})[name if whole else column] = None
    return [line for reason, columns in given.items() for line in ("", f"{', '.join(columns)}: {reason.rstrip('.')}.")]


def merged(texts: dict[str, str]) -> str:
    """One text for all versions, or each with the versions that it holds for."""
    versions = {}
    for version, text in texts.items():
        versions.setdefault(text, []).append(version)
    if len(versions) == 1:
        return next(iter(versions))
    return "; ".join(f"{text} ({', '.join(which)})" for text, which in versions.items())


def heading(columns: list[str]) -> list[str]:
    return [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]


if __name__ == "__main__":
    sys.exit(main())
