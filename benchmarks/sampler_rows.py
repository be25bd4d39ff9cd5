"""The rows of samplers.py, the tables that they make, and the files that keep them."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

OWN, EULERS = "own", "euler"  # whose lesson a schedule comes from
OURS, PLAIN, HOLD, HOLD_DENOISED, OUTPUT = "ours", "plain", "hold", "hold denoised", "output"
HEAD = """\
# Samplers

Printed by `python benchmarks/samplers.py {}`.

PSNR in dB against the same sampler's full run, mean and (worst) of {} scenes of the embedded model that nothing was learnt
from. Lesson: whose ordinary run the schedule was learnt from, the sampler's own or euler's. Made: evaluations. Plain: the same
sampler with as many evaluations [those it made, where they are fewer]. Hold, hold denoised: the steps that ours computes, with
the last velocity or denoised latent on the others. Samplers with * add noise."""


SHARES, BESIDES = (2, 3, 5), {50: (15,)}  # budgets: steps over these, and more of them


@dataclass(frozen=True)
class Form:
    """What is measured: on how many scenes, at which shares of the steps, under whose lessons."""

    held_out: int = 12
    shares: tuple[int, ...] = SHARES
    lessons: tuple[str, ...] = (OWN, EULERS)

    def budgets(self, steps: int) -> list[int]:
        """Those of a run of `steps`, rising."""
        return sorted({round(steps / share) for share in self.shares} | set(BESIDES.get(steps, ())))

    @property
    def mark(self) -> str:
        """What tells it from others in a file's name."""
        return "-".join(map(str, (self.held_out, *self.shares, *self.lessons)))


@dataclass(frozen=True)
class Row:
    """One sampler, guidance, number of steps and budget, under a schedule of its own or of Euler's lesson.

    evaluations: made, of those `asked` for. reason: why the run was computed in full, or not with the reuse `level`; then
    nothing was measured. found: (mean, worst) dB against the full run by OURS and what it is compared with. plain: steps and
    evaluations of the same sampler with fewer steps.
    """

    sampler: str
    cfg: float
    steps: int
    budget: int
    lesson: str
    adds_noise: bool
    evaluations: int
    asked: int
    reason: str = ""
    level: str = OUTPUT
    plain: tuple[int, int] = (0, 0)
    found: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{self.sampler}, CFG {self.cfg:g}, N = {self.steps}, B = {self.budget}, lesson: {self.lesson}"

    def above(self, other: str) -> float:
        """Mean dB of ours above `other`, as exact as it is printed."""
        return round(self.found[OURS][0] - self.found[other][0], 2)

    def cell(self, way: str) -> str:
        mean, worst = self.found[way]
        return f"{mean:.2f} ({worst:.2f})"

    @property
    def text(self) -> str:
        """The row as a line."""
        head = f"{self.sampler:30} CFG {self.cfg:<3g} N {self.steps} B {self.budget:2} {self.lesson:5}"
        made = f"{self.evaluations:3} of {self.asked:3}"
        if self.reason:
            return f"{head} {made}  {'in full' if self.level == OUTPUT else 'not in blocks'}: {self.reason}"
        cells = (f"{way}{f' [{self.plain[1]}]' if way == PLAIN else ''} {self.cell(way)}" for way in self.found)
        return f"{head} {made}  {'' if self.level == OUTPUT else 'blocks: '}{', '.join(cells)}"


class Kept:
    """Rows in files of a folder, one for each sampler, number of steps and guidance: what an interrupted program goes on from.

    They are those of the code that measured them: remove the folder where that has changed.
    """

    def __init__(self, folder: Path | None, form: Form):
        """folder: None keeps nothing. Rows of another form are not read."""
        self._folder, self._form = folder, form

    def _file(self, sampler: str, steps: int, cfg: float) -> Path:
        return self._folder / f"{sampler}-{steps}-{cfg:g}-{self._form.mark}.json"

    def read(self, sampler: str, steps: int, cfg: float) -> list[Row]:
        """The rows that are kept, none where they are yet to be measured."""
        if self._folder is None or not (file := self._file(sampler, steps, cfg)).exists():
            return []
        rows = [Row(**fields) for fields in json.loads(file.read_text())]
        return [replace(row, plain=tuple(row.plain), found={way: tuple(dB) for way, dB in row.found.items()}) for row in rows]

    def write(self, rows: list[Row]) -> None:
        """Keep all `rows` of one sampler, number of steps and guidance, whole or not at all."""
        if self._folder is None or not rows:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._file(rows[0].sampler, rows[0].steps, rows[0].cfg)
        temporary = file.with_suffix(".part")
        temporary.write_text(json.dumps([asdict(row) for row in rows], indent=1))
        temporary.replace(file)


def in_full(rows: Iterable[Row]) -> dict[str, list[str]]:
    """Samplers by why nothing was skipped."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.reason:
            how = "in full" if row.level == OUTPUT else "blocks not reused"
            found.setdefault(f"{row.lesson} lesson, {how}, {row.reason}", {})[row.sampler] = None
    return {reason: list(samplers) for reason, samplers in found.items()}


def markdown(rows: list[Row], command: str, held_out: int) -> str:
    """docs/samplers.md. command: the program's arguments."""
    lines = HEAD.format(command, held_out).splitlines()
    parts = sorted({(-row.steps, row.cfg) for row in rows})
    heads = ["sampler", "lesson", "B", "made", OURS, PLAIN, HOLD, HOLD_DENOISED]
    for minus, cfg in parts:
        some = [row for row in rows if (row.steps, row.cfg, row.level) == (-minus, cfg, OUTPUT)]
        lines += ["", f"## {-minus} steps, CFG {cfg:g}", "", *table(heads, some, cells_of)]
        lines += ["", *(f"- {reason}: {', '.join(samplers)}" for reason, samplers in in_full(some).items())]
    blocks = [row for row in rows if row.level != OUTPUT]
    if any(row.found for row in blocks):
        heads = ["sampler", "lesson", "B", "made", "CFG", "blocks reused", "output reused"]
        lines += ["", "## Transformer blocks reused, 50 steps", "", *table(heads, blocks, blocks_of)]
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def table(heads: list[str], rows: list[Row], cells: Callable[[Row], list[str]]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * 2}{'---:|' * (len(heads) - 2)}"]
    return lines + [f"| {' | '.join(cells(row))} |" for row in rows if row.found]


def head_of(row: Row) -> list[str]:
    return [row.sampler + "\\*" * row.adds_noise, row.lesson, str(row.budget), str(row.evaluations)]


def cells_of(row: Row) -> list[str]:
    fewer = f" [{row.plain[1]}]" if row.plain[1] != row.evaluations else ""
    return [*head_of(row), *(row.cell(way) + (fewer if way == PLAIN else "") for way in (OURS, PLAIN, HOLD, HOLD_DENOISED))]


def blocks_of(row: Row) -> list[str]:
    return [*head_of(row), f"{row.cfg:g}", row.cell(OURS), row.cell(OUTPUT)]
