"""What a long node shows while it works: a bar in model evaluations, and a line of text on the node."""

import logging
import time

import comfy.utils
import server

TEXT_INTERVAL = 0.2  # seconds between two lines that differ in numbers only


class NodeProgress:
    """`tick(evaluations)` after every evaluation; an instance itself is a `Progress` callback of the library's stages."""

    def __init__(self, title: str, node_id: str | None, total: int):
        self.title, self.node_id, self.total = title, node_id, max(total, 1)
        self._bar = comfy.utils.ProgressBar(self.total)
        self._stage, self._told = "", 0.0

    def tick(self, evaluations: int) -> None:
        """Show that so many model evaluations have been made."""
        self._bar.update_absolute(min(evaluations, self.total), self.total)

    def __call__(self, stage: str, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if stage != self._stage:
            logging.info("OTCache: %s: %s", self.title, stage)
        elif done < total and now - self._told < TEXT_INTERVAL:
            return
        self._stage, self._told = stage, now
        self.say(f"{stage} {done} of {total}" + (f", {note}" if note else ""))

    def say(self, text: str) -> None:
        """Show `text` on the node, where this ComfyUI can."""
        send = getattr(getattr(server.PromptServer, "instance", None), "send_progress_text", None)
        if send and self.node_id is not None:
            send(f"{self.title}: {text}", self.node_id)

    def done(self) -> None:
        """Fill the bar."""
        self._bar.update_absolute(self.total, self.total)


def duration(seconds: float) -> str:
    """Seconds in words that suit a plan: "40 s", "8 min", "2.5 h"."""
    if seconds < 100:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
