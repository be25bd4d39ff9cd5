"""What a long node shows while it works: a bar, a line on the node that says what it does and how long, and a picture."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfy.model_management
import comfy.utils
import server

from ...otcache_core.calibration.forecast import Forecast, Stage, in_words
from ...otcache_core.calibration.live import Live
from ...otcache_core.drawing.live_picture import live_figure
from ...otcache_core.drawing.style import to_picture
from ...otcache_core.sampling.rollout import Counted

BAR = 1000  # units of the bar
SOON, SELDOM = 0.2, 1.0  # seconds between two lines that differ in numbers, and in the time that is left
PICTURE_SHARE = 0.02  # of the time goes into pictures of the same best schedule, at most


def say_on(title: str, node_id: str | None) -> Callable[[str], None]:
    """A function that shows a text on a node, where this ComfyUI can."""
    send = getattr(getattr(server.PromptServer, "instance", None), "send_progress_text", None)

    def say(text: str) -> None:
        if send and node_id is not None:
            send(f"{title}: {text}", node_id)

    return say


class NodeProgress:
    """To be made first of all, so that the line of an earlier run goes. Inside `work(stages)`, `follow` the generator and
    `tick` before every evaluation; an instance itself is a `Progress` callback of the library's stages.

    Both are checks for interruption, for stages without evaluations take seconds too.
    """

    def __init__(self, title: str, node_id: str | None):
        self.title = title
        self.say = say_on(title, node_id)
        self.say("starting")
        self._forecast: Forecast | None = None
        self._bar = comfy.utils.ProgressBar(BAR)
        self._report: tuple[str, int, int, str] | None = None
        self._told = 0.0
        self._live: Live | None = None  # what has changed since it was drawn
        self._drawn, self._took, self._best = 0.0, 0.0, None

    @contextmanager
    def work(self, stages: dict[str, Stage]) -> Iterator[None]:
        """The block in which `stages` are worked through; an exception that ends it is told on the node."""
        self._forecast = Forecast(stages)
        self.say("loading the model")
        try:
            yield
        except BaseException as error:
            where = f" ({in_words(*self._report)})" if self._report else ""
            cancelled = isinstance(error, comfy.model_management.InterruptProcessingException)
            self.say(f"cancelled{where}; queue again to go on" if cancelled else f"stopped by an error{where}")
            raise

    def follow(self, generator: Counted, pace: float | None = None) -> None:
        """Time the evaluations of `generator`; `pace`: the seconds that one is known to take."""
        self._forecast.follow(generator, pace)

    def tick(self, _evaluations: int) -> None:
        """Show that an evaluation is about to be made."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._move()
        self._tell(SELDOM)

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        new = self._report is None or stage != self._report[0]
        if new:
            logging.info("OTCache: %s: %s", self.title, in_words(stage, 0, 1))
        self._forecast(stage, done, total, note)
        self._report = stage, done, total, note
        self._move()
        self._tell(0.0 if new or done == total else SOON)

    def _move(self) -> None:
        self._bar.update_absolute(int(BAR * min(self._forecast.fraction, 0.99)), BAR)

    def _tell(self, interval: float) -> None:
        """Say what is done and how long it will take, unless something was said within the `interval`."""
        now, left = time.monotonic(), self._forecast.seconds
        if self._report is None or now - self._told < interval:
            return
        self._told = now
        self.say(in_words(*self._report) + (f", about {duration(left)} left" if left is not None else ""))

    def watch(self, live: Live) -> None:
        """Draw what there is to see, at once when the search has found something better, else now and then."""
        self._live = live
        if live.standing is not None and live.standing.steps != self._best:
            self._best = live.standing.steps
            self._draw()
        elif time.monotonic() - self._drawn >= self._took / PICTURE_SHARE:
            self._draw()

    def _draw(self) -> None:
        begin = time.monotonic()
        picture = to_picture(live_figure(self._live))
        self._live, self._drawn = None, time.monotonic()
        self._took = self._drawn - begin
        self._bar.update_absolute(self._bar.current, BAR, ("JPEG", picture, None))  # None: no limit of its size

    def done(self, result: str) -> None:
        """Draw what has not been drawn, fill the bar, and say what came of it."""
        if self._live is not None:
            self._draw()
        self._bar.update_absolute(BAR, BAR)
        self.say(f"done: {result}")


def duration(seconds: float) -> str:
    """Seconds in words that suit a plan: "40 s", "8 min", "2.5 h"."""
    if seconds < 100:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
