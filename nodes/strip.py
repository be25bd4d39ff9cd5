"""Sending what a strip on a node draws."""

from ..otcache_core.strip import run_strip


def show_run(node_id: str | None, report) -> None:
    """Show a finished run on a node that has itself ended long before, in the browser that queued it."""
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is not None and node_id is not None:
        server.send_sync("otcache.run", {"node": node_id, "strip": run_strip(report)}, server.client_id)
