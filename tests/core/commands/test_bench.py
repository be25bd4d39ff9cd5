import csv
import io

import numpy as np
import pytest

from otcache_core.calibration.settings import BUDGETS
from otcache_core.commands.bench import DIRECT, MEAN_VELOCITY, METRICS, NATIVE, OURS, SHOWN, csv_text, ratios, text_table

VALUES = {
    OURS: (0.1, 0.05),
    MEAN_VELOCITY: (0.2, 0.04),
    DIRECT: (0.05, 0.05),
    "euler" + NATIVE: (0.5, 0.1),
    "dpmpp_2m" + NATIVE: (0.4, 0.2),
    "dpmpp_2m, our grid": (0.01, 0.01),  # ours as well, so no baseline
}
TABLE = {
    (name, budget): {"full rmse mean": value, "fine psnr worst": 20 + 10 * value}
    for name, values in VALUES.items()
    for budget, value in zip((5, 8), values, strict=True)
}


def test_ratios_are_to_the_best_plain_solver_the_mean_velocity_graph_and_direct_search():
    found = ratios(TABLE, (5, 8))
    assert list(found) == [5, 8]
    assert found[5] == pytest.approx((0.1 / 0.4, 0.5, 2.0)) and found[8] == pytest.approx((0.5, 1.25, 1.0))
    assert ratios(TABLE, (8,)) == {8: found[8]}


def test_csv_holds_every_row_and_column():
    rows = list(csv.reader(io.StringIO(csv_text(TABLE))))
    assert rows[0] == ["row", "budget", "full rmse mean", "fine psnr worst"] and len(rows) == 1 + len(TABLE)
    for row, ((name, budget), values) in zip(rows[1:], TABLE.items(), strict=True):
        assert row[:2] == [name, str(budget)]
        assert np.allclose([float(cell) for cell in row[2:]], list(values.values()), rtol=1e-5)
    assert csv_text(TABLE).endswith("\n") and "\r" not in csv_text(TABLE)


def test_the_text_table_has_budgets_across_and_rows_in_order():
    lines = text_table(TABLE, "full rmse mean", (5, 8), 2).splitlines()
    assert len({len(line) for line in lines}) == 1 and lines[0].split() == ["B", "5", "8"]
    assert [line[: -2 * 8].strip() for line in lines[1:]] == list(VALUES)
    assert [line.split()[-2:] for line in lines[1:]] == [[f"{a:.2f}", f"{b:.2f}"] for a, b in VALUES.values()]


def test_a_row_that_cannot_make_so_few_has_a_dash():
    few = {place: row for place, row in TABLE.items() if place != (DIRECT, 5)}
    line, = (line for line in text_table(few, "full rmse mean", (5, 8), 2).splitlines() if line.startswith(DIRECT))
    assert line.split()[-2:] == ["-", "0.05"]


def test_the_budgets_shown_are_calibrated_and_the_metrics_told_apart():
    assert set(SHOWN) <= set(BUDGETS) and list(SHOWN) == sorted(SHOWN)
    assert set(METRICS) >= {"rmse", "psnr", "ssim"}
