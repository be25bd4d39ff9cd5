"""Whether skipped steps follow fitted weights or hold, as rehearsals told.

Multistep samplers difference what they are given, and some make so much of any error that weights which land where they were
fitted to are further off in the end than holding is (measured: uni_pc at guidance 7.5); so can be samplers whose steps are not
known at all (dpm_2). Which of both is nearer depends on model, guidance and budget. Where rehearsals of samplers that do not
step as Euler does hardly came nearer with more evaluations, the largest budget is rehearsed in both ways.
"""

from collections.abc import Iterable, Mapping

import numpy as np

STEEP = -1.0  # slope of error against budget, in logarithms, where two rehearsals do not tell a steeper one
BY_CHANCE = 0.9  # of the error of holding: what weights have to be below, since one run says that much by chance
FAR = 0.5  # relative error from which a rehearsal has gone astray: it is to be doubted, and what it fitted says little
SETTLED = 0.8  # of the error at the smallest rehearsed budget: what that at the largest has to be below
TINY = 1e-30  # a latent's mean square that says nothing

Outcomes = Mapping[tuple[int, ...], tuple[float, float]]
"""Of rehearsals: by compute steps, the squared error of the final latent and the recorded one's square."""


def relative(outcomes: Outcomes) -> dict[int, float]:
    """{budget: relative root mean square error of the final latent}, the smallest budget first."""
    sums: dict[int, np.ndarray] = {}
    for steps, pair in sorted(outcomes.items(), key=lambda one: len(one[0])):
        sums[len(steps)] = sums.get(len(steps), 0.0) + np.array(pair)
    return {budget: float(np.sqrt(error / square)) for budget, (error, square) in sums.items() if square > TINY}


def nearer(fitted: Outcomes, held: Outcomes) -> dict[int, float]:
    """`relative` errors of the budgets that were `fitted`, of the way that came nearer, the smallest first."""
    holding = relative(held)
    return {budget: min(error, holding.get(budget, error)) for budget, error in relative(fitted).items()}


def added(one: Outcomes, other: Outcomes) -> dict[tuple[int, ...], tuple[float, float]]:
    """Those of both; of equal compute steps, their sums."""
    none = 0.0, 0.0
    return {steps: tuple(np.add(one.get(steps, none), other.get(steps, none)).tolist()) for steps in {**one, **other}}


def settles(fitted: Outcomes) -> bool:
    """Whether more evaluations came nearer in rehearsals, and a single rehearsal near at all. Some samplers of high order
    make more of any error, so that nothing can be fitted to where they went."""
    errors = list(relative(fitted).values())
    return not errors or errors[-1] < SETTLED * (errors[0] if len(errors) > 1 else 1.0)


def doubtful(fitted: Outcomes) -> bool:
    """Whether the error fell by less than the budget grew in rehearsals, so that holding should be rehearsed as well; that of
    a single one where it is far off."""
    found = relative(fitted)
    if len(found) < 2:
        return any(error >= FAR for error in found.values())
    (few, worse), *_, (many, better) = found.items()
    return better * many > worse * few


def holds(fitted: Outcomes, held: Outcomes, budget: int) -> bool:
    """Whether skipped steps of a run of `budget` evaluations hold, where rehearsals of `fitted` weights and `held` ones made
    the outcomes.

    What was rehearsed in both ways decides for its budget and larger ones: the smaller the budget, the more fitted weights
    gain. Below, and where nothing was, it is asked whether rehearsals got anywhere.
    """
    following, holding = relative(fitted), relative(held)
    both = [known for known in holding if known in following]
    if not both:
        return not settles(fitted)
    decides = [known for known in both if known <= budget]
    if decides:
        return following[decides[-1]] >= min(BY_CHANCE * holding[decides[-1]], FAR)
    return min(following.values()) >= 1.0


def expected_errors(errors: Mapping[int, float], budgets: Iterable[int]) -> dict[int, float]:
    """{budget: expected relative root mean square error of the final latent}, an estimate; empty without rehearsals.

    errors: those that were measured, by budget. On a line in logarithms through them, continued beyond with the mean slope.
    Where more evaluations gave more error (by chance), the smaller budget's error counts for both.
    """
    known = sorted(errors.items())
    if not known:
        return {}
    sizes, logs = np.log(np.maximum(np.array(known), 1e-9)).T
    logs = np.minimum.accumulate(logs)
    slope = min((logs[-1] - logs[0]) / (sizes[-1] - sizes[0]), STEEP) if len(known) > 1 else STEEP
    found = {}
    for budget in budgets:
        at = np.log(budget)
        beyond = min(at - sizes[0], 0.0) + max(at - sizes[-1], 0.0)
        found[budget] = float(np.exp(np.interp(at, sizes, logs) + slope * beyond))
    return found
