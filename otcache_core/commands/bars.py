"""Progress bars for the terminal."""

from __future__ import annotations

from tqdm import tqdm

from ..calibration.forecast import WORDS


class Bars:
    """One progress bar a stage, each opened by its first report; closes them all at the end."""

    def __init__(self, quiet: bool = False):
        self._quiet, self._stage, self._bar = quiet, "", None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units of `stage` are finished; `note` is shown behind the bar."""
        if stage != self._stage or self._bar is None:
            self.__exit__()
            self._stage, (words, _) = stage, WORDS.get(stage, (stage, None))
            self._bar = tqdm(total=total, desc=f"{words:<30}", disable=self._quiet, unit="",
                             bar_format="{desc} {bar:24} {n_fmt:>3}/{total_fmt:<3} {elapsed}  {unit}")  # fmt: skip
        self._bar.unit = note  # tqdm's own postfix insists on a comma before it
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.__exit__()
