"""Which budgets of a run are rehearsed when it teaches."""

LADDER = (0.12, 0.24)  # of the steps: the budgets that are rehearsed
FEW_STEPS = 30  # runs of no more are steep, and each of their evaluations is a larger part
REACH, REACH_OF_FEW = 1.5, 1.2  # times the highest of them: where a budget asked for is served well enough
LEAST = 5  # evaluations of a rehearsal


def rehearsed_budgets(steps: int, asked: int = 0) -> list[int]:
    """The budgets to rehearse for a run of `steps`: 18 evaluations in all for 50 of them, 5 for 20.

    asked: the budget that is wanted. Above the reach of the others it is rehearsed too, up to half the steps: what is learnt at
    long gaps says little of short ones.
    """
    most = steps // 2
    ladder = {min(max(round(share * steps), LEAST), most) for share in LADDER} - {0, 1}
    wanted = min(asked, most)
    if ladder and steps <= FEW_STEPS and wanted > reach(steps) * min(ladder):
        return sorted({min(ladder), wanted})  # in place of the other, which would be half a run more
    return sorted(ladder | {wanted} if ladder and wanted > reach(steps) * max(ladder) else ladder)


def reach(steps: int) -> float:
    """Up to how many times a rehearsed budget others are served by it, for runs of `steps`."""
    return REACH if steps > FEW_STEPS else REACH_OF_FEW
