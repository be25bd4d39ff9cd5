"""Writes example_workflows/*.json and subgraphs/*.json anew, with the node definitions of the ComfyUI that find_host finds."""

import json
import sys
import tempfile
from pathlib import Path

from . import blueprints, example_workflows
from .find_host import HINT, find_host

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / "example_workflows"
BLUEPRINTS = REPOSITORY / "subgraphs"


def text_of(graph: dict) -> str:
    """A workflow as it stands in its file."""
    return json.dumps(graph, indent=1, ensure_ascii=False) + "\n"


def object_info() -> dict:
    """The node definitions that a server of the found ComfyUI gives; leaves with a hint when there is none."""
    host = find_host()
    if host is None:
        sys.exit(HINT)
    sys.path.append(str(REPOSITORY / "tests" / "host"))
    from serving import Server  # the server that the tests use

    with tempfile.TemporaryDirectory() as base, Server(host, REPOSITORY, Path(base)) as server:
        return server.object_info()


def main() -> None:
    """Start a server, ask it, write."""
    info = object_info()
    for folder, makers in ((FOLDER, example_workflows.ALL), (BLUEPRINTS, blueprints.ALL)):
        folder.mkdir(exist_ok=True)
        for make in makers:
            workflow = make(info)
            (folder / f"{workflow.name}.json").write_text(text_of(workflow.graph()), encoding="utf-8")


if __name__ == "__main__":
    main()
