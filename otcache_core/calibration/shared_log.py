"""Results of parts in an Optuna storage that several workers share: claims, results, and workers that are gone.

A study holds the claims, one trial each: its key and, once it is complete, its result in user attributes, the evaluations that
it took as its value. Trials have numbers in the order in which they were made, whatever the storage, so that of several claims
of one part the lowest number has it and the others are withdrawn. A worker that holds claims changes a count in them now and
then. Where that stands still, another worker fails the claim, which no storage lets its owner complete any more: a part is
completed once. Optuna's own heartbeat does the same for databases, but neither for journals nor through its proxy, and by the
clocks of the machines, which may differ.
"""

import json
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from ..errors import NotFiniteError
from ..sampling.generator import Counted
from .measurement_log import frozen
from .places import Place
from .storages import import_optuna, kept, open_storage, opening

if TYPE_CHECKING:
    import optuna

BEAT = 10.0  # seconds between two signs of life
PATIENCE = 60.0  # seconds without one until a worker is taken for dead
POLLS = 0.02, 1.0  # seconds between two looks at what others do: the first, and at most
FRESH = 0.2  # seconds that what was seen may be old, where it decides nothing
KEY, LIFE, FOUND, FAILED = "part", "sign of life", "found", "not finite"


class SharedLog:
    """A `parts.Log` in the study `name` of the storage `place`.

    counted: counts the evaluations of the parts that are done here; to be set before any is claimed. waiting: called now and
    then while others do what is left; raising in it ends the wait. Raises `OTCacheError` for a storage that cannot be opened
    or fails.
    """

    shared = True

    def __init__(self, place: Place, name: str):
        self.place, self._theirs, self._own = place, 0, 0
        self.counted: Counted | None = None
        self.waiting: Callable[[], None] = lambda: None
        optuna, self._storage = import_optuna(), open_storage(place)
        self._states = optuna.trial.TrialState
        self._claim = optuna.trial.create_trial
        self._gone = (optuna.exceptions.UpdateFinishedTrialError, RuntimeError)  # older versions raise the latter
        with opening(place):
            optuna.create_study(study_name=name, storage=self._storage, load_if_exists=True)
            self._study = self._storage.get_study_id_from_name(name)
        self._known: dict[Hashable, tuple[dict, int]] = {}  # attributes of the completed claim, and evaluations
        self._asked: set[Hashable] = set()
        self._settled: set[int] = set()  # numbers of claims that will not change any more
        self._holders: dict[Hashable, int] = {}  # the first of the trials that hold a part
        self._signs: dict[int, tuple[object, float]] = {}  # the last sign of life, and when it was first seen
        self._held: dict[Hashable, int] = {}  # trials of ours
        self._lock, self._beating = threading.Lock(), False
        self._mark, self._pause, self._seen = 0, POLLS[0], -FRESH
        self.look()

    @property
    def evaluations(self) -> int:
        """Of the model: those of the parts that were asked for, whoever made them, and what was done here beside parts."""
        return self._theirs + self._count() - self._own

    def get(self, key):
        """The result that was known when it was last looked, or None; raises `NotFiniteError` for a part that failed."""
        if (key := frozen(key)) not in self._known:
            return None
        told, evaluations = self._known[key]
        if key not in self._asked:
            self._asked.add(key)
            self._theirs += evaluations
        if FAILED in told:
            raise NotFiniteError(told[FAILED])
        return told[FOUND]

    def knows(self, key) -> bool:
        """Whether the part was done when it was last looked."""
        return frozen(key) in self._known

    def put(self, key, value) -> None:
        """The result of a part that is held; what another worker was given meanwhile is dropped, and that one's counts."""
        self._finish(key, FOUND, value)

    def failed(self, key, error: Exception) -> None:
        """The part that is held has no result, since velocities are no numbers any more."""
        self._finish(key, FAILED, str(error))

    def look(self) -> None:
        """See what has been claimed and done, unless it was just seen, and fail the claims of workers that are gone."""
        if time.monotonic() - self._seen > FRESH:
            self._look()

    def _look(self) -> None:
        now, self._holders = time.monotonic(), {}
        self._seen = now
        with kept(self.place):
            for trial in self._storage.get_all_trials(self._study, deepcopy=False):
                if trial.number in self._settled:
                    continue
                if trial.state.is_finished():
                    self._settled.add(trial.number)
                    if trial.state == self._states.COMPLETE:
                        self._known.setdefault(frozen(trial.user_attrs[KEY]), (trial.user_attrs, int(trial.value)))
                elif self._lives(trial, now):
                    self._holders.setdefault(frozen(trial.user_attrs[KEY]), trial._trial_id)
                else:
                    self._withdraw(trial._trial_id)

    def claim(self, keys: Sequence, most: int) -> list:
        """Those of `keys`, `most` at most, that nobody has done or holds; they are held from now on."""
        self.look()
        mine = []
        for key in keys:
            if len(mine) == most:
                break
            if not self._is_free(part := frozen(key)):
                continue
            template = self._claim(state=self._states.RUNNING, user_attrs={KEY: key, LIFE: 0})
            with kept(self.place):
                trial_id = self._storage.create_new_trial(self._study, template)
            self._look()
            if part in self._known or self._holders.get(part) != trial_id:
                self._withdraw(trial_id)  # another was faster
                continue
            self._hold(part, trial_id)
            mine.append(key)
        if mine:
            self._mark, self._pause = self._count(), POLLS[0]
        return mine

    def release(self, keys: Sequence) -> None:
        """Give back those of `keys` that are held and not done."""
        for key in keys:
            with self._lock:
                trial_id = self._held.pop(frozen(key), None)
            if trial_id is not None:
                self._holders.pop(frozen(key), None)
                self._withdraw(trial_id)

    def wait(self) -> None:
        """Let some time pass, longer from one time to the next."""
        self.waiting()
        time.sleep(self._pause)
        self._pause = min(1.5 * self._pause, POLLS[1])
        self._look()

    def _is_free(self, part: Hashable) -> bool:
        return part not in self._known and part not in self._holders

    def _lives(self, trial: "optuna.trial.FrozenTrial", now: float) -> bool:
        """Whether the owner of a claim has given a sign of life lately, by the clock of this machine."""
        sign = trial.user_attrs.get(LIFE)
        if trial.number not in self._signs or self._signs[trial.number][0] != sign:
            self._signs[trial.number] = sign, now
        return now - self._signs[trial.number][1] <= PATIENCE

    def _finish(self, key, name: str, value) -> None:
        with self._lock:
            trial_id = self._held.pop(part := frozen(key))
        self._holders.pop(part, None)
        spent, self._mark = self._count() - self._mark, self._count()
        self._own += spent
        with kept(self.place):
            try:
                self._storage.set_trial_user_attr(trial_id, name, value)
                self._storage.set_trial_state_values(trial_id, self._states.COMPLETE, [float(spent)])
            except self._gone:  # this worker was taken for dead
                return
        self._known.setdefault(part, ({name: json.loads(json.dumps(value))}, spent))

    def _withdraw(self, trial_id: int) -> None:
        with kept(self.place):
            try:
                self._storage.set_trial_state_values(trial_id, self._states.FAIL)
            except self._gone:  # somebody else has
                pass

    def _count(self) -> int:
        return self.counted.evaluations if self.counted else 0

    def _hold(self, part: Hashable, trial_id: int) -> None:
        with self._lock:
            self._held[part] = trial_id
            if not self._beating:
                self._beating = True
                threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        """Give signs of life while anything is held."""
        for sign in range(1, 2**62):
            time.sleep(BEAT)
            with self._lock:
                held = list(self._held.values())
                self._beating = bool(held)
            if not held:
                return
            for trial_id in held:
                try:
                    self._storage.set_trial_user_attr(trial_id, LIFE, sign)
                except Exception:  # it is done meanwhile, or the storage fails, which the work itself will be told
                    continue
