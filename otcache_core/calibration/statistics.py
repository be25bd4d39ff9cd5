"""What full runs taught about a model: inner products of velocities, additive over runs, in a small file without pictures."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import OTCacheError
from ..files import written_whole
from ..sampling.rehearsal import Recording, Visit
from ..schedules.schedule import BANDS, HISTORY, Noise, Number, check_sigmas, check_steps
from .inner_products import Recorded, recorded

FORMAT, VERSION = "otcache-statistics", 1
MOST_BYTES = 8 * 2**20
MOST_STEPS = 250  # of a run that is learnt from
LADDER = (0.12, 0.24)  # of the steps: the budgets that are rehearsed
LEAST = 5  # evaluations of a rehearsal


class Origin(BaseModel):
    """Where statistics come from; runs of equal origin and grid can be added.

    cfg: the guidance scale. sampler: its name. noise, model_class: as in `Schedule`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model_class: str = Field("", max_length=200)
    noise: Noise = ""
    sampler: str = Field("", max_length=100)
    cfg: Number = 1.0


@dataclass(frozen=True)
class Statistics:
    """Sums over `runs` recorded runs on one grid.

    sigmas: float64 [N + 1], falling. grams: inner products of the recorded velocities, a mean over elements, float64
    [bands, N, N]. visits: what rehearsals met at their compute steps, by the grid steps of the evaluations, newest first.
    rehearsals: by compute steps, the squared error of the rehearsal's final latent and the recorded one's square.
    """

    sigmas: np.ndarray
    runs: int
    grams: np.ndarray
    visits: Mapping[tuple[int, ...], Visit]
    rehearsals: Mapping[tuple[int, ...], tuple[float, float]]
    origin: Origin = Origin()

    @property
    def steps(self) -> int:
        """N."""
        return len(self.sigmas) - 1

    @cached_property
    def recorded(self) -> Recorded:
        """The sums as one case, for the graph."""
        return Recorded(self.sigmas, self.grams.sum(0)[None], self.grams[:, None])

    @cached_property
    def errors(self) -> dict[int, float]:
        """{budget: relative root mean square error of the final latent}, as measured in rehearsals."""
        return {len(steps): float(np.sqrt(error / square)) for steps, (error, square) in self.rehearsals.items() if square}

    def fits(self, other: "Statistics") -> bool:
        """Whether `other` can be added: the same grid and origin."""
        return self.origin == other.origin and np.array_equal(self.sigmas, other.sigmas)

    def __add__(self, other: "Statistics") -> "Statistics":
        """Those of both; raises `OTCacheError` unless `other` fits."""
        if not self.fits(other):
            raise OTCacheError("Statistics of different grids, samplers or guidance cannot be added; keep them apart.")
        both = dict(self.rehearsals)
        for steps, pair in other.rehearsals.items():
            both[steps] = tuple(np.add(both.get(steps, (0.0, 0.0)), pair).tolist())
        return replace(
            self, runs=self.runs + other.runs, grams=self.grams + other.grams, rehearsals=both,
            visits=summed([*self.visits.items(), *other.visits.items()]),
        )  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write as safetensors, whole or not at all; raises `OTCacheError` when it cannot be written."""
        tensors, keys = {"sigmas": self.sigmas, "grams": self.grams}, sorted(self.visits)
        for number, key in enumerate(keys):
            for name in ("gram", "moments", "squares"):
                tensors[f"{name}.{number}"] = getattr(self.visits[key], name).astype(np.float32)
        described = {
            "format": FORMAT, "version": str(VERSION), "runs": str(self.runs), "origin": self.origin.model_dump_json(),
            "visits": json.dumps(keys), "rehearsals": json.dumps([[steps, *pair] for steps, pair in self.rehearsals.items()]),
        }  # fmt: skip
        data = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, described)
        with written_whole(path) as temporary:
            temporary.write_bytes(data)


def summed(visits: Iterable[tuple[tuple[int, ...], Visit]]) -> dict[tuple[int, ...], Visit]:
    """Visits by their evaluations, those of equal ones added."""
    found: dict[tuple[int, ...], Visit] = {}
    for steps, seen in visits:
        found[steps] = found[steps] + seen if steps in found else seen
    return found


def load_statistics(path: str | Path) -> Statistics:
    """Read what `Statistics.save` wrote; raises `OTCacheError` naming the file for anything else."""
    path = Path(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES >> 20} MiB")
        with safe_open(path, framework="np") as file:
            return _read({name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        reason = "its description is damaged" if isinstance(error, ValidationError) else str(error).splitlines()[0]
        raise OTCacheError(
            f"{path.name} holds no statistics of a model ({reason}); delete it, and they are learnt anew."
        ) from None


def _read(tensors: dict[str, np.ndarray], described: dict[str, str]) -> Statistics:
    if described.get("format") != FORMAT or described.get("version") != str(VERSION):
        raise ValueError("another format or version")
    sigmas = check_sigmas(tensors.pop("sigmas"))
    steps, runs = len(sigmas) - 1, int(described["runs"])
    grams = _checked(tensors.pop("grams"), (BANDS, steps, steps))
    if not 1 <= runs <= 10**6 or steps > MOST_STEPS:
        raise ValueError("its number of runs or steps is out of range")
    visits = {}
    for number, key in enumerate(json.loads(described["visits"])):
        key = tuple(key[::-1])
        if not 1 <= len(key) <= HISTORY or check_steps((0, *(step + 1 for step in key)), steps + 1)[1] < 1:
            raise ValueError("a visit's steps are out of range")
        m, ends = len(key), steps - key[-1]
        shapes = {"gram": (BANDS, m, m), "moments": (BANDS, m, ends), "squares": (BANDS, ends)}
        visits[key[::-1]] = Visit(*(_checked(tensors.pop(f"{name}.{number}"), shape) for name, shape in shapes.items()))
    if tensors:
        raise ValueError("there is more in it than it says")
    rehearsals = {}
    for chosen, error, square in json.loads(described["rehearsals"]):
        if not (0 <= error < np.inf and 0 <= square < np.inf):
            raise ValueError("an error is out of range")
        rehearsals[check_steps(chosen, steps)] = float(error), float(square)
    return Statistics(sigmas, runs, grams, visits, rehearsals, Origin.model_validate_json(described["origin"]))


def _checked(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError("an array has another shape, or is not finite")
    return array.astype(np.float64)


def of_recording(recording: Recording, origin: Origin = Origin()) -> Statistics:  # noqa: B008
    """Those of full runs alone, without rehearsals."""
    seen = recorded(recording.trajectories)
    return Statistics(seen.sigmas, seen.bands.shape[1], seen.bands.sum(1), {}, {}, origin)


def rehearsed_budgets(steps: int) -> list[int]:
    """The budgets to rehearse for a run of `steps`: 18 evaluations in all for 50 of them, 5 for 20."""
    return sorted({min(max(round(share * steps), LEAST), steps // 2) for share in LADDER} - {0, 1})
