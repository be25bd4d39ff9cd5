"""Sending what a strip on a node draws."""

from ...otcache_core.drawing.strip import run_strip


def show_run(node_id: str | None, report) -> None:
    """Show a finished run on a node that has itself ended long before, in the browser that queued it."""
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is not None and node_id is not None:
        message = {"node": node_id, "workflow": running_workflow(server), "strip": run_strip(report)}
        server.send_sync("otcache.run", message, server.client_id)


def running_workflow(server) -> str | None:
    """The id of the workflow that runs, for another one may be open in the browser; None when it was queued without one."""
    for _, _, _, extra, *_ in server.prompt_queue.currently_running.values():
        workflow = (extra.get("extra_pnginfo") or {}).get("workflow") or {}
        return workflow.get("id")
    return None
