"""What the tests of the strips share."""

import json
import re
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "example_workflows" / "otcache_demo.json"
NODE, SAMPLER = "OTBudgetInterpolate", "OTCachedSampler"
MODES = pytest.mark.parametrize("vue", [False, True], ids=["classic", "nodes2"])
# Of what is the same code in both ways: a page takes long to open.
CLASSIC = pytest.mark.parametrize("vue", [False], ids=["classic"])
NODES2 = pytest.mark.parametrize("vue", [True], ids=["nodes2"])
CELL = re.compile(r"M[-\d.]+ [-\d.]+h")
RULES = {"start_percent", "end_percent", "max_skips", "forced"}
INPUTS = {"anchor", "budget", "choose", "target_error", "target_speedup", *RULES}
QUICK = {"OTReferenceSchedule": {"cases": 2}, "OTAnchorSearch": {"trials": 20}}  # a third of the demo's calibration
TO_SUBGRAPH = """() => {
  app.canvas.deselectAll()
  app.canvas.select(nodeOf("OTBudgetInterpolate"))
  return app.extensionManager.command.execute("Comfy.Graph.ConvertToSubgraph")
}"""
INSIDE = """element => {
  const node = nodeOf(NODE), box = element.getBoundingClientRect()
  const drawn = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect()
  const [left, top] = app.canvasPosToClientPos(node.pos)
  const [right, bottom] = app.canvasPosToClientPos([node.pos[0] + node.size[0], node.pos[1] + node.size[1]])
  const { left: l, top: t, right: r, bottom: b } = drawn ?? { left, top, right, bottom }
  return l <= box.left && t <= box.top && box.right <= r + 1 && box.bottom <= b + 1 && box.height > 100
}"""


def cells(strip, kind):
    """How many cells of a kind ("run" or "skip") a strip shows."""
    return len(CELL.findall(strip.locator(f".plot path.{kind}").get_attribute("d") or ""))


def shows(strip, budget, steps=50, by=""):
    assert strip.locator(".label").inner_text().startswith(f"{by}{budget} of {steps} evaluations, up to ")
    assert (cells(strip, "run"), cells(strip, "skip")) == (budget, steps - budget)
    return True


def is_inside(strip, node):
    """Whether all of a strip lies within its node as it is drawn. node: its class or "subgraph"."""
    return strip.evaluate(INSIDE.replace("NODE", json.dumps(node)))


def demo(widgets=None):
    """The demo workflow with a quicker calibration; widgets: other values on OT Budget Interpolate."""
    workflow = json.loads(DEMO.read_text(encoding="utf-8"))
    for node in workflow["nodes"]:
        for name, value in QUICK.get(node["type"], {}).items():
            names = [entry["name"] for entry in node["inputs"] if "widget" in entry]
            node["widgets_values"][names.index(name)] = value
    if widgets is not None:
        next(node for node in workflow["nodes"] if node["type"] == NODE)["widgets_values"] = widgets
    return workflow
