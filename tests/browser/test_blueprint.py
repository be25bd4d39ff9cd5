"""The shipped subgraph blueprint, found by searching, placed, wired to the demo model and run."""

import json
import re

import pytest
from strips import cells, is_inside

NAME = "OTCache text to image"
WIRE = """() => {
  const blueprint = app.graph.nodes.find(node => node.subgraph)
  const add = (name, x) => {
    const node = LiteGraph.createNode(name)
    app.graph.add(node)
    node.pos = [x, blueprint.pos[1]]
    return node
  }
  const to = (source, output, input) => source.connect(output, blueprint, input)
  const demo = add("OTDemoModel", blueprint.pos[0] - 800)
  to(demo, 0, "model")
  to(demo, 3, "vae")
  to(add("TinyCLIP", blueprint.pos[0] - 400), 0, "clip")
  const schedule = add("OTLoadSchedule", blueprint.pos[0] - 400)
  schedule.pos[1] += 150
  schedule.widgets[0].value = "lemica-flux1-dev-10"
  to(schedule, 0, "schedule")
  blueprint.connect("image", add("PreviewImage", blueprint.pos[0] + 500), 0)
  blueprint.connect("report", add("PreviewAny", blueprint.pos[0] + 800), 0)
  for (const [name, value] of [["width", 128], ["height", 128], ["seed", 3], ["steps", 25]]) {
    const widget = blueprint.widgets.find(widget => widget.name === name)
    widget.value = value
    widget.callback?.(value)
  }
  return blueprint.inputs.map(({ name, widget }) => [name, Boolean(widget)])
}"""

SEED = "app.graph.nodes.find(node => node.subgraph).widgets.find(widget => widget.name === 'seed').value"

ANOTHER = """() => {
  const sampler = nodeOf("OTCachedSampler").clone()
  sampler.title = "Another"
  app.canvas.graph.add(sampler)
}"""
TITLES = """() => {
  const lines = nodeOf("subgraph").widgets.filter(widget => widget.name.startsWith("otcache_strip"))
  return lines.map(({ element }) => element.isConnected && element.querySelector(".otcache-title").innerText)
}"""


def searching(page):
    """Whether the search stands open; if it does not, a double click, which a busy canvas takes for two single ones."""
    if page.evaluate("document.activeElement?.tagName === 'INPUT'"):
        return True
    page.mouse.dblclick(500, 400)
    page.wait_for_timeout(1000)
    return False


def placed(page):
    """Whether the node stands; if it does not, a click where it shall, for it hangs on the mouse as soon as it is there."""
    if page.evaluate("app.graph.nodes.some(node => node.subgraph && !node.flags.ghost)"):
        return True
    page.mouse.click(700, 300)
    page.wait_for_timeout(600)  # two clicks in a row would open the search again
    return False


def shows_run(strip):
    """The report of the sampler inside, all of it within the node."""
    assert strip.locator(".label").inner_text().startswith("10 of 25 evaluations")
    assert (cells(strip, "run"), cells(strip, "skip")) == (10, 15)
    return is_inside(strip, "subgraph")


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "nodes2"])
def test_blueprint_is_found_placed_and_runs(open_comfy, shots, vue):
    comfy = open_comfy(vue=vue)
    page, name = comfy.page, f"blueprint_{'nodes2' if vue else 'classic'}"
    page.evaluate("app.graph.clear()")
    comfy.eventually(lambda: searching(page))
    page.keyboard.type(NAME.lower())
    page.get_by_text(NAME, exact=True).first.wait_for()
    page.screenshot(path=shots / f"{name}_1_search.png")
    page.get_by_text(NAME, exact=True).first.click()
    comfy.eventually(lambda: placed(page))
    inputs = page.evaluate(WIRE)
    assert [name for name, is_widget in inputs if not is_widget] == ["model", "clip", "vae", "schedule"]
    assert len(inputs) == 11
    comfy.load(comfy.documents()[0], name)  # a graph that was cleared has no id of its own
    comfy.server.post("/history", {"clear": True})
    strip = comfy.strip_on("subgraph")
    assert strip.locator(".hint").inner_text().startswith("After a run")
    comfy.run()
    comfy.eventually(lambda: shows_run(strip))
    page.screenshot(path=shots / f"{name}_2_strip.png")
    page.evaluate("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    comfy.settle()
    page.screenshot(path=shots / f"{name}_3_ran.png")
    assert page.evaluate(SEED) != 3  # the next picture is another one, as with a new KSampler
    outputs = [output for entry in json.loads(comfy.server.get("/history")).values() for output in entry["outputs"].values()]
    [report] = [text for output in outputs for text in output.get("text", [])]
    assert report.startswith("10 model evaluations for 25 steps")
    assert sum(len(output.get("images", [])) for output in outputs) == 1
    [entry] = json.loads(comfy.server.get("/history")).values()
    prompt = entry["prompt"][2]
    sampler = next(node for node in prompt.values() if node["class_type"] == "OTCachedSampler")
    assert (sampler["inputs"]["seed"], sampler["inputs"]["steps"]) == (3, 25)
    assert not re.search("strip", json.dumps(comfy.documents()))
    page.reload()
    comfy.wait()
    strip = comfy.strip_on("subgraph")
    comfy.eventually(lambda: shows_run(strip))
    # What is put into the subgraph later is shown too, each under its title; the report that is there stays.
    comfy.open_subgraph()
    page.evaluate(ANOTHER)
    comfy.open_root()
    strip = comfy.strip_on("subgraph")
    comfy.eventually(lambda: shows_run(strip))
    assert page.evaluate(TITLES) == ["OT Cached Sampler", "Another"]
    page.screenshot(path=shots / f"{name}_4_two.png")
    comfy.open_subgraph()
    page.evaluate("app.canvas.graph.remove(app.canvas.graph.nodes.find(node => node.title === 'Another'))")
    comfy.open_root()
    assert page.evaluate(TITLES) == [""]
    comfy.eventually(lambda: shows_run(comfy.strip_on("subgraph")))
    assert comfy.complaints == []
