"""Full runs of the calibration's cases: made, kept in a folder, and found there again."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from ..errors import OTCacheError
from ..sampling.rollout import Generator, record
from ..sampling.trajectory import Trajectory, TrajectoryStore, load_trajectory
from ..schedules.schedule import check_sigmas
from .measurement_log import MeasurementLog
from .parts import Log, divide
from .same_model import TOLERANCE, digest, samples

# progress(stage, done, total, note) is called when a stage begins and after every unit of its work; raising in it interrupts.
Progress = Callable[[str, int, int, str], None]


def record_cases(
    generator: Generator,
    cases: Sequence,
    sigmas,
    progress: Progress | None = None,
    folder: str | Path | None = None,
    log: Log | None = None,
) -> TrajectoryStore:
    """Full runs of all cases; raises `OTCacheError` for no cases, a bad grid, or a run that is not finite.

    folder: where finished runs are kept and found again when an interrupted recording is repeated; it must belong to these
    cases and this grid alone. What is found is checked with one evaluation, for the model may be another; what is damaged is
    recorded again, and what cannot be kept is recorded all the same, each with a line in the log. Workers that share both `log`
    and the folder record every case once.
    """
    if not len(cases):
        raise OTCacheError("The calibration set is empty; give at least one case (a prompt and a seed).")
    try:
        sigmas = check_sigmas(sigmas)
    except ValueError as error:
        raise OTCacheError(f"{error}.") from None
    spool, told = TrajectoryStore(), 0
    if progress:
        progress("record", 0, len(cases), "")

    def path_of(number: int) -> Path | None:
        return folder and Path(folder) / f"{number}.safetensors"

    def run_of(number: int) -> Trajectory:
        case, path = cases[number - 1], path_of(number)
        found = _kept(path, generator, case, sigmas) if path and path.exists() else None
        if found is None:
            found = record(generator, case, sigmas)
            if path:
                _keep(found, path)
        return found

    def work(keys: list) -> None:
        nonlocal told
        for _, number in keys:
            log.put(["record", number], samples(run_of(number).final))
            told += 1
            if progress:
                progress("record", told, len(cases), "")

    together = log and log.shared and folder
    if together:
        divide(log, [["record", number] for number in range(1, len(cases) + 1)], work)
    for number in range(1, len(cases) + 1):
        if together:  # what lies there instead is not to be trusted, and not ours to replace
            run = _made_by_some(path_of(number), log.get(["record", number])) or record(generator, cases[number - 1], sigmas)
        else:
            run = run_of(number)
        spool.append(run)
        if progress and number > told:
            progress("record", number, len(cases), "")
    return spool


def measured_beside(folder: str | Path | None, runs: Iterable[Trajectory]) -> MeasurementLog:
    """What is measured with full `runs` that lie in `folder`, kept there; in memory alone where it is None or unwritable.

    It is those runs' only: where one is made again since the model is another, so is what was measured.
    """
    if folder is None:
        return MeasurementLog()
    try:
        return MeasurementLog(Path(folder) / f"measured-{digest([samples(run.final) for run in runs])}.jsonl")
    except OTCacheError as error:
        logging.warning("OTCache: %s", error)
        return MeasurementLog()


def _made_by_some(path: Path, end: list[float]) -> Trajectory | None:
    """The run that a worker left there, whose final latent has the `samples` that it told; None where it is not to be found."""
    try:
        found = load_trajectory(path)
        if samples(found.final) == end:
            return found
        why = "is another run"
    except OTCacheError as error:
        why = str(error)
    logging.warning(
        "OTCache: what another worker recorded is not in %s (%s), so that it is made again here; all machines must reach one "
        "folder, such as OTCACHE_RECORDINGS can name.", path.parent, why,
    )  # fmt: skip
    return None


def _kept(path: Path, generator: Generator, case, sigmas: np.ndarray) -> Trajectory | None:
    """The run that lies there, or None if it is damaged or not of this case on this grid."""
    try:
        found = load_trajectory(path)
    except OTCacheError as error:
        logging.warning("OTCache: %s", error)
        return None
    same = np.array_equal(found.sigmas, sigmas) and found.final.shape == generator.noise(case).shape
    return found if same and repeats(generator, case, found) else None


def _keep(run: Trajectory, path: Path) -> None:
    try:
        run.save(path)
    except OTCacheError as error:  # minutes of evaluations are not thrown away for it
        logging.warning("OTCache: %s", error)


def repeats(generator: Generator, case, recorded: Trajectory) -> bool:
    """Whether the model still gives what was recorded half-way, but for rounding."""
    step = recorded.steps // 2
    d = recorded.kept(generator.velocity(recorded.halfway[None], float(recorded.sigmas[step]), [case]))[0]
    return bool((d - recorded.d[step]).norm() <= TOLERANCE * recorded.d[step].norm())
