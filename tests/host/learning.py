"""What tests of OT Auto Cache share: a model that learns, in a folder of the test's own, and what lies there."""

from contextlib import contextmanager
from pathlib import Path

from sampling import forwards, ksampler

STEPS = 20


class Auto:
    """`model` with OT Auto Cache on it. reports: one a run; said: what was shown on the node."""

    def __init__(self, host, model, learn="when needed", level="output", **target):
        auto = host.module("nodes.host.auto")
        self.reports, self.said = [], []
        self.model = auto.with_auto_cache(model, auto.Target(**target), level, learn, self.reports.append, self.said.append)

    @property
    def report(self):
        """Of the newest run."""
        return self.reports[-1]


def lessons(folder) -> list[Path]:
    """All files that lie in the folder of schedules."""
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def run(host, case, auto, **inputs):
    """(samples, forward passes of the network) of one run of 20 steps with `auto`."""
    with forwards(case.model) as made:
        samples = ksampler(host, case, auto.model, **{"steps": STEPS} | inputs)
    return samples, len(made)


def teach(host, case, **inputs):
    """One run in full that teaches the model of `case`; its samples."""
    auto = Auto(host, case.model)
    samples, _ = run(host, case, auto, **inputs)
    assert "learnt from this run" in auto.report.reason, auto.report.reason
    return samples


def distance(samples, core) -> float:
    """Relative L2 distance."""
    return float((samples - core).norm() / core.norm())


@contextmanager
def moved(host, folder):
    """As after a restart with another folder of schedules: nothing that was read is known any more."""
    import folder_paths

    learned = host.module("nodes.host.learned")
    paths, endings = folder_paths.folder_names_and_paths[learned.FOLDER]
    folder_paths.folder_names_and_paths[learned.FOLDER] = [str(folder)], endings
    learned._read.clear()
    host.module("nodes.host.known")._solved.clear()
    try:
        yield folder
    finally:
        folder_paths.folder_names_and_paths[learned.FOLDER] = paths, endings
        learned._read.clear()
