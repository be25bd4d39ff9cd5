"""What full runs taught about a model: inner products of velocities, additive over runs, in a small file without pictures."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import OTCacheError
from ..files import written_whole
from ..sampling.rehearsal import Recording, Visit, summed
from ..sampling.response import SAME_MOVES, are_eulers
from ..schedules.json_limits import check_size
from ..schedules.schedule import BANDS, HISTORY, Noise, Number, check_sigmas, check_steps
from .fit_or_hold import TINY, Outcomes, added, holds, nearer
from .inner_products import GramData, recorded

FORMAT = "otcache-statistics"  # the name of a file's description
LARGEST = 1e30  # of all numbers in a file, so that no sum of products overflows
ROUNDING = 1e-5  # what float32 may do to inner products, relative
MOST_BYTES = 8 * 2**20
MOST_VALUES, MOST_NAMES = 100_000, 1_000  # of its description
MOST_STEPS = 250  # of a run that is learnt from

Square = Annotated[float, Field(ge=0, lt=LARGEST, allow_inf_nan=False)]


class Origin(BaseModel):
    """Where statistics come from; runs of equal origin and grid can be added.

    cfg: the guidance scale. sampler: its name. noise, model_class: as in `Schedule`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model_class: str = Field("", max_length=200)
    noise: Noise = ""
    sampler: str = Field("", max_length=100)
    cfg: Number = 1.0


class _Description(BaseModel):
    """What a file says beside its arrays; fields as in `Statistics`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: Literal[1]
    runs: Annotated[int, Field(ge=1, le=10**6)]
    origin: Origin
    held: bool
    bands: Annotated[int, Field(ge=1, le=BANDS)] = 2  # files of pictures did not say it at first
    visits: tuple[Annotated[tuple[int, ...], Field(min_length=1, max_length=HISTORY)], ...]
    rehearsals: tuple[tuple[tuple[int, ...], Square, Square], ...]
    holds: tuple[tuple[tuple[int, ...], Square, Square], ...] = ()  # nor this


@dataclass(frozen=True)
class Statistics:
    """Sums over `runs` recorded runs on one grid.

    sigmas: float64 [N + 1], falling. grams: inner products of the recorded velocities, a mean over elements, float64
    [bands, N, N], for each band of the latents (`sampling.layout`). moves: float64 [N], how far a unit velocity at each step
    moves the final latent. held: whether the sampler adds noise, so that grams are those of denoised latents, which skipped
    steps hold. visits: what rehearsals met at their compute steps, by the grid steps of the evaluations, newest first.
    rehearsals, holds: outcomes of those that fitted and of those that held, squares being means over elements.
    """

    sigmas: np.ndarray
    runs: int
    grams: np.ndarray
    visits: Mapping[tuple[int, ...], Visit]
    rehearsals: Outcomes
    moves: np.ndarray
    held: bool = False
    origin: Origin = Origin()
    holds: Outcomes = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """N."""
        return len(self.sigmas) - 1

    @property
    def bands(self) -> int:
        """How many bands were told apart."""
        return len(self.grams)

    @property
    def taught(self) -> bool:
        """Whether rehearsals told how the model answers to caching."""
        return bool(self.rehearsals)

    @cached_property
    def recorded(self) -> GramData:
        """The sums as one case, for the graph."""
        return GramData(self.sigmas, self.grams.sum(0)[None], self.grams[:, None], self.moves)

    @cached_property
    def errors(self) -> dict[int, float]:
        """{budget: relative root mean square error of the final latent}, as measured in rehearsals."""
        return nearer(self.rehearsals, self.holds)

    @property
    def looks_back(self) -> bool:
        """Whether the sampler's moves are not Euler's: multistep samplers'."""
        return not are_eulers(self.moves, self.sigmas)

    def holds_at(self, budget: int) -> bool:
        """Whether skipped steps of a run of `budget` evaluations hold."""
        return self.held or holds(self.rehearsals, self.holds, budget)

    def fits(self, other: "Statistics") -> bool:
        """Whether `other` can be added: the same grid, origin, bands and response of the sampler."""
        mine, theirs = ((one.origin, one.held, one.bands) for one in (self, other))
        same = mine == theirs and np.array_equal(self.sigmas, other.sigmas)
        return same and np.allclose(self.moves, other.moves, rtol=0, atol=SAME_MOVES * np.abs(self.moves).max())

    def __add__(self, other: "Statistics") -> "Statistics":
        """Those of both; raises `OTCacheError` unless `other` fits."""
        if not self.fits(other):
            raise OTCacheError("Statistics of different grids, samplers, guidance or bands cannot be added; keep them apart.")
        return replace(
            self, runs=self.runs + other.runs, grams=self.grams + other.grams,
            rehearsals=added(self.rehearsals, other.rehearsals), holds=added(self.holds, other.holds),
            visits=summed([*self.visits.items(), *other.visits.items()]),
        )  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write as safetensors, whole or not at all; raises `OTCacheError` when it cannot be written or is not finite.

        Visits are written in float32. Equal statistics are equal bytes.
        """
        tensors = {"sigmas": self.sigmas, "grams": self.grams, "moves": self.moves}
        whole, keys = set(tensors), sorted(self.visits)
        for number, key in enumerate(keys):
            tensors |= {f"{name}.{number}": getattr(self.visits[key], name) for name in ("gram", "moments", "squares")}
        if not all((np.abs(tensor) < LARGEST).all() for tensor in tensors.values()):
            raise OTCacheError("What was learnt is not finite (NaN or infinity); run in higher precision.")
        for name in tensors.keys() - whole:
            tensors[name] = tensors[name].astype(np.float32)
        visits = tuple(tuple(map(int, key)) for key in keys)
        listed = (sorted(outcomes.items()) for outcomes in (self.rehearsals, self.holds))
        rehearsals, holds = (tuple((tuple(map(int, of)), *map(float, pair)) for of, pair in part) for part in listed)
        try:
            described = _Description(
                version=1, runs=self.runs, origin=self.origin, held=self.held, bands=self.bands,
                visits=visits, rehearsals=rehearsals, holds=holds,
            )  # fmt: skip
        except ValidationError:
            raise OTCacheError("What was learnt has errors that are no numbers, or too many runs; forget it.") from None
        # One entry: safetensors writes several in an order of chance.
        data = save({name: np.ascontiguousarray(tensors[name]) for name in tensors}, {FORMAT: described.model_dump_json()})
        with written_whole(path) as temporary:
            temporary.write_bytes(data)


def load_statistics(path: str | Path) -> Statistics:
    """Read what `Statistics.save` wrote; raises `OTCacheError` naming the file for anything else."""
    path = Path(path)
    try:
        if not path.is_file():
            raise OTCacheError(f"Cannot read statistics from {path}: there is no such file; check the path.")
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES >> 20} MiB")
        with path.open("rb") as begin:
            if int.from_bytes(begin.read(8), "little") > MOST_BYTES // 4:  # its header's, which takes 30 times that to read
                raise ValueError("it is damaged")
        with safe_open(path, framework="np") as file:
            return _read(file)
    except OTCacheError:
        raise
    except (OSError, SafetensorError, ValueError) as error:
        reason = "".join(c if c.isprintable() else " " for c in str(error).split("\n")[0][:200])
        if isinstance(error, ValidationError):
            reason = "its description is damaged or of another version"
        raise OTCacheError(
            f"{path.name} holds no statistics of a model ({reason}); delete it, and they are learnt anew."
        ) from None


def _read(file) -> Statistics:
    described = (file.metadata() or {}).get(FORMAT)
    if described is None:
        raise ValueError("it is of another kind")
    check_size(described, values=MOST_VALUES, names=MOST_NAMES)
    told = _Description.model_validate_json(described)
    names = {"sigmas", "grams", "moves"} | {f"{n}.{k}" for n in ("gram", "moments", "squares") for k in range(len(told.visits))}
    rehearsals, holds = ({chosen: tuple(pair) for chosen, *pair in part} for part in (told.rehearsals, told.holds))
    twice = any(len({of for of, *_ in part}) < len(part) for part in (told.rehearsals, told.holds))
    if set(file.keys()) != names or len(set(told.visits)) < len(told.visits) or twice:
        raise ValueError("it does not hold what it says")
    sigmas = check_sigmas(_array(file, "sigmas"))
    steps = len(sigmas) - 1
    if steps > MOST_STEPS:
        raise ValueError(f"it has more than {MOST_STEPS} steps")
    bands, visits = told.bands, {}
    grams = _gram(file, "grams", bands, steps)
    for number, key in enumerate(told.visits):
        if not steps > key[0] or key[-1] < 0 or any(older >= newer for newer, older in pairwise(key)):
            raise ValueError("a visit's steps are out of range")
        m, ends = len(key), steps - key[0]
        gram = _gram(file, f"gram.{number}", bands, m)
        moments, squares = _array(file, f"moments.{number}", bands, m, ends), _array(file, f"squares.{number}", bands, ends)
        most = np.diagonal(gram, axis1=1, axis2=2)[..., None] * squares[:, None]
        if (squares < 0).any() or (moments**2 > 1.001 * most + TINY).any():
            raise ValueError("its numbers cannot be inner products")
        visits[key] = Visit(gram, moments, squares)
    for chosen in (*rehearsals, *holds):
        check_steps(chosen, steps)
    moves = _array(file, "moves", steps)
    return Statistics(sigmas, told.runs, grams, visits, rehearsals, moves, told.held, told.origin, holds)


def _array(file, name: str, *shape: int) -> np.ndarray:
    """A tensor of the file as float64 [*shape] (any shape for none); raises `ValueError`."""
    part = file.get_slice(name)
    if part.get_dtype() not in ("F32", "F64") or shape and tuple(part.get_shape()) != shape:
        raise ValueError(f"{name} has another shape or type")
    array = file.get_tensor(name).astype(np.float64)
    if not (np.abs(array) < LARGEST).all():
        raise ValueError(f"{name} is not finite")
    return array


def _gram(file, name: str, bands: int, size: int) -> np.ndarray:
    """Inner products float64 [bands, size, size]; raises `ValueError` where no vectors can have them."""
    gram = _array(file, name, bands, size, size)
    room = ROUNDING * np.trace(gram, axis1=1, axis2=2) + TINY
    lies = np.abs(gram - gram.swapaxes(1, 2)).max((1, 2)) > room
    if lies.any() or (np.linalg.eigvalsh(gram)[:, 0] < -room).any():
        raise ValueError("its numbers cannot be inner products")
    return gram


def of_recording(recording: Recording, origin: Origin = Origin()) -> Statistics:  # noqa: B008
    """Those of full runs alone, without rehearsals; every latent of the batch is a run."""
    seen, response = recorded(recording.trajectories), recording.response
    moves = np.diff(seen.sigmas) if response.moves is None else response.moves
    return Statistics(seen.sigmas, seen.bands.shape[1], seen.bands.sum(1), {}, {}, moves, response.astray, origin)
