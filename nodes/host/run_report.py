"""What a run did, in numbers and in one sentence."""

from dataclasses import dataclass
from statistics import median

FEW_STEPS = 12
CHANGED = "conditionings, guidance, LoRA strengths, context windows or sizes changed in mid-run"


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
        evaluations = f"{self.kept} evaluation" + "s" * (self.kept > 1)
        text = f"residuals of {evaluations} take {self.kept * self.size / 2**20:.{0 if self.size > 2**24 else 1}f} MiB"
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

        A skipped evaluation is taken to have cost the median of the computed ones, the first left out where there are more:
        it pays for warming up.
        """
        full = [second for second, computed in zip(self.seconds, self.computed, strict=True) if computed]
        taken = sum(self.seconds)
        if len(full) == len(self.seconds) or not full or not taken:
            return None
        return (sum(full) + (len(self.seconds) - len(full)) * median(full[1:] or full)) / taken

    @property
    def text(self) -> str:
        """The report as a line."""
        parts = [f"{self.evaluations} model evaluations for {self.steps} steps"]
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
                speed += f", {self.measured_speedup:.2f}x measured"
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
