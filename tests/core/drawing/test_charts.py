"""What the figures show, read back from their artists and pixels."""

import subprocess
import sys
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import rc_context
from matplotlib.colors import to_rgba
from matplotlib.text import Text
from mixture import linear_sigmas

from otcache_core.drawing.charts import (
    NODE,
    error_against_budget,
    overview,
    schedule_strips,
    spread,
    to_image,
    to_png,
    warps,
)
from otcache_core.drawing.image_grid import BORDER, TITLE, error_map, side_by_side
from otcache_core.drawing.style import COLOURS, PAPER, png_bytes
from otcache_core.schedules.schedule import make_schedule, trajectory_time, uniform_steps
from otcache_core.schedules.transport import quantile_function, steps_at_budget

SERIES = {"ours": {5: 0.02, 10: 0.004, 25: 0.0002}, "theirs": {5: 0.03, 10: 0.005, 25: 0.00021}, "search": {5: 0.02, 10: 0.004}}
HOSTILE = "$\\frac{ <b>\u202e_x^ " + "long " * 30


def schedule(steps, sigmas=None, **fields):
    return make_schedule(sigmas=tuple(linear_sigmas(50) if sigmas is None else sigmas), compute_steps=steps, **fields)


def cells(figure) -> list[dict[str, list]]:
    """For each strip, the indices of its filled and of its hollow cells, from left to right."""
    _, strips = figure.axes
    rows: dict[float, dict[str, list]] = {}
    for patch in strips.patches:
        kind = {to_rgba(COLOURS[0]): "filled", to_rgba(PAPER): "hollow"}[patch.get_facecolor()]
        row = round(patch.get_y() + patch.get_height() / 2)
        rows.setdefault(row, {"filled": [], "hollow": []})[kind].append(patch.get_x())
    return [rows[row] for row in sorted(rows)]


def test_the_users_own_style_changes_no_pixel():
    """Neither while a figure is made nor when it is drawn later."""
    strange = {"font.family": "monospace", "xtick.major.size": 20, "ytick.labelsize": 20, "axes.grid": False,
               "xtick.color": "red", "xtick.direction": "in", "text.parse_math": True, "path.sketch": (5, 50, 5)}  # fmt: skip
    figures = [
        lambda: error_against_budget(SERIES, "RMSE"),
        lambda: schedule_strips([schedule((0, 3, 9)), schedule((0, 1))], ["one $", "two"]),
    ]
    for make in figures:
        plain = to_image(make())
        with rc_context(strange):
            assert np.array_equal(to_image(make()), plain)


def test_strips_fill_exactly_the_compute_steps():
    first, second = schedule(uniform_steps(6, 50)), schedule((0, 1, 2, 49))
    rows = cells(schedule_strips([first, second], ["a", "b"]))
    for row, shown in zip(rows, (first, second), strict=True):
        assert tuple(int(x) for x in sorted(row["filled"])) == shown.compute_steps
        assert len(row["hollow"]) == shown.steps - shown.budget


@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_strips_of_any_length_share_a_figure(steps):
    other = schedule((0,), linear_sigmas(steps))
    rows = cells(schedule_strips([schedule(range(50)), other]))
    assert [len(row["filled"]) for row in rows] == [50, 1]
    assert len(rows[1]["hollow"]) == steps - 1


def test_strips_draw_one_sigma_curve_a_grid():
    grids = [linear_sigmas(50), linear_sigmas(50, 3.0), linear_sigmas(50)]
    curve, _ = schedule_strips([schedule((0, 5), grid) for grid in grids]).axes
    assert len(curve.lines) == 2
    np.testing.assert_allclose(curve.lines[1].get_ydata(), grids[1])


def test_warps_put_the_steps_at_their_shares_and_times():
    anchor, reference = schedule((0, 4, 8, 13, 27, 42)), schedule(uniform_steps(15, 50))
    shown = [schedule(uniform_steps(budget, 50)) for budget in (6, 8, 10, 15, 20)]
    figure = warps(anchor, reference, shown)
    panels = [panel for panel in figure.axes if panel.get_visible()]
    assert len(panels) == len(shown)
    for panel, expected in zip(panels, shown, strict=True):
        points = panel.lines[-1]
        np.testing.assert_allclose(points.get_xdata(), np.arange(expected.budget) / expected.budget)
        np.testing.assert_allclose(points.get_ydata(), trajectory_time(expected.sigmas)[list(expected.compute_steps)])


def test_warps_find_the_geodesic_point_of_a_schedule():
    anchor, reference = schedule((0, 4, 8, 13, 27, 42)), schedule(uniform_steps(15, 50))
    own = schedule(steps_at_budget(quantile_function(anchor.compute_steps, anchor.sigmas), 6, anchor.sigmas))
    between = warps(anchor, reference, [own]).axes[0].lines[2]
    target = quantile_function(anchor.compute_steps, anchor.sigmas)
    np.testing.assert_allclose(between.get_ydata(), target(between.get_xdata()), atol=1e-9)


def test_error_chart_is_logarithmic_and_names_every_line_without_overlap():
    close = {f"row {number}": {5: 0.02, 25: 0.001 * 1.01**number} for number in range(9)}
    figure = error_against_budget(close, "RMSE")
    axes = figure.axes[0]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    to_image(figure)
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the leaders
    assert [text.get_text() for text in axes.texts][::-1] == list(close)
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == len(close)


def test_error_chart_takes_a_perfect_result():
    to_image(error_against_budget({"ours": {5: 0.0, 50: 0.0}}, "RMSE"))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_spread_keeps_order_and_distance(places):
    moved = np.array(spread(places, 0.05))
    order = np.argsort(places, kind="stable")
    assert (np.diff(moved[order]) >= 0.05 - 1e-6).all()
    assert (moved >= -1e-9).all() and (moved <= 1 + 1e-9).all()


def test_side_by_side_shows_every_pixel():
    picture = np.random.default_rng(0).random((16, 16, 3))
    image = to_image(side_by_side([[picture, None, picture]], ["a", "b", "c"], cell=32))
    top = BORDER + TITLE
    shown = image[top : top + 32, BORDER : BORDER + 32]
    np.testing.assert_allclose(shown, picture.repeat(2, 0).repeat(2, 1), atol=1 / 255)


def test_side_by_side_makes_room_for_labels_and_captions():
    picture = np.zeros((64, 64, 3))
    plain = to_image(side_by_side([[picture]], ["a"]))
    words = to_image(side_by_side([[picture]], ["a"], ["a label " * 20], [["30 dB"]]))
    assert words.shape[0] > plain.shape[0] + 40 and words.shape[1] == plain.shape[1]


def test_error_map_is_black_where_equal_and_brightens_with_error():
    reference = np.zeros((1, 4, 3))
    image = reference + np.array([0, 0.05, 0.15, 0.4])[None, :, None]
    lightness = error_map(image, reference).sum(-1)[0]
    assert lightness[0] < 0.05 and (np.diff(lightness) > 0).all()


@pytest.mark.parametrize("figure", [
    lambda: schedule_strips([schedule((0, 5), name="$x_{")], [HOSTILE]),
    lambda: error_against_budget({HOSTILE: {5: 0.1}, "$^$": {5: 0.2}}, HOSTILE),
    lambda: side_by_side([[np.ones((8, 8, 3))]], [HOSTILE], [HOSTILE], [[HOSTILE]]),
    lambda: overview([[np.ones((8, 8, 3))] * 2] * 2, ["a", "b"], [["c", "d"]] * 2, SERIES, "RMSE"),
    lambda: warps(schedule((0, 30)), schedule((0, 10, 20)), [schedule((0, 15))]),
])  # fmt: skip
def test_every_figure_becomes_an_image_whatever_its_words(figure):
    image = to_image(figure())
    assert image.dtype == np.float32 and image.ndim == 3 and image.shape[2] == 3
    assert 0 <= image.min() < image.max() <= 1


def test_png_round_trip(tmp_path):
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 256, (9, 7, 3))
    (tmp_path / "a.png").write_bytes(png_bytes(picture / 255))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), picture)
    assert to_png(error_against_budget(SERIES, "RMSE")).startswith(b"\x89PNG")


def test_matplotlib_is_imported_late():
    imports = "import sys, otcache_core.drawing.charts, otcache_core.drawing.html_page"
    code = f"{imports}; print('matplotlib' in sys.modules, 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == ["False", "False"]


def test_numbers_under_an_axis_do_not_run_into_each_other_on_a_node():
    figure = error_against_budget({"prepared": {b: 0.3 / b for b in range(5, 26)}}, "rmse", NODE)
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels() if label.get_text()]
    assert len(boxes) > 8
    assert all(a.x1 + 2 < b.x0 for a, b in pairwise(boxes))
    assert figure.get_figwidth() < 6  # inches: letters of 9 points stay legible where a node is 400 pixels wide
