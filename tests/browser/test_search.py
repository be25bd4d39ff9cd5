"""What OT Anchor Search shows while it runs, in the real frontend, in the classic canvas and in Nodes 2.0."""

import json
import time
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "example_workflows" / "otcache_demo.json"
NODE = "OTAnchorSearch"
SMALL = {
    "OTReferenceSchedule": {"steps": 20, "cases": 1, "budget": 7},
    NODE: {"budget": 4, "trials": 20},
    "OTBudgetInterpolate": {"budget": 5},
}
SHOWN = """(name) => {
  const node = nodeOf(name)
  const image = LiteGraph.vueNodesMode ? document.querySelector(`[data-node-id="${node.id}"] img`) : node.imgs?.[0]
  return image?.naturalWidth ? { src: image.src, size: [image.naturalWidth, image.naturalHeight] } : null
}"""

OVERLAPPED = """(name) => {
  const node = nodeOf(name)
  const bottom = node.pos[1] + node.size[1]
  return app.canvas.graph.nodes.filter(({ id, pos }) => id !== node.id && pos[0] === node.pos[0]
    && pos[1] > node.pos[1] && pos[1] - LiteGraph.NODE_TITLE_HEIGHT < bottom).map(({ title }) => title)
}"""


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "nodes2"])
def test_the_search_shows_pictures_and_its_curve_on_its_node(open_comfy, shots, vue):
    comfy = open_comfy(vue=vue)
    comfy.load(json.loads(DEMO.read_text(encoding="utf-8")), "otcache_demo")
    comfy.set_all(SMALL)
    comfy.set("seed", 300 + vue, "OTReferenceSchedule")  # another one, so that nothing is cached
    comfy.focus(NODE, 1.0)
    assert comfy.page.evaluate(SHOWN, NODE) is None
    comfy.page.get_by_test_id("queue-button").click()
    name, seen, late = "nodes2" if vue else "classic", [], time.monotonic() + 300
    while "Anchor" in (title := comfy.page.title()) or not seen:
        assert time.monotonic() < late, f"after 5 minutes {len(seen)} pictures were shown; the page is at: {title}"
        shown = comfy.page.evaluate(SHOWN, NODE)
        if shown and shown not in seen:
            assert shown["size"] == [640, 460] and "Anchor" in title
            comfy.page.screenshot(path=shots / f"search_{name}_{min(len(seen), 9)}.png")
            seen.append(shown)
        comfy.page.wait_for_timeout(100)
    assert len(seen) >= 2  # more on most machines; of the search and of the budgets
    comfy.page.wait_for_function("document.title.startsWith('*otcache_demo')", timeout=60_000)
    comfy.settle()
    comfy.page.screenshot(path=shots / f"search_{name}_end.png")
    assert comfy.page.evaluate(OVERLAPPED, NODE) == []  # the example leaves room for it
    last = comfy.page.evaluate(SHOWN, NODE)
    comfy.page.evaluate("nodeOf('OTBudgetInterpolate').widgets.find((widget) => widget.name === 'budget').value = 6")
    comfy.run()
    assert comfy.page.evaluate(SHOWN, NODE) == last  # nothing is searched, and it stays
    comfy.page.screenshot(path=shots / f"search_{name}_again.png")
    assert comfy.complaints == []
