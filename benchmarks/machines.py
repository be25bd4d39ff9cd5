"""One calibration by one and by two processes, and one that is killed fifty times: python -m benchmarks.machines

A stand-in whose evaluations take a fixed time (the mixture flow of the tests, 4 cases of 20 steps, budgets 4 to 9) is
calibrated on each storage for several machines: wall time, evaluations, and who made how many. Exits with 1 when two processes
need more than 60 % of one's time, or find anything worse. With --kills a smaller one is killed (kill -9) at random moments
instead and goes on, on a journal and on SQLite: what that cost beside an unbroken run. PostgreSQL is left out where there is
none.
"""

import argparse
import random
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path += [str(REPOSITORY), str(REPOSITORY / "tests" / "core")]

from calibrating import BUDGETS, CASES, STEPS, Worker, Workers  # noqa: E402
from services import grpc_proxy, postgres  # noqa: E402

LIMIT = 0.6  # of one process's wall time
PART = max(STEPS, len(CASES) * BUDGETS[-1])  # evaluations that are lost with a part, at most


@contextmanager
def storages(kind: str, folder: Path):
    """Addresses of two empty storages of a kind; None where there is no such server."""
    if kind == "journal":
        yield [f"journal:{folder / name}" for name in ("one", "two")]
    elif kind == "gRPC proxy":
        with grpc_proxy(f"sqlite:///{folder}/one.db") as one, grpc_proxy(f"sqlite:///{folder}/two.db") as two:
            yield [str(one), str(two)]
    else:
        with postgres("secret") as one, postgres("secret") as two:
            yield [one, two] if one else None


def count(notes: Path) -> dict[int, int]:
    """Evaluations by process."""
    pids = [int(line.split()[0]) for line in notes.read_text().splitlines()] if notes.exists() else []
    return {pid: pids.count(pid) for pid in pids}


def divided(workers: Workers, kind: str, seconds: float, folder: Path) -> bool:
    """Prints a row; whether two processes are quick enough and no worse."""
    with storages(kind, folder) as places:
        if places is None:
            say(f"| {kind} | not here |")
            return True
        took, made, scores = [], [], []
        size = {"steps": 20, "budgets": (4, 9), "trials": 16}  # in less there is little that can be done at once
        for number, storage in enumerate(places, 1):
            notes, begin = folder / f"notes {number}", time.monotonic()
            options = {"notes": str(notes), "storage": storage, "seconds": seconds, "patience": 60.0, **size}
            running = [workers.begin(folder / f"out {number} {which}", **options) for which in range(number)]
            found = [worker.found() for worker in running]
            took.append(time.monotonic() - begin)
            made.append(sorted(count(notes).values()))
            scores.append([score for _, score, _ in found[0]["schedules"]])
    share, worse = took[1] / took[0], max(b / a for a, b in zip(*scores, strict=True))
    who = " + ".join(map(str, made[1]))
    say(row(kind, f"{took[0]:.1f}", f"{took[1]:.1f}", f"**{share:.0%}**", sum(made[0]), who, f"{worse:.3f}"))
    return share <= LIMIT and worse <= 1 + 1e-9


def killed(workers: Workers, sqlite: bool, kills: int, seconds: float, folder: Path) -> bool:
    """Prints a row; whether no kill cost more than a part, nor made the best worse."""
    alone = workers.begin(folder / "alone", notes=str(folder / "notes"), seconds=seconds)
    unbroken, plain = alone.found(), sum(count(folder / "notes").values())
    done, calibrations, extra, worst, best_kept, same = 0, 0, 0, 0, True, True
    while done < kills:
        here = folder / f"calibration {calibrations}"
        here.mkdir()
        notes, in_this, best = here / "notes", 0, float("inf")
        where = {"sqlite": str(here)} if sqlite else {"storage": f"journal:{here / 'log'}"}
        while True:
            worker = workers.begin(here / f"out {in_this}", notes=str(notes), seconds=seconds, patience=0.5, **where)
            stop = time.monotonic() + random.uniform(0, unbroken["seconds"] / 3) if done < kills else float("inf")
            while worker.lives and time.monotonic() < stop:
                time.sleep(0.01)
            if not worker.lives:
                break
            worker.kill()
            done, in_this = done + 1, in_this + 1
            told = bests(worker)
            best_kept, best = best_kept and all(b <= best * (1 + 1e-9) for b in told[:1]), min([best, *told])
        found = worker.found()
        same = same and found["schedules"] == unbroken["schedules"]
        more = sum(count(notes).values()) - plain
        extra, worst, calibrations = extra + more, max(worst, more / max(in_this, 1)), calibrations + 1
    name = "SQLite and a folder" if sqlite else "journal"
    kept = ["yes" if it else "no" for it in (same, best_kept)]
    say(row(name, done, calibrations, plain, f"{extra / done:.1f}", f"{worst:.1f}", *kept))
    return same and best_kept


def bests(worker: Worker) -> list[float]:
    """What it told as the best score, in order."""
    return [float(line.split()[1]) for line in worker.out.read_text().splitlines() if line.startswith("best ")]


def row(*cells) -> str:
    """A line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def say(line: str) -> None:
    """To the terminal at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.3, help="an evaluation takes (%(default)s)")
    parser.add_argument("--kills", type=int, default=0, help="kill it so many times instead")
    parser.add_argument("--kinds", nargs="+", default=["journal", "gRPC proxy", "PostgreSQL"])
    options = parser.parse_args()
    workers, good = Workers(), []
    try:
        with tempfile.TemporaryDirectory() as folder:
            if options.kills:
                say(f"A part has at most {PART} evaluations.\n")
                say(row("storage", "kills", "calibrations", "unbroken", "more a kill", "most", "same schedules", "best kept"))
                say("|---|---:|---:|---:|---:|---:|---|---|")
                for sqlite in (False, True):
                    (here := Path(folder, str(sqlite))).mkdir()
                    good.append(killed(workers, sqlite, options.kills, options.seconds, here))
            else:
                say("| storage | one, s | two, s | share | evaluations of one | of two | worst score, two / one |")
                say("|---|---:|---:|---:|---:|---:|---:|")
                for kind in options.kinds:
                    (here := Path(folder, kind)).mkdir()
                    good.append(divided(workers, kind, options.seconds, here))
    finally:
        workers.end()
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
