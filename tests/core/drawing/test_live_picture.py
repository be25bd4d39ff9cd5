"""What is shown of a calibration while it runs: its data, and the figure read back from artists and pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mixture import MixtureGenerator, linear_sigmas

from otcache_core.calibration.live import CUT, SIDE, Live, best_so_far, thumbnail
from otcache_core.calibration.pipeline import Settings, prepare, reference_schedule
from otcache_core.calibration.recording import analyse
from otcache_core.calibration.search import SearchState, Trial
from otcache_core.drawing.live_picture import BORDER, LINE, SIZE, live_figure
from otcache_core.drawing.style import to_image
from otcache_core.sampling.rollout import Counted, Rollouts

CASES, SIGMAS = [1, 2, 3], linear_sigmas(20, 3.0)
SETTINGS = Settings(budgets=range(4, 8), reference_budget=7, anchor_budget=4, trials=8, model="mixture")
NAN = float("nan")


def made(trials=((0.1, False), (0.05, True), (0.08, False)), shape=(64, 64), picture=True) -> Live:
    """A search after those trials (score, dropped), with noise for pictures."""
    generator = torch.Generator().manual_seed(0)
    live = Live(8, 50, range(8, 16), "rmse", torch.rand(3, *shape, generator=generator))
    trials = tuple(Trial(*trial) for trial in trials)
    standing = SearchState(trials, 60, tuple(range(8)), float(np.nanmin(best_so_far(trials))))
    live.search(standing, torch.rand(3, *shape, generator=generator) if picture else None)
    return live


# -- the data ------------------------------------------------------------------------------------------------


def test_the_best_so_far_leaves_out_what_was_dropped_or_diverged():
    trials = [(NAN, True), (0.3, False), (0.1, True), (0.4, False), (NAN, False), (0.2, False)]
    np.testing.assert_array_equal(best_so_far([Trial(*trial) for trial in trials]), [NAN, 0.3, 0.3, 0.3, 0.3, 0.2])
    assert best_so_far([]).shape == (0,)


@given(st.lists(st.tuples(st.floats(1e-9, 10), st.booleans()), min_size=1, max_size=30))
def test_the_best_so_far_never_rises_and_ends_at_the_least(trials):
    best = best_so_far([Trial(*trial) for trial in trials])
    complete = [score for score, dropped in trials if not dropped]
    found = best[~np.isnan(best)]
    assert (np.diff(found) <= 0).all() and len(best) == len(trials)
    assert (found[-1] == min(complete)) if complete else not len(found)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((64, 64), (64, 64)), ((384, 192), (192, 96)), ((1024, 1024), (192, 192)), ((100, 1000), (19, 192)),
     ((8 * 480, 848), (192, 96)), ((1, 1), (1, 1)), ((9, 4000), (1, 192))],
)  # fmt: skip
def test_thumbnails_fit_and_keep_their_shape_but_for_very_tall_ones(shape, expected):
    picture = torch.rand(3, *shape)
    small = thumbnail(picture)
    assert small.shape == (*expected, 3) and small.dtype == np.float32
    shown = picture[:, : max(int(CUT * shape[1]), 1)]
    np.testing.assert_allclose(small.mean((0, 1)), shown.mean((1, 2)), atol=0.01)
    if shape == expected:
        np.testing.assert_array_equal(small, picture.movedim(0, -1))


def test_a_picture_is_kept_until_another_schedule_is_the_best():
    live = made()
    picture, standing = live.best, live.standing
    live.search(standing, None)
    assert live.best is picture
    live.search(SearchState(standing.trials, 60, (0, 9), 0.01), None)
    assert live.best is None


# -- the figure ----------------------------------------------------------------------------------------------


def test_every_pixel_of_both_pictures_is_shown():
    live = made()
    image = to_image(live_figure(live))
    assert image.shape == (SIZE[1], SIZE[0], 3)
    for number, picture in enumerate((live.full, live.best)):
        top = BORDER + LINE + number * (LINE + SIDE + 4)
        shown = image[top : top + SIDE, BORDER : BORDER + SIDE]
        np.testing.assert_allclose(shown, picture.repeat(3, 0).repeat(3, 1), atol=1 / 255)


def test_the_search_is_drawn_with_its_best_so_far():
    live = made([(0.1, False), (0.05, True), (0.08, False), (0.02, True), (0.09, False)])
    axes = live_figure(live).axes[-1]
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_array_equal(lines["dropped early"].get_xydata(), [(2, 0.05), (4, 0.02)])
    np.testing.assert_array_equal(lines["trial"].get_xydata(), [(1, 0.1), (3, 0.08), (5, 0.09)])
    np.testing.assert_array_equal(lines["best so far"].get_ydata(), [0.1, 0.1, 0.08, 0.08, 0.08])
    assert axes.get_yscale() == "log" and axes.get_xlim() == (0, 61)
    assert "trial 5 of 60, best 0.08" in [text.get_text() for text in live_figure(live).texts]


def test_the_budgets_are_drawn_as_they_are_judged():
    live = made()
    for budget, error in ((8, 0.1), (10, 0.03), (9, 0.05), (8, 0.09)):
        live.guard(budget, error)
    figure = live_figure(live)
    np.testing.assert_array_equal(figure.axes[-1].lines[0].get_xydata(), [(8, 0.09), (9, 0.05), (10, 0.03)])
    assert figure.axes[-1].get_xlim() == (7.5, 15.5)
    assert "3 of 8 budgets" in [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("live", [
    lambda: made([(0.1, False)]),
    lambda: made([(0.1, False)] * 3),
    lambda: made([(NAN, True), (0.1, False)]),
    lambda: made([(0.0, False), (1e-9, False), (1e9, True)]),
    lambda: made([(0.1, False)] * 100),
    lambda: made(shape=(8, 8), picture=False),
    lambda: made(shape=(1, 1)),
    lambda: made(shape=(700, 31)),
])  # fmt: skip
@pytest.mark.parametrize("errors", [{}, {8: 0.1}, {8: 0.0, 9: NAN, 10: np.inf}])
def test_whatever_was_found_can_be_drawn(live, errors):
    live = live()
    for budget, error in errors.items():
        live.guard(budget, error)
    figure = live_figure(live)
    low, high = figure.axes[-1].get_ylim()
    assert any(low <= tick <= high for tick in figure.axes[-1].get_yticks())
    assert to_image(figure).shape == (SIZE[1], SIZE[0], 3)


def test_a_picture_that_is_not_at_hand_is_said_to_be_so():
    assert "best: found earlier" in [text.get_text() for text in live_figure(made(picture=False)).texts]
    assert "best, 8 of 50" in [text.get_text() for text in live_figure(made()).texts]


# -- what a calibration tells --------------------------------------------------------------------------------


class Watched:
    """One calibration, what was seen of it after each call, and what it cost."""

    def __init__(self, settings=SETTINGS, watch=True, stop=None):
        generator = Counted(MixtureGenerator())
        self.observed = analyse(generator, CASES, SIGMAS)
        reference = reference_schedule(generator, self.observed, settings)
        self.seen, self.pictures, self._stop = [], [], stop
        self.result = prepare(generator, self.observed, reference, settings, watch=self.look if watch else None)
        self.evaluations = generator.evaluations

    def look(self, live):
        self.seen.append((live.standing, dict(live.errors), live.best))
        self.full = live.full
        if len(self.seen) == self._stop:
            raise InterruptedError


def test_a_calibration_shows_every_trial_and_every_budget():
    run = Watched()
    assert [len(standing.trials) for standing, errors, _ in run.seen if not errors] == list(range(1, 9))
    assert [len(errors) for _, errors, _ in run.seen] == [0] * 8 + [1, 2, 3, 4, 4, 4, 4, 4]
    for standing, _, _ in run.seen:
        assert best_so_far(standing.trials)[-1] == pytest.approx(standing.score)
    standing, errors, _ = run.seen[-1]
    assert (standing.steps, standing.score) == (run.result.anchor.compute_steps, run.result.anchor.score)
    assert errors == {budget: schedule.score for budget, schedule in run.result.schedules.items()}


def test_it_shows_the_first_case_in_full_and_with_the_best_schedule():
    run, generator = Watched(), MixtureGenerator()
    np.testing.assert_array_equal(run.full, thumbnail(generator.decode(run.observed.trajectories[0].x[-1])))
    for standing, _, best in run.seen:
        latents, _ = Rollouts(generator, CASES[:2], run.observed.trajectories[:2]).run(standing.steps)
        np.testing.assert_allclose(best, thumbnail(generator.decode(latents[0])), atol=1e-6)


def test_watching_costs_no_evaluations():
    watched, alone = Watched(), Watched(watch=False)
    assert watched.evaluations == alone.evaluations and watched.result.anchor == alone.result.anchor


def test_what_nobody_watches_need_not_be_a_picture():
    class Frames(MixtureGenerator):
        def decode(self, x):
            return super().decode(x)[:, :, None]

    settings = replace(SETTINGS, metric="rmse")
    observed = analyse(Frames(), CASES, SIGMAS)
    found = prepare(Frames(), observed, reference_schedule(Frames(), observed, settings), settings)
    assert set(found.schedules) == set(settings.budgets)


def test_a_search_that_goes_on_begins_with_the_earlier_trials(tmp_path):
    settings = replace(SETTINGS, storage=str(tmp_path / "a.db"), memory=str(tmp_path))
    with pytest.raises(InterruptedError):
        Watched(settings, stop=5)
    resumed, whole = Watched(settings), Watched()
    begun, _, best = resumed.seen[0]  # what was found is seen before anything is tried
    assert begun.trials == whole.seen[4][0].trials and best is None
    standing, _, best = resumed.seen[1]
    assert standing.trials == whole.seen[5][0].trials
    assert (best is None) == (standing.steps == begun.steps)
    again = Watched(settings)
    assert [best for _, _, best in again.seen] == [None] * 9 and again.seen[0][0].trials == whole.seen[-1][0].trials
    assert again.result.anchor == whole.result.anchor
