"""The end-to-end objective: how far cached pictures are from full ones, case by case."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property, partial

import numpy as np
import torch

from ..errors import NotFiniteError, OTCacheError
from ..sampling.filed import Filed, fetched
from ..sampling.generator import swaps
from ..sampling.predictors import RIDGE
from ..sampling.rollout import FITTED, Generator, Rollouts
from ..sampling.trajectory import Trajectory
from ..schedules.schedule import Predictor
from .judging import Judge
from .measurement_log import MeasurementLog
from .metrics import DEFAULT, distance, geometric_mean
from .parts import Log, agreed, divide
from .same_model import Signature, signature

FITTED_CASES = (2, 4)  # at least and at most, of more than one case
# Over the root of the cases seen: how much worse than the best a candidate may be and still be run on. The guard's evaluations
# a case at 0.02, 0.1, 0.3 and 10: 505, 546, 594 and 745 (demo model, 6 cases, 20 trials, B = 5 to 20). Of 8 budgets
# compared on 8 other scenes one differs, B = 15: 39.0 dB up to 0.1, 45.7 at 0.3, 44.7 at 10.
MARGIN = 0.1
FINAL = "final"  # in keys of the log: the weights of a schedule, fitted on all cases
TOGETHER = 4  # candidates that one of several workers samples before it decodes, where model and decoder change places


class Scorer:
    """Scores compute steps on the calibration cases, cheapest evidence first.

    Weights are fitted on the first `fit_cases` cases (None: half of them, within `FITTED_CASES`), rolled out together; the
    remaining ones use those weights one after the other, so that a poor candidate is dropped before all cases have been
    run, and a candidate is also judged on cases that its weights have not seen. What is measured is kept in `log`, and done by
    whichever worker of a shared one takes it. ahead: what will be asked for later, which this worker may do while it would wait
    for others: keys of the log, [steps, number of a group] or [steps, FINAL].
    """

    def __init__(
        self,
        generator: Generator,
        cases: Sequence,
        trajectories: Sequence[Trajectory],
        metric: str = DEFAULT,
        predictor: Predictor = FITTED,
        fit_cases: int | None = None,
        ridge: float = RIDGE,
        max_bytes: int = 2**29,
    ):
        self.log: Log = MeasurementLog()
        self.ahead: Sequence[list] = ()
        self.generator, self.metric = generator, distance(metric)
        if fit_cases is None:
            fit_cases = int(np.clip((len(cases) + 1) // 2, *FITTED_CASES))
        if not len(cases) or fit_cases < 1:
            raise OTCacheError("A score needs at least one case, and at least one to fit weights on; give one.")
        fit_cases = min(fit_cases, len(cases))
        cuts = [0, *range(fit_cases, len(cases) + 1)]
        max_bytes //= 2  # half for the fits on all cases
        self.groups = [
            Rollouts(generator, cases[a:b], trajectories[a:b], predictor, ridge, max_bytes // len(cuts))
            for a, b in zip(cuts, cuts[1:], strict=False)
        ]
        whole = len(self.groups) == 1
        self._whole = self.groups[0] if whole else Rollouts(generator, cases, trajectories, predictor, ridge, max_bytes)
        self._judge = Judge(generator, [group.trajectories for group in self.groups], self.metric)
        self._seen: dict[tuple[int, ...], list[np.ndarray]] = {}
        self._rows: dict[tuple[int, ...], tuple] = {}
        self._decibels: dict[tuple[int, ...], list[list[float] | None]] = {}  # a list a group; None where it was not kept
        self._shown: tuple[tuple[int, ...], torch.Tensor | Filed] | None = None

    @property
    def full_picture(self) -> torch.Tensor:
        """The first case's picture of the full run, [3, H, W] in [0, 1]."""
        return next(self._judge.full())

    def picture(self, steps: Sequence[int]) -> torch.Tensor | None:
        """The first case's picture with `steps`, [3, H, W] in [0, 1]; None unless they were the last to be decoded."""
        return fetched(self._shown[1]) if self._shown and self._shown[0] == tuple(steps) else None

    @property
    def sigmas(self) -> np.ndarray:
        return self.groups[0].sigmas

    @property
    def fits_some(self) -> bool:
        """Whether candidates' weights are fitted on some cases only, so that `final_rows` costs evaluations."""
        return self._whole is not self.groups[0]

    @cached_property
    def signature(self) -> Signature:
        """The full runs in a few numbers, by which their model is known again."""
        runs = [run for group in self.groups for run in group.trajectories]
        return signature(runs, self._judge.full())

    def distances(self, steps: Sequence[int]) -> Iterator[np.ndarray]:
        """Distances float64 [cases of the group], one group after the other; what is known is not run again."""
        steps = tuple(steps)
        known = self._seen.setdefault(steps, [])
        for number in range(len(self.groups)):
            if number >= len(known):  # asked anew each time: another iteration may have gone on while this one waited
                divide(self.log, [[steps, number]], self._measure if self.log.shared else self._measure_one)
                distances, rows, *decibels = self.log.get([steps, number])  # files of before do not have those, nor do latents
                self._rows.setdefault(steps, tuple(map(tuple, rows)))
                known[number : number + 1] = [np.asarray(distances, dtype=np.float64)]
                self._decibels.setdefault(steps, [])[number : number + 1] = decibels or [None]
            yield known[number]

    def _sampled(self, steps: tuple[int, ...], number: int) -> tuple[torch.Tensor, tuple]:
        """Final latents of a group of cases, and the weights used: those that the first group was fitted to."""
        if number and steps not in self._rows:
            next(self.distances(steps))
        return self.groups[number].run(steps, self._rows.get(steps))

    def _measure_one(self, keys: list) -> None:
        [(steps, number)] = keys
        latents, rows = self._sampled(steps, number)
        pieces = self._judge.pieces(latents)
        del latents
        self._judged(steps, number, pieces, rows)

    def _measure(self, keys: list) -> None:
        """Measure candidates on groups, [steps, number] each: all are sampled before any is decoded."""
        waiting, held = [], 0
        lost = NotFiniteError if self.log.shared else OTCacheError  # others need not share a full disk

        def decode() -> None:
            while waiting:
                self._judged(*waiting.pop(0))

        for steps, number in keys:
            if number == FINAL:
                self._fit([[steps, number]])
                continue
            try:
                latents, rows = self._sampled(steps, number)
            except lost as error:  # raised when it is asked for
                self.log.failed([steps, number], error)
                continue
            self._rows.setdefault(steps, tuple(map(tuple, rows)))
            waiting.append((steps, number, self._judge.pieces(latents), rows))
            held += latents.nbytes
            del latents  # else large ones lie in memory beside what is decoded
            if held > self._judge.room:
                decode()
                held = 0
        decode()

    def _judged(self, steps: tuple[int, ...], number: int, pieces: list, rows: tuple) -> None:
        """Put into the log the distances of those latents, the weights, and the PSNR of pictures."""
        distances, decibels, picture = self._judge.compared(pieces, number)
        if not number:
            self._shown = steps, picture
        self.log.put([steps, number], [distances, rows, *([decibels] if decibels else [])])

    def judge_together(self, candidates: Sequence[tuple[int, ...]], numbers: Sequence[int]) -> None:
        """Measure `candidates` on the groups of these numbers where that saves time: all are sampled before any is decoded.

        That is where model and decoder change places on the device (`generator.swaps`), and where other workers take a part.
        What waits to be decoded is lost when the process is killed.
        """
        together = swaps(self.generator)
        if not (together or self.log.shared):
            return
        for some in [[number] for number in numbers] if self.log.shared else [numbers]:
            keys = [[steps, number] for number in some for steps in candidates if number >= len(self._seen.get(steps, ()))]
            sure = candidates if some[0] or len(numbers) > 1 else ()
            ahead = partial(self._ahead, candidates, sure, some[-1])
            divide(self.log, keys, self._measure, TOGETHER if together else 1, ahead, self._begun)

    def _ahead(self, candidates: Sequence[tuple[int, ...]], sure: Sequence[tuple[int, ...]], number: int) -> list:
        """What to do while others measure the last of `candidates` on a group: `sure` will be run on those that follow it.

        Those that are there after the first group mostly are. Before, the best so far is last, for it may still be dropped.
        """
        left, scores = range(number + 1, len(self.groups)), {}
        for steps in candidates:
            with suppress(NotFiniteError):
                if self.log.knows([steps, 0]):
                    scores[steps] = geometric_mean(self.log.get([steps, 0])[0])
        likely = [min(scores, key=scores.get)] if scores and not sure else []
        parts = sorted([[steps, later] for later in left for steps in sure], key=self._begun, reverse=True)
        return [*parts, *self.ahead, *([steps, later] for later in left for steps in likely)]

    def _begun(self, key: list) -> int:
        """How many evaluations of a part, [steps, number] or [steps, FINAL], are those of others that were run here."""
        steps, number = key
        if number == FINAL:
            return self._whole.begun(tuple(steps))
        return self.groups[number].begun(tuple(steps), self._rows.get(tuple(steps)) if number else None)

    def score(self, steps: Sequence[int]) -> float:
        """Geometric mean of the distances over all cases."""
        return geometric_mean(np.concatenate(list(self.distances(steps))))

    def psnr(self, steps: Sequence[int]) -> float | None:
        """Mean PSNR in dB over all cases, which people know; None where latents are judged, or it was not kept."""
        list(self.distances(steps))
        found = self._decibels[tuple(steps)]
        return None if None in found else float(np.mean(np.concatenate(found)))

    def final_rows(self, steps: Sequence[int]) -> tuple:
        """The weights of `steps` fitted anew on all cases: for a schedule that has been chosen, not for choosing."""
        steps = tuple(steps)
        divide(self.log, [[steps, FINAL]], self._fit)
        return tuple(map(tuple, self.log.get([steps, FINAL])))

    def fit_together(self, candidates: Sequence[tuple[int, ...]]) -> None:
        """Have the `final_rows` of all of them fitted, where other workers take a part."""
        if self.log.shared:
            divide(self.log, [[steps, FINAL] for steps in candidates], self._fit, begun=self._begun)

    def _fit(self, keys: list) -> None:
        for steps, name in keys:
            known = None if self.fits_some else self._rows.get(steps)  # which another worker may have fitted
            self.log.put([steps, name], known or self._whole.weights(steps))

    def choose(self, candidates: Sequence[tuple[int, ...]], margin: float = MARGIN) -> tuple[tuple[int, ...], float]:
        """The candidate with the lowest score, and that score.

        A candidate whose running score is more than `margin` / sqrt(cases so far) worse than the best one's after the same
        cases is dropped on the way.
        """
        alive = {steps: self.distances(steps) for steps in dict.fromkeys(candidates)}
        seen: dict[tuple[int, ...], list[np.ndarray]] = {steps: [] for steps in alive}
        for number in range(len(self.groups)):
            self.judge_together(list(alive), [number])
            for steps, distances in list(alive.items()):
                try:
                    seen[steps].append(next(distances))
                except OTCacheError:  # this candidate diverges; that all do is an error
                    del alive[steps]
                    if not alive:
                        raise
            scores = {steps: geometric_mean(np.concatenate(seen[steps])) for steps in alive}
            best = min(scores.values())
            # What has been scored on all cases before costs nothing, so it is never dropped for an early leader.
            known = {steps for steps in alive if len(self._seen.get(steps, ())) == len(self.groups)}
            limit = best * (1 + margin / len(np.concatenate(seen[next(iter(alive))])) ** 0.5)
            alive = {steps: alive[steps] for steps in alive if steps in known or scores[steps] <= limit}
        winner = min(alive, key=scores.get)
        # What a worker has seen before decides what it drops, so that two might choose differently.
        order = list(seen)
        chosen, score = agreed(self.log, ["choice", *order], lambda: [order.index(winner), scores[winner]])
        return order[chosen], score
