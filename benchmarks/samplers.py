"""What caching does with each of ComfyUI's samplers: python benchmarks/samplers.py

For every sampler, number of steps and guidance, the embedded demo model learns from one ordinary run of one scene as OT Auto
Cache does, then draws other scenes. Each row stands beside the same sampler with as many evaluations, and beside holding on
the same steps: the velocity, or the denoised latent. `lesson: euler` rows follow a schedule that was learnt with euler, as
calibrations make them. Exits with 1 when a contract is missed.
"""

import argparse
import os
import shlex
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import combinations
from math import inf, isnan
from multiprocessing import get_context
from pathlib import Path

from booted import find_comfyui, say
from sampler_rows import EULERS, HOLD, HOLD_DENOISED, OURS, OUTPUT, OWN, PLAIN, SHARES, Form, Row, in_full, markdown
from sampler_runs import begin, measure, sampler_names

STEPS, CFGS = (50, 20), (4.0, 7.5)
WORSE = 0.5  # dB that a larger budget may cost
BELOW_EULER, COMPARED = 5.0, (50, 15)  # dB; steps and budget
BLOCKS = {"euler": 3.0, "euler_ancestral": 0.0, "er_sde": 0.0}  # dB that reused blocks may be below a reused output


def judge(rows: list[Row]) -> bool:
    """Prints each contract with the least margin by which it is kept or missed; returns whether all are kept."""
    measured = [row for row in rows if row.found and row.level == OUTPUT]
    blocks = [row for row in rows if row.found and row.level != OUTPUT]
    noisy, quiet = ([row for row in measured if row.adds_noise == adds] for adds in (True, False))
    contracts: list[tuple[str, dict[str, float], float]] = []
    for lesson, said in ((OWN, "own lesson"), (EULERS, "Euler's lesson")):

        def above(other: str, among: list[Row], lesson: str = lesson) -> dict[str, float]:
            return {row.place: row.above(other) for row in among if row.lesson == lesson}

        grown = {f"{more.place} after {less.budget}": round(more.found[OURS][0] - less.found[OURS][0], 2)
                 for less, more in combinations(quiet, 2) if more.lesson == lesson and grows(less, more)}  # fmt: skip
        contracts += [
            (f"{said}: not below the same sampler with as many evaluations", above(PLAIN, measured), 0.0),
            (f"{said}: no sampler that adds noise below holding the denoised latent", above(HOLD_DENOISED, noisy), 0.0),
            (f"{said}: no other sampler below holding its own steps", above(HOLD, quiet), 0.0),
            (f"{said}: none of those more than {WORSE:g} dB worse at a larger budget", grown, -WORSE),
        ]
    steps, budget = COMPARED
    alike = [row for row in quiet if (row.steps, row.budget, row.lesson) == (steps, budget, OWN) and row.asked == steps]
    euler = {row.cfg: row.found[OURS][0] for row in alike if row.sampler == "euler"}
    apart = {row.place: round(row.found[OURS][0] - euler[row.cfg], 2) for row in alike if row.cfg in euler}
    contracts.append((f"samplers of one evaluation a step and no noise: within {BELOW_EULER:g} dB of euler at N = {steps}, "
                      f"B = {budget}", apart, -BELOW_EULER))  # fmt: skip
    for sampler, below in BLOCKS.items():
        margins = {row.place: row.above(OUTPUT) for row in blocks if row.sampler == sampler}
        contracts.append((f"blocks reused, {sampler}: no more than {below:g} dB below a reused output", margins, -below))
    say("\nContracts, and where each is nearest to its bound")
    kept = True
    for text, margins, bound in contracts:
        if not margins:
            say(f"  -       {text}: no row to judge")
            continue
        margins = {place: -inf if isnan(margin) else margin for place, margin in margins.items()}
        where, missed = min(margins, key=margins.get), [margin for margin in margins.values() if margin < bound]
        kept &= not missed
        count = f"{len(missed)} of {len(margins)} below" if missed else f"{len(margins)} rows"
        say(f"  {'MISSED' if missed else 'kept  '}  {text}: {margins[where]:+.2f} ({where}); {count}")
    for reason, samplers in in_full(rows).items():
        say(f"  beside: {reason}: {', '.join(samplers)}")
    return kept


def grows(less: Row, more: Row) -> bool:
    """Whether the rows differ by a larger budget in `more` alone."""
    same = all(getattr(less, name) == getattr(more, name) for name in ("sampler", "cfg", "steps", "lesson"))
    return same and less.budget < more.budget


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samplers", nargs="+", help="names (all of ComfyUI's)")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help="of the full runs (50 and 20)")
    parser.add_argument("--cfg", type=float, nargs="+", default=CFGS, help="guidance scales (4 and 7.5)")
    parser.add_argument("--held-out", type=int, default=12, help="scenes to measure on (%(default)s)")
    parser.add_argument("--shares", type=int, nargs="+", default=SHARES, help="budgets: steps over these (2, 3 and 5)")
    parser.add_argument("--lessons", nargs="+", choices=(OWN, EULERS), default=(OWN, EULERS), help="whose (both)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, one thread each (%(default)s)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to this file")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep rows here, and go on from those that are there")
    arguments = parser.parse_args()
    find_comfyui()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes
    rows, failed = {}, []
    with tempfile.TemporaryDirectory() as base:
        told = base, Form(arguments.held_out, tuple(arguments.shares), tuple(arguments.lessons)), arguments.keep
        options = {"mp_context": get_context("spawn"), "initializer": begin, "initargs": told}
        with ProcessPoolExecutor(arguments.jobs, **options) as pool:
            known = pool.submit(sampler_names).result()
            names = arguments.samplers or known
            if unknown := sorted(set(names) - set(known)):
                parser.error(f"this ComfyUI has no sampler {', '.join(unknown)}")
            running = {pool.submit(measure, name, arguments.steps, arguments.cfg): name for name in names}
            for done in as_completed(running):
                if error := done.exception():
                    failed.append(running[done])
                    say(f"{running[done]}: FAILED, {type(error).__name__}: {error}")
                else:
                    rows[running[done]] = done.result()
    ordered = [row for name in names for row in rows.get(name, ())]
    if arguments.markdown:
        arguments.markdown.write_text(markdown(ordered, shlex.join(sys.argv[1:]), arguments.held_out))
    kept = judge(ordered)
    if failed:
        say(f"  FAILED  {', '.join(failed)}")
    return 0 if kept and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
