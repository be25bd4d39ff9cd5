"""Queues one calibration on several ComfyUI servers, which divide it among themselves, and waits until all are done.

    python -m tools.calibrate_everywhere --storage env:OTCACHE_STORAGE http://one:8188 http://two:8188

The workflow is a template of the pack, or a file saved or exported (API) by ComfyUI; only what leads to OT Anchor Search and OT
Save Schedule is queued. Exits with 1 when a server could not do it. See docs/machines.md.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from otcache_core.calibration.places import has_password

from .api_graph import api_graph, leading_to

TEMPLATE = Path(__file__).parents[1] / "example_workflows" / "otcache_calibrate.json"
KINDS = {"OTAnchorSearch", "OTSaveSchedule"}
ANSWER, LOST = 30, 300  # seconds until a call, and a server that was queued, is given up
POLL = 2.0


class Refused(Exception):
    """What a server says against a workflow, in one line."""


def call(server: str, path: str, data: dict | None = None) -> dict:
    """The JSON that a server answers; raises `Refused` where it says why not, and `OSError` where it does not answer."""
    body = None if data is None else json.dumps(data).encode()
    try:
        with urlopen(Request(server.rstrip("/") + path, body, {"Content-Type": "application/json"}), timeout=ANSWER) as answer:
            return json.load(answer)
    except HTTPError as error:
        raise Refused(reason(error.read())) from None


def reason(answer: bytes) -> str:
    """What a refusal of /prompt says, node by node."""
    try:
        told = json.loads(answer)
        nodes = [f"{node['class_type']}: {one['details'] or one['message']}" for node in told["node_errors"].values()
                 for one in node["errors"]]  # fmt: skip
        return "; ".join(nodes) or told["error"]["message"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return answer.decode(errors="replace")[:300] or "no reason"


def prompt_for(server: str, workflow: dict, storage: str) -> dict:
    """The API graph of what calibrates in `workflow`, with every search's `storage`; raises `Refused`."""
    if "nodes" in workflow:
        try:
            workflow = api_graph(workflow, call(server, "/object_info"))
        except KeyError as error:
            raise Refused(f"the node {error} is missing there; install what brings it") from None
    graph = json.loads(json.dumps(leading_to(workflow, KINDS)))
    searches = [node for node in graph.values() if node["class_type"] == "OTAnchorSearch"]
    if not searches:
        raise Refused("the workflow has no OT Anchor Search; choose one that calibrates")
    for node in searches:
        node["inputs"]["storage"] = storage
    return graph


def outcome(server: str, prompt: str) -> str | None:
    """None while it runs, "" when it is done, else what went wrong."""
    entry = call(server, f"/history/{prompt}").get(prompt)
    if entry is None:
        return None
    status = entry.get("status", {})
    if status.get("status_str") != "error":
        return ""
    told = {name: details for name, details in status.get("messages", [])}
    return str(told.get("execution_error", {}).get("exception_message", "interrupted")).strip()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="+", help="addresses of ComfyUI servers")
    parser.add_argument("--storage", required=True, help="as in OT Anchor Search: one that all of them reach")
    parser.add_argument("--workflow", type=Path, default=TEMPLATE, help="%(default)s")
    options = parser.parse_args(arguments)
    if has_password(options.storage):
        parser.error("the storage holds a password, which would be saved with the workflow; name it by env:OTCACHE_STORAGE")
    workflow = json.loads(options.workflow.read_text(encoding="utf-8"))
    waiting, failed = {}, 0
    for server in options.servers:
        try:
            waiting[server] = call(server, "/prompt", {"prompt": prompt_for(server, workflow, options.storage)})["prompt_id"]
            say(f"{server}: queued")
        except (Refused, OSError) as error:
            say(f"{server}: {error}")
            failed += 1
    heard = dict.fromkeys(waiting, time.monotonic())
    while waiting:
        time.sleep(POLL)
        for server, prompt in list(waiting.items()):
            try:
                told = outcome(server, prompt)
                heard[server] = time.monotonic()
            except (Refused, OSError) as error:  # it may be restarting; what it had begun the others do without it
                told = f"no answer ({error})" if time.monotonic() - heard[server] > LOST else None
            if told is not None:
                say(f"{server}: {told or 'done'}")
                failed += bool(told)
                del waiting[server]
    return int(failed > 0)


def say(line: str) -> None:
    """To the terminal at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
