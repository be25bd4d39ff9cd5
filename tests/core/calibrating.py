"""Workers of a whole calibration of the mixture flow, slowed down, as real processes that begin at once.

`python calibrating.py` imports what takes seconds; then every line of JSON that it reads, options of `calibrate`, becomes a
process of its own, and it prints the number of that.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

CASES, STEPS, BUDGETS, TRIALS = [1, 2, 3, 4], 12, (3, 5), 5
STAGES = ["record", "error growth", "reference", "search", "guard", "final weights"]


def calibrate(storage="", notes=os.devnull, seconds=0.0, block="", patience=2.0, cases=CASES, steps=STEPS, budgets=BUDGETS,
              trials=TRIALS, sqlite=None) -> None:  # fmt: skip
    """Calibrate, and print what was found; on the way "inside" where it blocks and "waiting" where it waits for another worker.

    storage: "" for none; sqlite: a folder for a study and measurements instead. notes: a file that gets a line an evaluation,
    "PID STAGE", so that those of killed workers count too. seconds: an evaluation takes. block: a stage whose first evaluation
    never ends. patience: seconds until a worker without a sign of life is taken for dead.
    """
    from mixture import MixtureGenerator, linear_sigmas

    from otcache_core.calibration import shared_log
    from otcache_core.calibration.pipeline import calibrate
    from otcache_core.calibration.settings import Settings

    shared_log.BEAT, shared_log.PATIENCE = patience / 8, patience
    now, said, file = [""], set(), os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def say(text: str) -> None:
        if text not in said:
            said.add(text)
            print(text, flush=True)

    class Slow(MixtureGenerator):
        def velocity(self, x, sigma, cases):
            if now[0] == block:
                say("inside")
                time.sleep(1000)
            for _ in cases:
                time.sleep(seconds)
                os.write(file, f"{os.getpid()} {now[0]}\n".encode())
            return super().velocity(x, sigma, cases)

    def told(stage, done, total, note):
        now[0] = stage
        if note.startswith("waiting"):
            say("waiting")
        if note.startswith("best"):
            say(note)

    begin = time.monotonic()
    settings = Settings(
        budgets=range(budgets[0], budgets[1] + 1), reference_budget=budgets[1], anchor_budget=budgets[0], trials=trials,
        storage=f"{sqlite}/study.db" if sqlite else storage or None, memory=sqlite, identity="the mixture",
    )  # fmt: skip
    found = calibrate(Slow(), cases, linear_sigmas(steps, 3.0), settings, told)
    print(json.dumps({
        "reference": found.reference.compute_steps,
        "schedules": [[s.compute_steps, s.score, s.weights] for s in (found.anchor, *found.schedules.values())],
        "evaluations": found.evaluations, "seconds": time.monotonic() - begin,
    }), flush=True)  # fmt: skip


def serve() -> None:
    """Make a process of every line that is read."""
    for name in ("mixture", "grpc", "psycopg", "otcache_core.calibration.pipeline"):
        with suppress(ImportError):
            import_module(name)
    import torch

    from otcache_core.calibration.metrics import DEFAULT, check_metric
    from otcache_core.calibration.storages import import_optuna, open_storage

    torch.set_num_threads(1)
    import_optuna()
    open_storage("sqlite://")
    check_metric(DEFAULT)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        options = json.loads(line)
        out = os.open(options.pop("out"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        if child := os.fork():
            os.close(out)
            print(child, flush=True)
            continue
        os.dup2(out, 1)
        os.dup2(out, 2)
        try:
            calibrate(**options)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(0)


class Workers:
    """The processes that one `python calibrating.py` makes."""

    def __init__(self, environment: dict[str, str] = {}):  # noqa: B006
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, text=True,
            cwd=Path(__file__).parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def begin(self, out: Path, **options) -> "Worker":
        """One with these options of `calibrate`, which prints into `out`."""
        self._process.stdin.write(json.dumps({"out": str(out), **options}) + "\n")
        self._process.stdin.flush()
        return Worker(int(self._process.stdout.readline()), out)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


class Worker:
    """One of them."""

    def __init__(self, pid: int, out: Path):
        self.pid, self.out = pid, out

    @property
    def lives(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def hear(self, word: str) -> None:
        """Wait until it says `word`."""
        while word not in self.out.read_text().splitlines():
            assert self.lives, self.out.read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """As the kernel does where memory runs out: no handler, no clean-up."""
        if self.lives:
            os.kill(self.pid, signal.SIGKILL)
        while self.lives:
            time.sleep(0.01)

    def found(self) -> dict:
        """What it prints in the end."""
        while self.lives:
            time.sleep(0.02)
        text = self.out.read_text()
        assert "Traceback" not in text and text.strip(), text
        return json.loads(text.splitlines()[-1])


if __name__ == "__main__":
    serve()
