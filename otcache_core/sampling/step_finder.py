"""Which step of a run an evaluation belongs to, told from noise levels alone."""

from bisect import bisect_left
from collections.abc import Sequence

ON_GRID = 1e-4  # relative; float32 sigmas that went through a sampler's own arithmetic


class StepFinder:
    """Follows the evaluations of one run of a sampler with fixed steps.

    A step begins at its sigma, and inner stages lie between that and the next. But a sampler may first add noise and so begin
    its steps above their sigmas (`s_churn` of Karras et al. 2022), where a stage of the step before might be as well. Where
    that is not known beforehand, a first evaluation above the whole run tells the factor by which it does.
    """

    def __init__(self, sigmas: Sequence[float], starts: Sequence[float] | None = None):
        """sigmas: [N + 1], strictly falling; the last one ends the last step. starts: [N], where each step begins, if known."""
        self._sigmas = [float(sigma) for sigma in sigmas[:-1]]
        self._rising = [-sigma for sigma in self._sigmas]  # as bisect wants it
        self._starts = self._sigmas if starts is None else [float(sigma) for sigma in starts]
        self._step = -1  # of the newest evaluation

    def locate(self, sigma: float) -> tuple[int, bool]:
        """The step that the coming evaluation at `sigma` belongs to, and whether it is that step's beginning."""
        step, begins = self.on_grid(sigma)
        raised = self._raised(sigma, begins)
        if raised is not None:
            step, begins = raised, True
        elif self._starts is not self._sigmas and step < self._step and sigma < self._starts[self._step]:
            step, begins = self._step, False  # a stage that lies above its step's own sigma
        self._step = step
        return step, begins

    def on_grid(self, sigma: float) -> tuple[int, bool]:
        """The step whose interval sigmas[i] >= sigma > sigmas[i + 1] holds `sigma`, and whether it is the step's own sigma.

        Within a relative `ON_GRID` of a grid point that point is meant. Above the grid it is step 0, below it the last.
        """
        below = bisect_left(self._rising, -sigma)  # the first grid point at or below sigma
        near = [i for i in (below - 1, below) if 0 <= i < len(self._sigmas) and self._is(sigma, self._sigmas[i])]
        if near:
            return min(near, key=lambda i: abs(self._sigmas[i] - sigma)), True
        return max(below - 1, 0), False

    def _raised(self, sigma: float, on_grid: bool) -> int | None:
        """The step that begins at `sigma`, above its own noise level, if one does."""
        if self._step < 0 and not on_grid and self._starts is self._sigmas and sigma > self._sigmas[0]:
            self._starts = [sigma / self._sigmas[0] * point for point in self._sigmas]
        for candidate in (self._step + 1, self._step):
            if 0 <= candidate < len(self._starts) and self._is(sigma, self._starts[candidate]):
                return candidate
        return None

    @staticmethod
    def _is(sigma: float, point: float) -> bool:
        return abs(sigma - point) <= point * ON_GRID
