"""What a run did, in numbers and in one sentence."""

import math
from dataclasses import dataclass
from statistics import mean, median, stdev

FEW_STEPS = 12
OF_A_MEDIAN = (math.pi / 2) ** 0.5  # its standard error over that of the mean, for normal noise
CHANGED = "conditionings, guidance, LoRA strengths, context windows or sizes changed in mid-run"


def counted(count: int, noun: str) -> str:
    """A number and its noun: "1 step", "2 steps"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class KeptResiduals:
    """What is kept of transformer blocks: of how many evaluations, of how many wanted, and the bytes of one evaluation's."""

    kept: int = 0
    wanted: int = 0
    size: int = 0

    @property
    def text(self) -> str:
        """The same as words, with the memory that all take; "" where nothing is kept."""
        if not self.kept:
            return ""
        size = f"{self.kept * self.size / 2**20:.{0 if self.size > 2**24 else 1}f} MiB"
        text = f"residuals of {counted(self.kept, 'evaluation')} take {size}"
        if self.kept < self.wanted:
            text += f", since those of {self.wanted} would not fit into the free memory"
        return text


@dataclass(frozen=True)
class Report:
    """One finished sampling run.

    steps: N. evaluations: model evaluations made. asked: evaluations that the sampler asked for. level: "output" or "blocks",
    as used. reason: why every step was computed, or "". level_reason: why "blocks" could not be used, or "".
    warning: what speaks against the schedule although it was followed, or "". note: what else to know of it, or "".
    hint: what would suit this run better, or "". residuals: what the level "blocks" kept.
    extra: evaluations made on steps that the schedule skips. seconds: time of each evaluation asked for until the next one
    began; computed: which of them were made.
    """

    steps: int
    evaluations: int
    asked: int
    level: str
    reason: str = ""
    level_reason: str = ""
    warning: str = ""
    note: str = ""
    hint: str = ""
    residuals: KeptResiduals = KeptResiduals()
    extra: int = 0
    seconds: tuple[float, ...] = ()
    computed: tuple[bool, ...] = ()

    @property
    def ideal_speedup(self) -> float:
        """Evaluations asked for over evaluations made."""
        return self.asked / self.evaluations if self.evaluations else 1.0

    @property
    def measured_speedup(self) -> float | None:
        """Estimated time of the run in full over the time that it took; None when nothing was skipped or measured.

        A skipped evaluation is taken to have cost the median of the computed ones, the first left out where there are more: it
        pays for warming up. Yet no more than their mean, so that no estimate exceeds what is possible, `ideal_speedup`.
        """
        full, skipped, taken = self._clock
        return (sum(full) + skipped * min(median(full[1:] or full), mean(full))) / taken if taken else None

    @property
    def measured_spread(self) -> float | None:
        """Two standard errors of `measured_speedup`, from how much computed evaluations differ; None below three of them."""
        full, skipped, taken = self._clock
        rest = full[1:]
        return 2 * OF_A_MEDIAN * stdev(rest) / len(rest) ** 0.5 * skipped / taken if taken and len(rest) > 1 else None

    @property
    def _clock(self) -> tuple[list[float], int, float]:
        """(seconds of computed evaluations, how many were skipped, seconds of all; 0 where that says nothing)."""
        full = [second for second, computed in zip(self.seconds, self.computed, strict=True) if computed]
        skipped = len(self.seconds) - len(full)
        return full, skipped, sum(self.seconds) if full and skipped else 0.0

    @property
    def text(self) -> str:
        """The report as a line."""
        parts = [f"{counted(self.evaluations, 'model evaluation')} for {counted(self.steps, 'step')}"]
        if self.asked != self.steps:
            parts.append(f"the sampler asked for {self.asked}")
        if self.reason:
            skipped = [at for at, computed in enumerate(self.computed) if not computed]
            since = f" from evaluation {skipped[-1] + 2} on" if skipped else ""
            parts.append(f"computed in full{since}: {self.reason}")
        elif self.evaluations == self.asked:
            parts.append("nothing was skipped")
        else:
            speed = f"{self.ideal_speedup:.2f}x faster ideally"
            if self.measured_speedup:
                spread = "" if self.measured_spread is None else f" \u00b1 {self.measured_spread:.2f}"
                speed += f", {self.measured_speedup:.2f}x{spread} measured"
            parts.append(speed)
            parts.append("transformer blocks reused" if self.level == "blocks" else "model output reused")
            if self.level == "blocks" and self.residuals.text:
                parts[-1] += f", {self.residuals.text}"
        if self.extra:
            parts.append(f"{self.extra} more than scheduled, since {CHANGED}")
        if self.level_reason:
            parts.append(f"blocks could not be reused: {self.level_reason}")
        if self.note:
            parts.append(self.note)
        if self.warning:
            parts.append(self.warning)
        if self.hint:
            parts.append(self.hint)
        if self.steps <= FEW_STEPS and self.evaluations < self.asked:
            parts.append(f"with {FEW_STEPS} steps or fewer, lowering the steps is the better lever")
        return "; ".join(parts) + "."
