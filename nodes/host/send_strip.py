"""Sending what a strip on a node draws."""

from ...otcache_core.drawing.strip import run_strip


def show_run(node_id: str | None, report) -> None:
    """Show a finished run on a node that has itself ended long before, in the browser that queued it."""
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is not None and node_id is not None:
        prompt, workflow = running_prompt(server)
        message = {"node": node_id, "prompt": prompt, "workflow": workflow, "strip": run_strip(report)}
        server.send_sync("otcache.run", message, server.client_id)


def running_prompt(server) -> tuple[str | None, str | None]:
    """The ids of the prompt that runs and of its workflow, for another one may be open in the browser.

    The workflow's is None when the prompt was queued without one.
    """
    for _, prompt, _, extra, *_ in server.prompt_queue.currently_running.values():
        workflow = (extra.get("extra_pnginfo") or {}).get("workflow") or {}
        return prompt, workflow.get("id")
    return None, None
