"""Which budgets of a run are rehearsed when it teaches."""

LADDER = (0.12, 0.24)  # of the steps: the budgets that are rehearsed
FEW_STEPS = 30  # runs of no more are steep, and each of their evaluations is a larger part
REACH, REACH_BACK = 1.5, 1.2  # times the highest of them: where a budget asked for is served well enough; multistep samplers'
LEAST = 5  # evaluations of a rehearsal


def rehearsed_budgets(steps: int, asked: int = 0, looks_back: bool = False) -> list[int]:
    """The budgets to rehearse for a run of `steps`: 18 evaluations in all for 50 of them, 5 for 20.

    asked: the budget that is wanted. Above the reach of the others it is rehearsed too, up to half the steps: what is learnt at
    long gaps says little of short ones. looks_back: whether the sampler is a multistep one; these go astray where weights are
    not quite theirs, so that the reach is less, and the budget takes the place of the others but the least, with many steps
    only where it is near the highest.
    """
    most = steps // 2
    ladder = {min(max(round(share * steps), LEAST), most) for share in LADDER} - {0, 1}
    wanted = min(asked, most)
    few = steps <= FEW_STEPS
    if ladder and looks_back and wanted > REACH_BACK * (min(ladder) if few else max(ladder)):
        return sorted({min(ladder), wanted} if few or wanted <= REACH * max(ladder) else ladder | {wanted})
    return sorted(ladder | {wanted} if ladder and wanted > REACH * max(ladder) else ladder)
