"""`python -m otcache_core demo | bench | show | search`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from .errors import OTCacheError

THREADS = 2  # the embedded model is too small to gain from more; OMP_NUM_THREADS overrides


class Parser(argparse.ArgumentParser):
    """argparse, but bad input is one line."""

    def error(self, message: str):
        raise OTCacheError(f"{message}; see {self.prog} --help.")


def seed(value: str) -> int:
    """An integer that every random generator takes."""
    if not value.isdecimal() or int(value) >= 2**32:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number from 0 to {2**32 - 1}")
    return int(value)


def parser(bench: bool) -> argparse.ArgumentParser:
    """The command line; the options of `bench` are only known when it is wanted, since they import it."""
    top = Parser(prog="python -m otcache_core", description="Calibrated caching for diffusion transformers, without ComfyUI.")
    commands = top.add_subparsers(dest="command", required=True, metavar="demo | bench | show | search")

    demo = commands.add_parser("demo", help="run every stage on the embedded model and write report.html")
    demo.add_argument("--out", default="otcache_demo", help="folder for the report, pictures and schedules (%(default)s)")
    demo.add_argument("--cases", type=int, default=6, help="calibration cases (%(default)s)")
    demo.add_argument("--trials", type=int, default=60, help="trials of the anchor search (%(default)s)")
    demo.add_argument("--seed", type=seed, default=0, help="seed of the searches (%(default)s)")
    demo.set_defaults(run=run_demo)

    command = commands.add_parser("bench", help="compare with every baseline on held-out prompts")
    if bench:
        limit_threads()
        from .commands.bench import add_arguments

        add_arguments(command)
    command.set_defaults(run=run_bench)

    show = commands.add_parser("show", help="print a schedule file or a preset; without a name, list the presets")
    show.add_argument("schedule", nargs="?", help="a schedule file, or a preset's name")
    show.add_argument("--steps", type=int, help="re-time it to this many sampling steps")
    show.add_argument("--shift", type=float, help="flow shift of the grid to re-time it to (default: the schedule's own, or 1)")
    show.add_argument("--png", metavar="FILE", help="draw it into a PNG file as well")
    show.set_defaults(run=run_show)

    search = commands.add_parser("search", help="search compute steps on the embedded model; many can share a study")
    search.add_argument("--budget", type=int, required=True, help="model evaluations")
    search.add_argument("--trials", type=int, default=60, help="trials of the study in all (%(default)s)")
    search.add_argument("--storage", metavar="WHERE", help="where the study is kept: an SQLite file, journal:FILE on a shared "
                        "disk, grpc://host:port or a database URL; where one has a password, env:OTCACHE_STORAGE or file:NAME "
                        "(in this folder) names it instead")  # fmt: skip
    search.add_argument("--out", metavar="FILE", help="write the best schedule as JSON")
    search.add_argument("--cases", type=int, default=6, help="calibration cases (%(default)s)")
    search.add_argument("--seed", type=seed, default=0, help="seed of the search (%(default)s)")
    search.set_defaults(run=run_search)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0, 2 for bad input, 130 when interrupted."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a console that lacks a character shows "?" instead of failing
    try:
        options = parser(bench=arguments[:1] == ["bench"]).parse_args(arguments)
        return options.run(options)
    except OTCacheError as error:
        return complain(str(error))
    except ModuleNotFoundError as error:
        if (error.name or __package__).startswith(__package__):
            raise
        return complain(f'{error.name} is not installed; in OTCache\'s folder, run: pip install ".[standalone]"')
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return complain(f"{error.strerror or error}{where}.")
    except KeyboardInterrupt:
        print("otcache: interrupted; nothing half-written is left.", file=sys.stderr)
        return 130


def complain(message: str) -> int:
    """Print one line to stderr, whatever the message holds."""
    from .calibration.places import without_passwords  # of an argument in the wrong place

    line = without_passwords(" ".join("".join(c if c.isprintable() else " " for c in message).split()))
    print(f"otcache: {line}", file=sys.stderr)
    return 2


def limit_threads() -> None:
    """Two threads, which soon sleep while they wait for each other: spinning ones slow a busy machine down several times.

    To be called before anything imports torch.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "200")
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(THREADS)


def run_demo(options: argparse.Namespace) -> int:
    from .commands.output_folder import output_folder

    begin = time.perf_counter()
    with output_folder(options.out) as write:
        limit_threads()
        from .commands.bars import Bars
        from .commands.demo import run_all, summary_table
        from .commands.demo_page import all_files
        from .commands.embedded import demo_plan, demo_subject

        plan = demo_plan(options.trials, options.seed)
        subject = demo_subject(options.cases)
        with Bars() as bars:
            results = run_all(subject, plan, bars)
            bars("drawing", 0, 1)
            files = all_files(results, time.perf_counter() - begin)
            bars("drawing", 1, 1)
        write(files)
    print(f"\n{summary_table(results)}\n\n{Path(options.out) / 'report.html'} tells the rest "
          f"({time.perf_counter() - begin:.0f} s).")  # fmt: skip
    return 0


def run_bench(options: argparse.Namespace) -> int:
    from .commands.bars import Bars
    from .commands.bench import run
    from .commands.output_folder import output_folder

    with output_folder(options.out), Bars() as bars:
        return run(options, print, bars)


def run_show(options: argparse.Namespace) -> int:
    from .commands.schedule_text import describe, find_schedule, list_presets, retimed

    if options.schedule is None:
        if options.steps is not None or options.shift is not None or options.png:
            raise OTCacheError("Nothing to show: name a schedule file or a preset.")
        print(list_presets())
        return 0
    schedule = retimed(find_schedule(options.schedule), options.steps, options.shift)
    print(describe(schedule, sys.stdout.encoding))
    if options.png:
        from .drawing.charts import schedule_strips, to_png
        from .files import written_whole

        png = to_png(schedule_strips([schedule], [""]))
        with written_whole(options.png) as temporary:
            temporary.write_bytes(png)
    return 0


def run_search(options: argparse.Namespace) -> int:
    from .commands.output_folder import output_folder

    with ExitStack() as stack:
        if options.out:  # find out now that it cannot be written, not after the search
            if Path(options.out).is_dir():
                raise OTCacheError(f"{options.out} is a folder; give the name of a file in it.")
            stack.enter_context(output_folder(Path(options.out).parent))
        limit_threads()
        from .calibration.places import find_place, has_password
        from .calibration.storages import open_storage
        from .commands.bars import Bars
        from .commands.schedule_text import describe
        from .commands.search import demo_search

        place = find_place(options.storage, Path.cwd())
        if has_password(options.storage or ""):
            print("otcache: others can see a password here; use --storage env:OTCACHE_STORAGE instead.", file=sys.stderr)
        open_storage(place)
        with Bars() as bars:
            schedule = demo_search(options.budget, options.trials, options.cases, options.seed, place, bars)
        if options.out:
            schedule.save(options.out)
    print(describe(schedule, sys.stdout.encoding))
    return 0


if __name__ == "__main__":
    sys.exit(main())
