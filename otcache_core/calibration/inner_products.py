"""Inner products of recorded velocities: all that graphs and weights need of a model's runs, whatever the latent's size."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..sampling.trajectory import gram_matrices


@dataclass(frozen=True)
class Products:
    """Inner products of velocities and latents along recorded runs, a mean over elements, case by case.

    moves: float64 [N], how far a unit velocity at each step moves the latent; velocities: d_i d_j, float64 [cases, N, N].
    """

    moves: np.ndarray
    velocities: np.ndarray

    @cached_property
    def mixed(self) -> np.ndarray:
        """d_i (x_j - x_0), float64 [cases, N, N + 1]."""
        return np.cumsum(np.insert(self.velocities * self.moves, 0, 0.0, axis=2), axis=2)

    @cached_property
    def latents(self) -> np.ndarray:
        """(x_i - x_0)(x_j - x_0), float64 [cases, N + 1, N + 1]."""
        return np.cumsum(np.insert(self.mixed * self.moves[:, None], 0, 0.0, axis=1), axis=1)

    def of_segments(self, start: int, steps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the error of segments from `start` to j = start + 1..N is made of, for evaluations at `steps` [..., m].

        Returns products of the evaluations [cases, ..., m, m], of them with x_j - x_start [cases, ..., m, J], and of that
        with itself [cases, J].
        """
        steps = np.asarray(steps)
        basis = self.velocities[:, steps[..., :, None], steps[..., None, :]]
        moments = self.mixed[:, steps, start + 1 :] - self.mixed[:, steps, start, None]
        ends = np.arange(start + 1, len(self.moves) + 1)
        squares = self.latents[:, ends, ends] - 2 * self.latents[:, start, ends] + self.latents[:, start, start, None]
        return basis, moments, squares


@dataclass(frozen=True)
class GramData:
    """What the graph needs of the calibration cases: sigmas float64 [N + 1] and Gram matrices float64 [cases, N, N].

    bands: the same by band of the latents (`sampling.layout`), float64 [bands, cases, N, N], for fitted weights; they are
    taken as orthogonal. moves: float64 [N], how far a unit velocity at each step moves the latent (`sampling.response`);
    None for Euler's steps.
    """

    sigmas: np.ndarray
    grams: np.ndarray
    bands: np.ndarray
    moves: np.ndarray | None = None

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @cached_property
    def products(self) -> Products:
        """Those of whole velocities."""
        return Products(self.weights, self.grams)

    @cached_property
    def band_products(self) -> list[Products]:
        """Those of each band."""
        return [Products(self.weights, grams) for grams in self.bands]

    @property
    def weights(self) -> np.ndarray:
        """`moves`, or Euler's, float64 [N]."""
        return np.diff(self.sigmas) if self.moves is None else self.moves

    @cached_property
    def travelled(self) -> np.ndarray:
        """Coefficients float64 [N + 1, N] on the recorded velocities of x_j - x_0."""
        return np.tri(self.steps + 1, self.steps, -1) * self.weights

    def displacements(self, start: int) -> np.ndarray:
        """Coefficients float64 [N - start, N] on the recorded velocities of x_j - x_start, for j = start + 1..N."""
        return self.travelled[start + 1 :] - self.travelled[start]

    def mean_squares(self, coefficients: np.ndarray) -> np.ndarray:
        """|sum_l c_l d_l|^2 per element and case, float64 [..., cases], for coefficients [..., N]."""
        return mean_squares(coefficients, self.grams)


def recorded(trajectories, bands: int = 2) -> GramData:
    """The Gram matrices of `trajectories`, with bands unless `bands` is 1.

    Raises `OTCacheError` for an empty list or grids that differ.
    """
    whole = gram_matrices(trajectories)
    return GramData(trajectories[0].sigmas, whole[0], gram_matrices(trajectories, bands) if bands > 1 else whole)


def mean_squares(coefficients: np.ndarray, grams: np.ndarray) -> np.ndarray:
    """|sum_l c_l d_l|^2 per element and case, float64 [..., cases], for coefficients [..., N] and grams [cases, N, N]."""
    return np.maximum(np.einsum("...l,clm,...m->...c", coefficients, grams, coefficients, optimize=True), 0.0)
