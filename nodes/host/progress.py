"""What a long node shows while it works: a bar in model evaluations, a line of text on the node, and a picture."""

import logging
import time
from collections.abc import Callable

import comfy.model_management
import comfy.utils
import server

from ...otcache_core.calibration.live import Live
from ...otcache_core.drawing.figures import to_picture
from ...otcache_core.drawing.live_picture import live_figure

TEXT_INTERVAL = 0.2  # seconds between two lines that differ in numbers only
PICTURE_SHARE = 0.02  # of the time goes into pictures of the same best schedule, at most


def say_on(title: str, node_id: str | None) -> Callable[[str], None]:
    """A function that shows a text on a node, where this ComfyUI can."""
    send = getattr(getattr(server.PromptServer, "instance", None), "send_progress_text", None)

    def say(text: str) -> None:
        if send and node_id is not None:
            send(f"{title}: {text}", node_id)

    return say


class NodeProgress:
    """`tick(evaluations)` after every evaluation; an instance itself is a `Progress` callback of the library's stages.

    Both are checks for interruption, for stages without evaluations take seconds too.
    """

    def __init__(self, title: str, node_id: str | None, total: int):
        self.title, self.node_id, self.total = title, node_id, max(total, 1)
        self._bar = comfy.utils.ProgressBar(self.total)
        self._stage, self._told = "", 0.0
        self._live: Live | None = None  # what has changed since it was drawn
        self._drawn, self._took, self._best = 0.0, 0.0, None

    def tick(self, evaluations: int) -> None:
        """Show that so many model evaluations have been made."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._bar.update_absolute(min(evaluations, self.total), self.total)

    def __call__(self, stage: str, done: int, total: int, note: str) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        now = time.monotonic()
        if stage != self._stage:
            logging.info("OTCache: %s: %s", self.title, stage)
        elif done < total and now - self._told < TEXT_INTERVAL:
            return
        self._stage, self._told = stage, now
        self.say(f"{stage} {done} of {total}" + (f", {note}" if note else ""))

    def say(self, text: str) -> None:
        """Show `text` on the node, where this ComfyUI can."""
        say_on(self.title, self.node_id)(text)

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
        self._bar.update_absolute(self._bar.current, self.total, ("JPEG", picture, None))  # None: no limit of its size

    def done(self) -> None:
        """Draw what has not been drawn, and fill the bar."""
        if self._live is not None:
            self._draw()
        self._bar.update_absolute(self.total, self.total)


def duration(seconds: float) -> str:
    """Seconds in words that suit a plan: "40 s", "8 min", "2.5 h"."""
    if seconds < 100:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
