"""What a calibration is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import OTCacheError
from ..schedules.schedule import check_budget
from ..schedules.transport import budget_to_lambda
from .guard import MOST
from .metrics import DEFAULT, LATENT, check_metric
from .places import Place

BUDGETS = range(5, 26)
REFERENCE_BUDGET = 15
ANCHOR_BUDGET = 8
TRIALS = 60
ALLOWANCE = 28.0


@dataclass(frozen=True)
class Settings:
    """What a calibration is asked for; the defaults suit 50 steps.

    allowance: full runs' worth of evaluations a case that all stages may make together. When it runs short, the guard
    tries fewer candidates. storage: where the search's trials are kept (see `open_storage`); memory: a folder for all other
    measurements. With both, an interrupted calibration goes on where it stopped. metric: one of `DISTANCES`, or `LATENT`,
    which needs no decoder. model, model_class, model_key, noise: as in `Schedule`. identity: what tells this model, with all
    that it runs with, from every other one; measurements of the same identity are trusted, so that machines that round
    differently can share them, and workers with one identity and one storage for several machines (a server, or a journal on a
    shared disk) divide all that needs the model. Without it they are used only where the full runs agree.
    """

    budgets: Sequence[int] = BUDGETS
    reference_budget: int = REFERENCE_BUDGET
    anchor_budget: int = ANCHOR_BUDGET
    trials: int = TRIALS
    allowance: float = ALLOWANCE
    gamma: float = 4.0
    metric: str = DEFAULT
    seed: int = 0
    storage: str | Place | None = None
    memory: str | None = None
    model: str = ""
    model_class: str = ""
    model_key: str = ""
    noise: str = ""
    identity: str = ""

    def check(self, steps: int) -> None:
        """Raise `OTCacheError` unless every budget fits a run of `steps` steps."""
        check_budget(self.reference_budget, steps, "reference budget")
        check_budget(self.anchor_budget, steps, "anchor budget")
        budget_to_lambda(self.anchor_budget, self.anchor_budget, self.reference_budget)
        for budget in self.budgets:
            check_budget(budget, steps)
        if self.metric != LATENT:
            check_metric(self.metric)
        if self.seed < 0:
            raise OTCacheError(f"seed is {self.seed}, but must not be negative; 0 is a good number.")
        if not (self.gamma >= 1 and self.trials >= 1):
            raise OTCacheError(f"gamma is {self.gamma} and trials is {self.trials}, but both must be at least 1; try 4 and 60.")

    def pictures(self, cases: int) -> int:
        """How many pictures `prepare` decodes at most."""
        return 0 if self.metric == LATENT else cases * (1 + self.trials + MOST * len(self.budgets))
