"""What proof.py measured as CSV, as tables for people, and as one picture of all methods.

A record is one line of the CSV: WORDS, the number of cases, and mean, median and worst of each metric.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from proof_metrics import METRICS, Row

from otcache_core.drawing.charts import log_axis
from otcache_core.drawing.style import COLOURS, DPI, INK, MUTED, new_figure, styled
from otcache_core.files import write_text, written_whole

WORDS = ("setting", "method", "family", "budget", "evaluations", "beforehand", "seconds")
STATISTICS = ("mean", "median", "worst")
PLAIN = "euler, so many steps"
OTHERS = "#9aa3af"
# Of a family: what it is called, its colour, the width of its lines.
FAMILIES = {
    "peer": ("published methods", OTHERS, 0.9),
    "plain": ("that many plain steps", COLOURS[2], 1.0),
    "core": ("ComfyUI's own caches", COLOURS[1], 1.4),
    "ours": ("OTCache", COLOURS[0], 2.6),
}


def record_of(row: Row) -> dict:
    """A row as a record."""
    numbers = {f"{metric} {kind}": getattr(row, kind)(metric) for metric in METRICS for kind in STATISTICS}
    said = {name: getattr(row, name) for name in WORDS}
    return said | {"cases": len(row.values["rmse"])} | numbers


def write_csv(path: Path, records: Sequence[dict]) -> None:
    """All records, one a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(records[0])
    writer.writerows([f"{value:.6g}" if isinstance(value, float) else value for value in each.values()] for each in records)
    write_text(path, text.getvalue())


def read_csv(path: Path) -> list[dict]:
    """What `write_csv` wrote."""
    words, whole = ("setting", "method", "family"), ("budget", "evaluations", "cases")
    with path.open(newline="") as file:
        return [{name: value if name in words else int(value) if name in whole else float(value)
                 for name, value in line.items()} for line in csv.DictReader(file)]  # fmt: skip


def merged(old: Sequence[dict], new: Sequence[dict]) -> list[dict]:
    """`old` records where no `new` one is of the same setting, method and budget, and the new ones."""
    found = {tuple(each[name] for name in ("setting", "method", "budget")): each for each in (*old, *new)}
    return list(found.values())


def of_setting(records: Sequence[dict], setting: str) -> dict[str, dict[int, dict]]:
    """Records of one setting: method -> budget -> record, by family: ours, core, plain, peers."""
    families = list(reversed(FAMILIES))
    here = (each for each in records if each["setting"] == setting)
    ordered = sorted(here, key=lambda each: families.index(each["family"]))
    found: dict[str, dict[int, dict]] = {}
    for each in ordered:
        found.setdefault(each["method"], {})[each["budget"]] = each
    return found


def table(records: Sequence[dict], setting: str, column: str = "psnr mean", digits: int = 1) -> str:
    """One column of one setting in Markdown, methods down, budgets across, the best of each budget bold.

    "at n" follows where a method made another number of evaluations; of these more are not compared. After the name, what the
    method asks of the model beforehand, in full runs of one case: the most of all budgets.
    """
    methods = of_setting(records, setting)
    budgets = sorted({budget for line in methods.values() for budget in line})
    best = {budget: first(methods, budget, column)[0] for budget in budgets}
    lines = ["| evaluations | beforehand | " + " | ".join(map(str, budgets)) + " |", "|---|" + "---:|" * (len(budgets) + 1)]
    for name, line in methods.items():
        cells = []
        for budget in budgets:
            if budget not in line:
                cells.append("–")
                continue
            said, made = f"{line[budget][column]:.{digits}f}", line[budget]["evaluations"]
            said = f"**{said}**" if name == best[budget] else said
            cells.append(said if made == budget else f"{said}, at {made}")
        cost = max(each["beforehand"] for each in line.values())
        lines.append(f"| {name} | {cost:.3g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def first(methods: dict[str, dict[int, dict]], budget: int, column: str, families: Sequence[str] = ()) -> tuple[str, float]:
    """The method of `families` (of all) that is best in `column` at `budget`, and its value ("none" and nan without one).

    Of PSNR and SSIM the largest is the best. Methods that made more evaluations than the budget do not count.
    """
    sign = 1 if column.split()[0] in ("psnr", "ssim") else -1
    found = {name: line[budget] for name, line in methods.items() if budget in line and line[budget]["evaluations"] <= budget}
    found = {name: each for name, each in found.items() if not families or each["family"] in families}
    if not found:
        return "none", float("nan")
    name = max(found, key=lambda name: sign * np.nan_to_num(found[name][column], nan=-np.inf * sign))
    return name, found[name][column]


def summary(records: Sequence[dict], settings: Sequence[str]) -> str:
    """Mean PSNR of all settings in Markdown: our rows, the best of all others at each budget with its name, plain Euler."""
    budgets = sorted({each["budget"] for each in records})
    lines = ["| | | " + " | ".join(map(str, budgets)) + " |", "|---|---|" + "---:|" * len(budgets)]
    for setting in settings:
        methods = of_setting(records, setting)
        rows = {name: {budget: f"{each['psnr mean']:.1f}" for budget, each in line.items()} for name, line in methods.items()
                if next(iter(line.values()))["family"] == "ours"}  # fmt: skip
        best = {budget: first(methods, budget, "psnr mean", ("core", "plain", "peer")) for budget in budgets}
        named = {budget: f"{value:.1f} {name}" for budget, (name, value) in best.items() if name in methods}
        rows["the best of all others"] = named
        rows[PLAIN] = {budget: f"{each['psnr mean']:.1f}" for budget, each in methods.get(PLAIN, {}).items()}
        for number, (name, cells) in enumerate(rows.items()):
            lines.append(f"| {'' if number else setting} | {name} | " + " | ".join(cells.get(b, "–") for b in budgets) + " |")
    return "\n".join(lines)


def standing(records: Sequence[dict], setting: str, method: str, column: str = "psnr mean") -> str:
    """A line a budget: how far `method` is from the best that is not ours, and by whose name."""
    methods, lines = of_setting(records, setting), []
    for budget in sorted(methods.get(method, {})):
        name, value = first(methods, budget, column, ("core", "plain", "peer"))
        apart = methods[method][budget][column] - value
        lines.append(f"  B = {budget:2}: {apart:+6.2f} to {name} ({value:.2f}){'  NOT FIRST' if apart <= 0 else ''}")
    return "\n".join(lines)


@styled
def picture(records: Sequence[dict], settings: Sequence[str]):
    """RMSE against evaluations, a panel a setting, models across and difficulties down; ours heavy, the others by kind."""
    columns = list(dict.fromkeys(setting.split(", ")[0] for setting in settings))
    rows = list(dict.fromkeys(setting.split(", ")[1] for setting in settings))
    figure = new_figure(1.0 + 3.1 * len(columns), 0.9 + 2.7 * len(rows), layout="constrained")
    panels = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True)
    for axes in panels.flat:
        axes.set_visible(False)
    for setting in settings:
        model, difficulty = setting.split(", ")
        draw(panels[rows.index(difficulty)][columns.index(model)], of_setting(records, setting), setting)
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, linewidth=width) for _, colour, width in reversed(FAMILIES.values())]
    names = [name for name, _, _ in reversed(FAMILIES.values())]
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False, fontsize=9)
    figure.supxlabel("model evaluations, of 50", fontsize=9)
    figure.supylabel("error: RMSE against the full run (lower is better)", fontsize=9)
    return figure


def draw(axes, methods: dict[str, dict[int, dict]], title: str) -> None:
    """One panel of `picture`."""
    axes.set_visible(True)
    lines = {name: sorted((each["evaluations"], each["rmse mean"]) for each in line.values()) for name, line in methods.items()}
    log_axis(axes, [error for line in lines.values() for _, error in line])
    budgets = sorted({budget for line in methods.values() for budget in line})
    axes.set(xscale="log", xlim=(budgets[0] * 0.94, budgets[-1] * 1.06))
    axes.set_xticks(budgets, list(map(str, budgets)))
    axes.set_xticks([], minor=True)
    axes.set_title(title, loc="left", fontweight="bold", color=INK)
    for name, line in reversed(lines.items()):  # ours last, above all
        family = next(iter(methods[name].values()))["family"]
        _, colour, width = FAMILIES[family]
        ours = family == "ours"
        dashes = "--" if ours and "calibrated" in name else ":" if ours and "blocks" in name else "-"
        axes.plot(*zip(*line, strict=True), color=colour, linewidth=width if dashes == "-" else 1.4, linestyle=dashes,
                  marker="o" if ours and dashes == "-" else "", markersize=4, zorder=4 if ours else 3)  # fmt: skip
    name, _ = first(methods, budgets[len(budgets) // 2], "psnr mean", ("core", "plain", "peer"))
    if name not in methods:
        return
    middle = methods[name][budgets[len(budgets) // 2]]
    axes.annotate(f"best other: {name}", (middle["evaluations"], middle["rmse mean"]), (0.97, 0.97), va="top", ha="right",
                  textcoords="axes fraction", fontsize=7, color=MUTED,
                  arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5})  # fmt: skip


def write_picture(path: Path, records: Sequence[dict], settings: Sequence[str]) -> None:
    """`picture` as PNG."""
    with written_whole(path) as temporary:
        picture(records, settings).savefig(temporary, dpi=DPI, format="png")
