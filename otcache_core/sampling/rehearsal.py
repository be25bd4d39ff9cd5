"""Recording a run while it is sampled in full, and rehearsing short runs against it.

Why rehearse: an evaluation at a latent that caching has moved is not the recorded one (its error there may be several
times the latent's own), and nothing in one run tells how it answers. Weights that are fitted to the recorded velocities
alone can lose to holding. A rehearsal is a cached run of the very same case: at each compute step the evaluation is made,
and the weights up to the next one are fitted there to land on the recorded latent.

Where the sampler's response is known, latents are counted as where they will have moved the final one (x_0 plus the moves of
the velocities so far): what a multistep sampler still owes to the steps it looks back on is no error, and weights that made
up for it would swing ever further. Of samplers that add noise the denoised latents are recorded; holding these is what their
runs do, so that rehearsals only measure.

Both are `CachedRun`s: whatever drives one, any sampler, drives them. They keep a sample of positions only.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..errors import OTCacheError
from ..schedules.extrapolation import prior_weights
from ..schedules.schedule import make_schedule
from .cached_run import CachedRun
from .layout import Layout
from .patches import Patches
from .predictors import RIDGE, landing_moves, solve_ridge
from .response import Response
from .rollout import fitted_to
from .trajectory import Trajectory

ELEMENTS = 3 * 2**20  # of all latents and velocities of a run that are kept: 12 MiB in float32
CHANGED = "conditionings, guidance or sizes changed in mid-run"


@dataclass(frozen=True)
class Recording:
    """What was kept of one full run of b latents: x [N + 1, b, ...] before each step and at the end, the velocities d
    [N, b, ...], and where in the latent they lie. Rehearsals need no velocities, which may be None for them. Where the
    sampler adds noise, d holds denoised latents.
    """

    sigmas: np.ndarray
    x: torch.Tensor
    d: torch.Tensor | None
    patches: Patches
    response: Response = Response()  # noqa: RUF009

    @property
    def landings(self) -> "Recording":
        """Without velocities, for rehearsals: x as where it will have moved the final latent, if the response tells."""
        if self.response.moves is None:
            return replace(self, d=None)
        moves = torch.from_numpy(self.response.moves).to(self.d).view(-1, *[1] * (self.d.ndim - 1))
        return replace(self, x=torch.cat([self.x[:1], self.x[:1] + torch.cumsum(moves * self.d, 0)]), d=None)

    @property
    def trajectories(self) -> list[Trajectory]:
        """One for each of the b; raises `OTCacheError` when anything is not finite."""
        kept = self.patches.kept
        return [Trajectory(self.sigmas, self.x[:, case], self.d[:, case], kept) for case in range(self.x.shape[1])]


class Recorder(CachedRun):
    """Takes in every step of a run that is computed in full on `sigmas` [N + 1]; `recording` gives what was kept.

    Nothing is ever predicted, so that no whole evaluation is held: those of a video are large.
    """

    def __init__(self, sigmas: np.ndarray, layout: Layout | None = None):
        steps = len(sigmas) - 1
        everything = make_schedule(sigmas=tuple(sigmas), compute_steps=tuple(range(steps)), predictor={"kind": "hold"})
        super().__init__(everything, layout)
        self._patches: Patches | None = None
        self._kept: list[tuple[torch.Tensor, torch.Tensor]] = []  # (latent, velocity), step by step
        self._lost = ""

    def observe(self, step: int, d, x=None) -> None:
        self._keep(step, x, lambda of: of(d), d.shape)

    def evaluated(self, step: int, x, denoised, sigma: float) -> None:
        if self.response.astray:
            self._keep(step, x, lambda of: of(denoised), denoised.shape)
        else:
            self._keep(step, x, lambda of: of(denoised).neg_().add_(of(x)).div_(sigma), denoised.shape)

    def _keep(self, step: int, x, velocity: Callable, shape) -> None:
        """velocity: from `Patches.of`, what is kept of the velocity, whose shape is `shape`."""
        self.evaluations += 1
        if self._lost:  # the first reason is the true one
            return
        most = max(ELEMENTS // (2 * self.schedule.steps + 1) // len(x), 1)
        self._patches = self._patches or Patches(x.shape, most, self.layout)
        if step == len(self._kept) - 1:  # the sampler came back to it, at another latent (heun)
            del self._kept[-1]
        if not x.shape == shape == self._patches.shape:
            self._lost = CHANGED
        elif step != len(self._kept):
            self._lost = "the sampler did not go through the steps in their order"
        else:
            self._kept.append((self._patches.of(x), velocity(self._patches.of)))

    def forget(self) -> None:
        if self._kept:
            self._lost = self._lost or CHANGED
        super().forget()

    @property
    def watches(self) -> bool:
        return True

    @property
    def takes_stages(self) -> bool:
        return False

    def recording(self) -> Recording:
        """What was kept, on the CPU; raises `OTCacheError` with the reason when the run teaches nothing.

        The latent after the last step is where Euler lands, as most samplers do there.
        """
        steps = self.schedule.steps
        if not self._lost and len(self._kept) != steps:
            self._lost = f"only {len(self._kept)} of {steps} steps were evaluated at their beginning"
        if self._lost:
            raise OTCacheError(f"{self._lost}.")
        x, d = (torch.stack(part).cpu() for part in zip(*self._kept, strict=True))
        moves = torch.from_numpy(np.diff(self.sigmas)).float().view(-1, *[1] * (d.ndim - 1)) * d
        x = torch.cat([x, (x[-1] + moves[-1])[None]])
        if not all(torch.isfinite(part).all() for part in (x, d)):
            raise OTCacheError("the run is not finite (NaN or infinity).")
        return Recording(self.sigmas, x, d, self._patches, self.response)


@dataclass(frozen=True)
class Visit:
    """Inner products at one compute step of rehearsals, a mean over elements and a sum over runs, for each band.

    Parts of packed latents count alike (`Layout.sizes`).

    gram: of the m <= 3 newest evaluations with each other, float64 [bands, m, m]; moments: of them with x_j - x, where x is
    the rehearsal's latent and x_j the recorded ones at each later grid point, [bands, m, N - step]; squares: of x_j - x with
    itself, [bands, N - step].
    """

    gram: np.ndarray
    moments: np.ndarray
    squares: np.ndarray

    def __add__(self, other: "Visit") -> "Visit":
        return Visit(self.gram + other.gram, self.moments + other.moments, self.squares + other.squares)


def summed(visits: Iterable[tuple[tuple[int, ...], Visit]]) -> dict[tuple[int, ...], Visit]:
    """Visits by their evaluations, those of equal ones added."""
    found: dict[tuple[int, ...], Visit] = {}
    for steps, seen in visits:
        found[steps] = found[steps] + seen if steps in found else seen
    return found


def visit(
    evaluations: Sequence[torch.Tensor], latent: torch.Tensor, later: torch.Tensor, layout: Layout | None = None
) -> Visit:
    """Inner products of m `evaluations` [b, ...], newest first, at `latent` [b, ...], with the recorded `later` [J, b, ...].

    All on the CPU. layout: of these, None for plain ones. Elements of one latent are averaged, latents added.
    """
    layout = layout or Layout([latent.shape])
    evaluations, counts = _bands(torch.stack(list(evaluations)), layout), np.array(layout.sizes(layout.split(latent)))
    grams = [basis @ basis.T for basis in evaluations]
    moments, squares = [], []
    for point in later:  # one after the other: in float64 and bands, all together would take several times what is kept
        ways = _bands((point - latent)[None], layout)
        moments.append(torch.stack([basis @ way[0] for basis, way in zip(evaluations, ways, strict=True)]))
        squares.append(torch.stack([way[0] @ way[0] for way in ways]))
    parts = torch.stack(grams), torch.stack(moments, -1), torch.stack(squares, -1)
    return Visit(*(part.numpy() / counts.reshape(-1, *[1] * (part.ndim - 1)) for part in parts))


def _bands(tensors: torch.Tensor, layout: Layout) -> list[torch.Tensor]:
    """The bands of tensors [n, b, ...], flattened: float64 [n, elements]."""
    return [band.reshape(len(tensors), -1).double() for band in layout.split(tensors.flatten(0, 1))]


class Rehearsal(CachedRun):
    """A cached run of recorded cases at `compute_steps` that fits its weights as it goes.

    visits: by the grid steps of the evaluations, newest first. Raises `OTCacheError` from `observe` when the run is not the
    recorded one's: another latent's shape, or evaluations that the schedule does not name.
    """

    def __init__(self, recording: Recording, compute_steps: Sequence[int]):
        layout, chosen = recording.patches.layout, tuple(compute_steps)
        rows = tuple((1.0,) * layout.bands for _ in chosen)
        sigmas, predictor = tuple(recording.sigmas), fitted_to(layout.bands)
        super().__init__(make_schedule(sigmas=sigmas, compute_steps=chosen, predictor=predictor, weights=rows), layout)
        self._recording = recording
        self._kept: dict[int, torch.Tensor] = {}  # of the newest evaluations, by step
        self._landing: torch.Tensor | None = None  # the latent as the recording counts latents
        self._row: np.ndarray | None = None
        self.visits: dict[tuple[int, ...], Visit] = {}

    def observe(self, step: int, d, x=None) -> None:
        super().observe(step, d)
        if x.shape != self._recording.patches.shape or step not in self._segment:
            raise OTCacheError("the rehearsal did not go as the recorded run did.")
        if self.response.astray:
            return
        steps, moves = self._steps(), self.response.moves
        self._kept = {past: self._kept[past] for past in steps[1:]} | {step: self._recording.patches.of(d).cpu()}
        latent = self._recording.patches.of(x).cpu() if moves is None or self._landing is None else self._landing
        seen = visit([self._kept[past] for past in steps], latent, self._recording.x[step + 1 :], self._recording.patches.kept)
        self.visits[steps] = seen
        _, end = self.schedule.segments[self._segment[step]]
        grid = self.sigmas[step : end + 1]
        prior, at = prior_weights(self._past(), grid), end - step - 1
        span = landing_moves(grid, None if moves is None else moves[step:end]).sum()
        self._row = solve_ridge(seen.gram, seen.moments[:, None, :, at] / span, prior[None], RIDGE).ravel()
        self._landing = latent
        self._land(step, self._kept[step])

    def predict(self, step: int, sigma: float | None = None):
        d = super().predict(step, sigma)
        if self.response.moves is not None:
            self._land(step, self._recording.patches.of(d).cpu())
        return d

    def _land(self, step: int, velocity: torch.Tensor) -> None:
        if self.response.moves is not None:
            self._landing = self._landing + velocity * float(self.response.moves[step])

    def _ramp(self, steps: tuple[int, ...]):
        segment = super()._ramp(steps)
        return segment and (self._row, *segment[1:])
