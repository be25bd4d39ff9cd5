"""A calibration in parts that are each done once, by whichever of several workers takes them.

What is a part: a full run, the growth of one case's errors, a candidate on a group of cases, the final weights of a schedule,
and every decision that all workers have to take alike. Its result is a few numbers, kept in a log under its key: a
`MeasurementLog`, of this process alone, or a `SharedLog`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol


class Log(Protocol):
    """Results of parts by key; a key is anything of lists, numbers and strings.

    shared: whether other workers take parts as well. evaluations: of the model, of a shared log only: those of the parts whose
    results were asked for, whoever made them, and those made here beside parts.
    """

    shared: bool
    evaluations: int

    def get(self, key):
        """The result that is known, or None; raises `NotFiniteError` for a part that `failed`."""

    def put(self, key, value) -> None:
        """Keep the result of a part, anything that JSON can hold; of a shared log one that was claimed."""

    def failed(self, key, error: Exception) -> None:
        """Keep that the part is done and has no result, since velocities are no numbers any more."""

    def knows(self, key) -> bool:
        """Whether the part is done."""

    def look(self) -> None:
        """See what the others have done."""

    def claim(self, keys: Sequence, most: int) -> list:
        """Those of `keys`, `most` at most, that are this worker's to do from now on."""

    def release(self, keys: Sequence) -> None:
        """Give back those of `keys` that are claimed and not done."""

    def wait(self) -> None:
        """Let some time pass, for others do what is left."""


def divide(
    log: Log, keys: Sequence, work: Callable[[list], None], at_once: int = 1, ahead: Callable[[], Sequence] = tuple,
    begun: Callable[[list], int] = lambda key: 0,
) -> None:  # fmt: skip
    """Have every part of `keys` done, by this worker or another one.

    work(keys): does these and puts what comes of it into `log`; of a shared one `at_once` at most are handed to it together.
    ahead(): parts that will be asked for later, done while others do what is left of `keys`. begun(key): how much of a part
    this worker has done with others; of a shared log it takes those first.
    """
    if not log.shared:
        if left := [key for key in keys if not log.knows(key)]:
            work(left)
        return
    while True:
        log.look()
        left = [key for key in keys if not log.knows(key)]
        if not left:
            return
        mine = log.claim(sorted(left, key=begun, reverse=True), at_once) or log.claim(ahead(), 1)
        if not mine:
            log.wait()
            continue
        try:
            work(mine)
        finally:  # what it did not come to, for whatever reason, is another's to do
            log.release(mine)


def agreed(log: Log, key, propose: Callable[[], object]):
    """A decision that all workers take alike: what `propose()` gives the first of them, as JSON gives it back.

    For what may differ between workers that compute the same on unlike machines, or that looked at different moments.
    """
    if not log.shared:
        return propose()
    divide(log, [key], lambda _: log.put(key, propose()))
    return log.get(key)


@contextmanager
def one_at_a_time(log: Log, key) -> Iterator[None]:
    """A block that no two workers are in at once."""
    while log.shared and not log.claim([key], 1):
        log.wait()
    try:
        yield
    finally:
        log.release([key])


@contextmanager
def own_number(log: Log, name: str, least: int, end: int) -> Iterator[int | None]:
    """A block with a number from `least` to before `end` that no other worker has meanwhile, None where they have them all.

    It is `least` where this worker is alone.
    """
    free = [[name, number] for number in range(least, end)]
    mine = log.claim(free, 1) if log.shared else free[:1]
    try:
        yield mine[0][1] if mine else None
    finally:
        log.release(mine)
