"""A schedule names the B of N sampling steps that run the model, and how the others are predicted."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from ..errors import OTCacheError
from ..files import write_text
from .json_limits import FIRST_ERROR, check_size
from .records import Number, Record
from .rules import Rules

MAX_STEPS = 10_000
MAX_FILE_BYTES = 16 * 2**20
HISTORY = 3  # evaluations that a predictor may combine
FLOW_TOP = 1.02  # sigmas of flow models end at 1, but for rounding and a little more noise
BANDS = 8  # of a latent that fitted weights may tell apart: two of a picture or video, further ones of sound packed with it

Row = Annotated[tuple[Number, ...], Field(min_length=1, max_length=HISTORY * BANDS, **FIRST_ERROR)]
PredictorKind = Literal["hold", "linear", "quadratic", "mean_velocity", "fitted"]
Noise = Literal["", "flow", "diffusion"]
Stage = Literal["full", "uniform", "preset", "reference", "anchor", "interpolated", "graph", "search"]


class Predictor(Record):
    """How a skipped step's velocity is formed; see `sampling.predictors`.

    `damping` scales the extrapolation of "linear" and "quadratic" (0 is hold, 1 is undamped). `bands` is the number of
    bands that "fitted" has weights for: 1, 2 for low and high spatial frequencies, or those of a latent that packs several
    parts (`sampling.layout`).
    """

    kind: PredictorKind = "linear"
    damping: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    bands: Annotated[int, Field(ge=1, le=BANDS)] = 1


class Schedule(Record):
    """Compute steps on a sigma grid, a predictor, and where they came from.

    sigmas: N + 1 noise levels, strictly falling, the last may be 0. Step i integrates from sigmas[i] to sigmas[i + 1].
    compute_steps: B distinct steps in rising order, the first is 0. All others are predicted.
    weights: for predictor "fitted", one row a compute step: the segment's mean velocity as a combination of the last
        evaluations, newest first, at most `HISTORY` numbers; with several bands those of the first band, the low one, then
        those of the next. Dimensionless, so that re-timing can use them.
    spans: for predictor "mean_velocity", one lookback K >= 0 a compute step, in grid steps (0 is hold).
    model_class: of the model in ComfyUI that it was made on, and model_key what tells its weights from others. noise: what
        sigma means there: "flow" for x = (1 - sigma) image + sigma noise, "diffusion" for image + sigma noise, or "".
    score: the metric's value on the calibration cases, smaller is better. psnr: the mean of their pictures' PSNR, in dB.
    speedup: how many times fewer evaluations every run is to make, whatever its steps; None: as many as compute_steps.
    prepared: for an anchor, the guarded schedules of all budgets, so that a saved anchor carries them.
    rules: what was asked of single steps beyond the budget; `following.followed` applies them on the grid of each run.
    """

    format: Literal["otcache-schedule"] = "otcache-schedule"
    version: Literal[1] = 1
    name: Annotated[str, Field(max_length=200)] = ""
    sigmas: Annotated[tuple[Number, ...], Field(min_length=2, max_length=MAX_STEPS + 1, **FIRST_ERROR)]
    compute_steps: Annotated[tuple[int, ...], Field(min_length=1, max_length=MAX_STEPS, **FIRST_ERROR)]
    predictor: Predictor = Predictor()
    weights: Annotated[tuple[Row, ...], Field(**FIRST_ERROR)] | None = None
    spans: Annotated[tuple[Annotated[int, Field(ge=0, le=MAX_STEPS)], ...], Field(**FIRST_ERROR)] | None = None
    stage: Stage = "full"
    model: Annotated[str, Field(max_length=200)] = ""
    model_class: Annotated[str, Field(max_length=200)] = ""
    model_key: Annotated[str, Field(max_length=200)] = ""
    noise: Noise = ""
    sampler: Annotated[str, Field(max_length=100)] = ""
    scheduler: Annotated[str, Field(max_length=100)] = ""
    shift: Number | None = None
    metric: Annotated[str, Field(max_length=100)] = ""
    score: Number | None = None
    speedup: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    psnr: Number | None = None
    cases: Annotated[tuple[Annotated[str, Field(max_length=500)], ...], Field(max_length=10_000, **FIRST_ERROR)] = ()
    parents: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=100, **FIRST_ERROR)] = ()
    provenance: Annotated[str, Field(max_length=4000)] = ""
    versions: dict[Annotated[str, Field(max_length=50)], Annotated[str, Field(max_length=100)]] = {}
    prepared: Annotated[tuple[Schedule, ...], Field(max_length=MAX_STEPS, **FIRST_ERROR)] = ()
    rules: Rules | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Schedule:
        check_sigmas(self.sigmas)
        check_steps(self.compute_steps, self.steps)
        for field in ("weights", "spans"):
            rows = getattr(self, field)
            if rows is not None and len(rows) != self.budget:
                raise ValueError(f"{field} has {len(rows)} rows for {self.budget} compute steps; give one for each")
        needed = {"fitted": "weights", "mean_velocity": "spans"}.get(self.predictor.kind)
        if needed and getattr(self, needed) is None:
            raise ValueError(f'{needed} is missing, and predictor "{self.predictor.kind}" needs it')
        for k, row in enumerate(self.weights or ()):
            bands = self.predictor.bands
            if len(row) % bands or len(row) // bands > min(k + 1, HISTORY):
                raise ValueError(
                    f"weights.{k} has {len(row)} numbers, but needs up to {min(k + 1, HISTORY)} for each of {bands} bands: "
                    "one for each evaluation made by then"
                )
        if any(inner.prepared for inner in self.prepared):
            raise ValueError("prepared schedules must not carry prepared schedules of their own; empty theirs")
        return self

    @property
    def steps(self) -> int:
        """N, the number of sampling steps."""
        return len(self.sigmas) - 1

    @property
    def budget(self) -> int:
        """B, the number of steps that run the model."""
        return len(self.compute_steps)

    @property
    def ideal_speedup(self) -> float:
        """N / B."""
        return self.steps / self.budget

    def check_noise(self, kind: str) -> None:
        """Raise `OTCacheError` when this was made for a model whose sigma means something else than `kind`, if both are known.

        A schedule that does not say is known by sigmas above 1, which flow models do not have.
        """
        made = self.noise or ("diffusion" if self.sigmas[0] > FLOW_TOP else "")
        if made and kind and made != kind:
            raise OTCacheError(f"The schedule was made for a {made} model, but this is a {kind} model; use one made for it.")

    @property
    def segments(self) -> list[tuple[int, int]]:
        """(start, end) of each compute step's reach: steps start < i < end are predicted from it."""
        return list(pairwise((*self.compute_steps, self.steps)))

    def replace(self, **changes) -> Schedule:
        """A copy with `changes`, validated like a new one; raises `OTCacheError`."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return make_schedule(**fields | changes)

    def save(self, path: str | Path) -> None:
        """Write the schedule as JSON, whole or not at all; raises `OTCacheError` when it cannot be written."""
        write_text(path, self.model_dump_json(indent=1, exclude_defaults=False) + "\n")


def check_sigmas(sigmas) -> np.ndarray:
    """`sigmas` as float64 [N + 1]; raises `ValueError` unless finite, strictly falling and not negative."""
    array = np.asarray(sigmas, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError("sigmas must be a list of at least two noise levels")
    if not np.isfinite(array).all():
        raise ValueError(f"sigmas[{int(np.flatnonzero(~np.isfinite(array))[0])}] is not a finite number; correct it")
    if (array < 0).any():
        raise ValueError("sigmas must not be negative; end the list with 0")
    rising = np.flatnonzero(np.diff(array) >= 0)
    if len(rising):
        raise ValueError(
            f"sigmas must fall strictly, but sigmas[{rising[0] + 1}] is not below sigmas[{rising[0]}]; "
            "sort the list from noise to image and drop repeated values"
        )
    return array


def check_steps(compute_steps, steps: int) -> tuple[int, ...]:
    """`compute_steps` as a tuple; raises `ValueError` unless rising, distinct, within 0..steps - 1 and starting at 0."""
    chosen = tuple(int(step) for step in compute_steps)
    if not chosen or chosen[0] != 0:
        raise ValueError("compute_steps must start with step 0, since nothing can be predicted before the first evaluation")
    if any(b <= a for a, b in pairwise(chosen)):
        raise ValueError("compute_steps must rise without repeats; sort them and drop duplicates")
    if chosen[-1] >= steps:
        raise ValueError(f"compute_steps holds step {chosen[-1]}, but the grid's last step is {steps - 1}; drop it")
    return chosen


def check_budget(budget: int, steps: int, name: str = "budget") -> int:
    """`budget` as an int; raises `OTCacheError` unless it is a whole number in 1..steps."""
    try:
        whole = int(budget) == budget
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole or not 1 <= budget <= steps:
        raise OTCacheError(f"{name} is {budget}, but must be a whole number from 1 to the {steps} sampling steps.")
    return int(budget)


def _sentence(error: ValidationError, source: str) -> str:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{source}: {_printable(field) + ': ' if field else ''}{message}."


def _printable(text: str, limit: int = 200) -> str:
    """`text` from a stranger's file on one short line."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:limit])
    return shown + ("..." if len(text) > limit else "")


def make_schedule(**fields) -> Schedule:
    """A validated `Schedule`; raises `OTCacheError` with one sentence that names the field."""
    try:
        return Schedule(**fields)
    except ValidationError as error:
        raise OTCacheError(_sentence(error, "schedule")) from None


def load_schedule(path: str | Path) -> Schedule:
    """Read a schedule file; raises `OTCacheError` naming the file, the field and the fix."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise OTCacheError(f"Cannot read the schedule {path}: it is no file; check the path.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise OTCacheError(f"{path.name} is larger than {MAX_FILE_BYTES >> 20} MiB and no schedule; choose another file.")
        data = path.read_bytes()
    except OSError as error:
        raise OTCacheError(f"Cannot read the schedule {path}: {error.strerror}; check the path.") from None
    except ValueError as error:
        if isinstance(error, OTCacheError):
            raise
        raise OTCacheError(f"Cannot read the schedule {path}: {error}; check the path.") from None  # a null byte
    return parse_schedule(data, path.name)


def parse_schedule(data: bytes | str, source: str = "schedule") -> Schedule:
    """A schedule from JSON text; raises `OTCacheError` naming `source`, the field and the fix."""
    try:
        check_size(data)
        return Schedule.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise OTCacheError(_sentence(error, source)) from None
    except ValueError as error:
        raise OTCacheError(f"{source}: {error}; choose another file.") from None


def uniform_steps(budget: int, steps: int) -> tuple[int, ...]:
    """B steps spread evenly by index over 0..steps - 1, the first is 0."""
    return tuple(int(step) for step in np.floor(np.arange(budget) * steps / budget))


def trajectory_time(sigmas) -> np.ndarray:
    """Normalised trajectory time float64 [N + 1]: 0 at the first sigma, 1 at the last, linear in sigma."""
    sigmas = np.asarray(sigmas, dtype=np.float64)
    return (sigmas[0] - sigmas) / (sigmas[0] - sigmas[-1])
