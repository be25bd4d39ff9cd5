"""What the strips on the nodes draw, as plain numbers for JSON. web/js/otcache/schedule.mjs is the other end."""

from ..schedules.interpolation import different_models, error_curve, judged_errors, known_schedules
from ..schedules.schedule import Schedule


def budget_strip(reference: Schedule, anchor: Schedule, asked: dict) -> dict:
    """All that the browser needs to show any budget as `schedule_at` would choose it, by hand or by a target.

    asked: the values of the node's widgets in this run, for those that another node gives. Sigmas are not rounded: rounding
    to steps compares distances on this grid. Scores of schedules that had to be re-timed are left out, for they were judged
    on other steps.
    """
    inner, prepared = known_schedules(reference, anchor)
    known = [inner, *prepared] if inner.score else prepared
    errors = judged_errors(known)
    return {
        "kind": "budget",
        "asked": asked,
        "metric": anchor.metric,
        "sigmas": list(reference.sigmas),
        "anchor": list(inner.compute_steps),
        "reference": list(reference.compute_steps),
        "prepared": {
            str(s.budget): {"steps": list(s.compute_steps), "score": errors.get(s.budget), "psnr": _rounded(s.psnr)}
            for s in known
        },
        "curve": [list(point) for point in error_curve(errors)],
        "warning": different_models(reference, anchor),
    }


def schedule_strip(schedule: Schedule) -> dict:
    """A schedule as a file or preset holds it. budgets: the least and the greatest that it carries as prepared, or None."""
    chosen = set(schedule.compute_steps)
    budgets = [inner.budget for inner in schedule.prepared]
    return {
        "kind": "schedule",
        "sigmas": list(schedule.sigmas),
        "computed": [int(step in chosen) for step in range(schedule.steps)],
        "budgets": [min(budgets), max(budgets)] if budgets else None,
        "model": schedule.model,
        "sampler": schedule.sampler,
        "scheduler": schedule.scheduler,
        "shift": _rounded(schedule.shift),
        "source": schedule.provenance,
    }


def saved_note(schedule: Schedule, path: str) -> dict:
    """What was saved, and where."""
    shown = schedule_strip(schedule)
    return {"kind": "saved", "path": path, "steps": schedule.steps, "budget": schedule.budget} | {
        key: shown[key] for key in ("budgets", "model")
    }


def run_strip(report) -> dict:
    """A finished run, from its report (nodes/host/run_report.py)."""
    return {
        "kind": "run",
        "steps": report.steps,
        "evaluations": report.evaluations,
        "computed": [int(computed) for computed in report.computed],
        "seconds": [_rounded(second) for second in report.seconds],
        "ideal": _rounded(report.ideal_speedup),
        "measured": _rounded(report.measured_speedup),
        "spread": _rounded(report.measured_spread),
        "level": report.level,
        "reason": report.reason,
        "level_reason": report.level_reason,
        "warning": report.warning,
        "note": report.note,
        "hint": report.hint,
        "extra": report.extra,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
