"""What a full run recorded, kept within a memory limit."""

import json
import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import OTCacheError
from ..files import written_whole
from ..schedules.schedule import check_sigmas
from .filed import Filed, Files, fetched, give_back
from .layout import Layout, low_pass
from .patches import Patches, sample_of

AT_ONCE = 2**21  # elements in double precision, 16 MiB: larger pieces are no faster


@dataclass(frozen=True)
class Trajectory:
    """One uncached run of one case.

    sigmas: float64 [N + 1], strictly falling. x: [N + 1, *latent], the latent before each step and at the end.
    d: [N, *latent], dx / dsigma at each step. layout: of the latents, None for plain ones. Raises
    `OTCacheError` if shapes disagree or anything is not finite.

    Of large latents x and d hold a sample of positions (`patches`, None where they hold all), and `layout` tells that of the
    sample. Then half and end are the whole latents [*latent] before step N // 2 and at the end, or the files that hold these.
    See `recorded_run`.
    """

    sigmas: np.ndarray
    x: torch.Tensor
    d: torch.Tensor
    layout: Layout | None = None
    half: torch.Tensor | Filed | None = None
    end: torch.Tensor | Filed | None = None
    patches: Patches | None = field(init=False, default=None)

    def __post_init__(self):
        try:
            object.__setattr__(self, "sigmas", check_sigmas(self.sigmas))
        except ValueError as error:
            raise OTCacheError(f"trajectory: {error}.") from None
        steps = len(self.sigmas) - 1
        if len(self.x) != steps + 1 or len(self.d) != steps or self.x.shape[1:] != self.d.shape[1:]:
            raise OTCacheError(
                f"trajectory: x {tuple(self.x.shape)} and d {tuple(self.d.shape)} do not fit {steps} steps; "
                "record one latent before each step and one at the end, and one velocity for each step."
            )
        if self.end is not None:
            object.__setattr__(self, "patches", sample_of(self.end.shape, self.layout))
            shapes = self.half is not None and self.half.shape == self.end.shape
            if not (shapes and self.patches and self.kept(self.final[None]).shape == self.x[-1:].shape):
                raise OTCacheError(f"trajectory: {tuple(self.x.shape[1:])} of {tuple(self.end.shape)} is another sample.")
            object.__setattr__(self, "layout", self.patches.kept)
        object.__setattr__(self, "layout", self.layout or Layout([self.x.shape]))
        if not self.layout.fits(self.x):
            raise OTCacheError(f"trajectory: latents {tuple(self.x.shape[1:])} do not hold the parts {self.layout.parts}.")
        bad = []
        for name, tensor in (("x", self.x), ("d", self.d)):
            steps = torch.isfinite(tensor).reshape(len(tensor), -1).all(1).logical_not().nonzero().flatten().tolist()
            bad += [(step, name == "d", name) for step in steps[:1]]
        if self.end is not None:
            whole = ((self.half, len(self.d) // 2), (self.end, len(self.d)))
            bad += [(step, False, "x") for latent, step in whole if not torch.isfinite(fetched(latent)).all()]
        if bad:  # the earliest; a latent precedes its step's velocity
            step, _, name = min(bad)
            raise OTCacheError(
                f"trajectory: {name} at step {step} is not finite (NaN or infinity); "
                "the model diverges or overflows on this case, so run it in higher precision or drop the case."
            )

    @property
    def steps(self) -> int:
        """N, the number of sampling steps."""
        return len(self.d)

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors in memory."""
        tensors = (self.x, self.d, self.half, self.end)
        return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, torch.Tensor))

    @property
    def whole_layout(self) -> Layout:
        """Of the latents themselves."""
        return self.patches.layout if self.patches else self.layout

    @property
    def halfway(self) -> torch.Tensor:
        """The whole latent [*latent] before step N // 2."""
        return self.x[self.steps // 2] if self.half is None else fetched(self.half)

    @property
    def final(self) -> torch.Tensor:
        """The whole latent [*latent] at the end."""
        return self.x[-1] if self.end is None else fetched(self.end)

    def kept(self, latents: torch.Tensor) -> torch.Tensor:
        """What a recording keeps of `latents` [b, *latent]: all, or float32 [b, *sample]."""
        return self.patches.of(latents) if self.patches else latents

    def put_by(self, files: Files) -> "Trajectory":
        """The same, with its whole latents in files."""
        if self.end is None:
            return self
        return replace(self, layout=self.whole_layout, half=files.put(self.halfway), end=files.put(self.final))

    def _tensors(self) -> dict[str, torch.Tensor]:
        whole = {} if self.end is None else {"half": self.halfway, "end": self.final}
        return {"x": self.x, "d": self.d, **whole}

    def save(self, path: str | Path) -> None:
        """Write as safetensors, whole or not at all."""
        tensors = {name: tensor.contiguous() for name, tensor in self._tensors().items()}
        told = {"sigmas": json.dumps(self.sigmas.tolist())}
        if self.whole_layout.packed:
            told["parts"] = json.dumps(self.whole_layout.parts)
        with written_whole(path) as temporary:
            try:
                save_file(tensors, temporary, metadata=told)
            except SafetensorError as error:
                raise OTCacheError(f"Cannot write {path}: {error}; free space or choose another place.") from None


def recorded_run(sigmas: np.ndarray, steps: Iterable[tuple], layout: Layout | None = None) -> Trajectory:
    """What is kept of a run on `sigmas` [N + 1] that goes through `steps`, N + 1 pairs: the latent [*latent], its velocity.

    The last velocity is None. Latents of up to `patches.WHOLE` elements are kept whole, of larger ones a sample is. Raises
    `OTCacheError` when something is not finite.
    """
    count, patches, whole, kept = len(sigmas) - 1, None, [], ([], [])
    for step, pair in enumerate(steps):
        if not step and (patches := sample_of(pair[0].shape, layout)):
            # All at once: between whole latents that come and go, small tensors would leave gaps that nothing fits in.
            row = patches.of(pair[0][None])[0]
            kept = [row.new_empty(length, *row.shape) for length in (count + 1, count)]
        for part, tensor in zip(kept, pair, strict=True):
            if tensor is not None and patches:
                part[step] = patches.of(tensor[None])[0]
            elif tensor is not None:
                part.append(tensor)
        if patches and step in (count // 2, count):
            whole.append(pair[0].clone())
        if patches:
            del pair, tensor  # before the next ones are made
            give_back()
    x, d = kept if patches else map(torch.stack, kept)
    return Trajectory(sigmas, x, d, layout, *whole)


def load_trajectory(path: str | Path) -> Trajectory:
    """Read what `Trajectory.save` wrote; tensors stay memory-mapped. Raises `OTCacheError` naming the file."""
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata()
            layout = Layout([(1, *part) for part in json.loads(told["parts"])]) if "parts" in told else None
            whole = [file.get_tensor(name) for name in ("half", "end") if "end" in file.keys()]  # noqa: SIM118
            x, d, sigmas = file.get_tensor("x"), file.get_tensor("d"), json.loads(told["sigmas"])
            if not whole and sample_of(x.shape[1:], layout):  # recorded before samples were
                return recorded_run(sigmas, zip(x, (*d, None), strict=True), layout)
            return Trajectory(sigmas, x, d, layout, *whole)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise OTCacheError(f"{Path(path).name} is no recorded trajectory ({error}); record it again.") from None


class TrajectoryStore(Sequence):
    """A list of trajectories that moves to a temporary folder what exceeds `max_bytes` of memory.

    The whole latents beside samples go there in any case, and are read when they are asked for. The rest stays memory-mapped,
    so that reading one step does not read the whole run. The folder is removed with the object.
    """

    def __init__(self, max_bytes: int = 2**28):
        self.max_bytes = max_bytes
        self._items: list[Trajectory] = []
        self._held = 0
        self._folder: tempfile.TemporaryDirectory | None = None
        self._files = Files()

    def append(self, trajectory: Trajectory) -> None:
        """Keep `trajectory` in memory while there is room, else on disk."""
        kept = trajectory.put_by(self._files)
        if self._held + kept.nbytes <= self.max_bytes:
            self._held += kept.nbytes
        else:
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="otcache-", ignore_cleanup_errors=True)
            path = Path(self._folder.name) / f"{len(self._items)}.safetensors"
            trajectory.save(path)
            kept = load_trajectory(path).put_by(self._files)
        self._items.append(kept)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index):
        return self._items[index]


def gram_matrices(trajectories: Sequence[Trajectory], bands: int = 1) -> np.ndarray:
    """Inner products of the recorded velocities, G[b, c, i, j] = mean over elements of d_i d_j, float64 [bands, cases, N, N].

    bands: 1 for those of whole velocities, more for those of each band that the latents have. Parts of packed latents count
    alike (`Layout.sizes`).

    Every local or propagated error of a linear predictor is a quadratic form in it, so the graph never needs latents
    again. Raises `OTCacheError` for an empty list or grids that differ.
    """
    if not len(trajectories):
        raise OTCacheError("The calibration set is empty; give at least one case (a prompt and a seed).")
    grid = trajectories[0].sigmas
    grams = []
    for trajectory in trajectories:
        if not np.array_equal(trajectory.sigmas, grid):
            raise OTCacheError("The calibration cases were recorded on different sigma grids; use one grid for all of them.")
        grams.append(band_grams(trajectory.d, trajectory.layout, bands))
    return np.stack(grams, axis=1)


def band_grams(velocities: torch.Tensor, layout: Layout, bands: int) -> list[np.ndarray]:
    """`gram_matrices` of one run's velocities [N, *latent], which fit `layout`: float64 [N, N] for each band.

    Some pictures at a time: all of them in double precision, and again by band, would take several times their own memory.
    """
    parts, found = layout.unpack(velocities), []
    for part, spatial in zip(parts, layout.spatial, strict=True):
        pictures = part.shape[-2:] if spatial else ()
        pieces = part.reshape(len(part), -1, *pictures)
        at_once = max(AT_ONCE // (len(part) * math.prod(pictures)), 1)
        total = torch.zeros(1 + (spatial and bands > 1), len(part), len(part), dtype=torch.float64, device=part.device)
        for piece in pieces.split(at_once, dim=1):
            whole = piece.double()
            low = low_pass(whole) if len(total) > 1 else None
            for gram, band in zip(total, [whole] if low is None else [low, whole - low], strict=True):
                flat = band.flatten(1)
                gram += flat @ flat.T
        found.extend((total / (part[0].numel() * len(parts))).numpy(force=True))
    return found if bands > 1 else [sum(found[1:], found[0])]
