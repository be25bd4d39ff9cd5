"""Which step of a run an evaluation belongs to, told from noise levels alone."""

from bisect import bisect_left
from collections.abc import Sequence

ON_GRID = 1e-4  # relative; float32 sigmas that went through a sampler's own arithmetic
MOST = 2**0.5 * (1 + ON_GRID)  # how far above its sigma a step may begin (Karras et al. 2022)


class StepFinder:
    """Follows the evaluations of one run of a sampler with fixed steps.

    A step begins at its sigma, and inner stages lie between that and the next. But a sampler may first add noise and so begin
    its steps above their sigmas (`s_churn` of Karras et al. 2022), where a stage of the step before might be as well. Three
    things tell the beginning of a step: a noise level above the whole run's; one above a step's by the same factor as at an
    earlier beginning; and a second evaluation in one step by a sampler that has so far made one a step.
    """

    def __init__(self, sigmas: Sequence[float]):
        """sigmas: [N + 1], strictly falling; the last one ends the last step."""
        self._sigmas = [float(sigma) for sigma in sigmas[:-1]]
        self._rising = [-sigma for sigma in self._sigmas]  # as bisect wants it
        self._step = -1  # of the newest evaluation
        self._staged = False  # whether any step has had more than one
        self._factor: float | None = None

    def locate(self, sigma: float) -> tuple[int, bool]:
        """The step that the coming evaluation at `sigma` belongs to, and whether it is that step's beginning."""
        step, begins = self.on_grid(sigma)
        raised = self._raised(sigma, step, begins)
        if raised is not None:
            step, begins = raised, True
        elif self._factor and step < self._step and sigma < self._sigmas[self._step] * self._factor:
            step, begins = self._step, False  # a stage that lies above its step's own sigma
        self._staged = self._staged or step == self._step
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

    def _raised(self, sigma: float, step: int, on_grid: bool) -> int | None:
        """The step that begins at `sigma`, above its own noise level, if one does."""
        following = self._step + 1
        if self._factor:
            for candidate in (following, self._step):
                if 0 <= candidate < len(self._sigmas) and self._is(sigma, self._sigmas[candidate] * self._factor):
                    return candidate
        single = self._step != 0 and not self._staged  # the first step alone does not tell
        if on_grid or not single or step > self._step >= 0 or following >= len(self._sigmas):
            return None
        factor = sigma / self._sigmas[following]
        if not 1 < factor <= MOST:
            return None
        self._factor = factor
        return following

    @staticmethod
    def _is(sigma: float, point: float) -> bool:
        return abs(sigma - point) <= point * ON_GRID
