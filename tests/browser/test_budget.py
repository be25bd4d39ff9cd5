"""Budgets that the slider on the node does not give: chosen by a target, or promoted to a subgraph's node."""

import re

import pytest
from small import small
from strips import CLASSIC, INPUTS, MODES, NODE, SAMPLER, TO_SUBGRAPH, demo, is_inside, shows

PROMOTE = """() => {
  const node = nodeOf("OTBudgetInterpolate")
  const input = node.inputs.find(({ name }) => name === "budget")
  node.graph.addInput("budget", "INT").connect(input, node)
}"""


@MODES
def test_strip_follows_a_budget_that_was_promoted_to_its_subgraph(open_comfy, shots, vue):
    comfy, name = open_comfy(vue=vue), "nodes2" if vue else "classic"
    comfy.load(demo(), "otcache_demo")
    comfy.page.evaluate(TO_SUBGRAPH)
    comfy.open_subgraph()
    comfy.page.evaluate(PROMOTE)
    comfy.open_root()
    comfy.run()
    comfy.drag_budget(0.3, "subgraph")
    promoted = int(comfy.value("budget", "subgraph"))  # the classic canvas does not round a promoted slider, the server does
    assert promoted != 10
    comfy.page.screenshot(path=shots / f"promoted_{name}_1_outside.png")
    comfy.open_subgraph()
    strip = comfy.strip_on(NODE)
    comfy.eventually(lambda: shows(strip, promoted))
    comfy.page.screenshot(path=shots / f"promoted_{name}_2_inside.png")

    strip.focus()  # keys on the strip move the promoted slider
    comfy.page.keyboard.press("Home")
    comfy.page.keyboard.press("PageUp")
    assert shows(strip, 6)
    _, prompt = comfy.documents()
    [inputs] = [node["inputs"] for node in prompt.values() if node["class_type"] == NODE]
    assert inputs["budget"] == 6 and set(inputs) == INPUTS
    comfy.open_root()
    assert comfy.value("budget", "subgraph") == 6
    comfy.drag_budget(1.0, "subgraph")  # it ends where the steps do as well
    promoted = int(comfy.value("budget", "subgraph"))
    assert promoted in (49, 50)
    comfy.run()
    report = comfy.strip_on(SAMPLER).locator(".label")
    comfy.eventually(lambda: report.inner_text().startswith(f"{promoted} of 50 evaluations"))
    assert comfy.complaints == []


@CLASSIC
def test_the_budget_follows_a_target(open_comfy, shots, vue):
    comfy, name = open_comfy(vue=vue), "nodes2" if vue else "classic"
    comfy.load(demo([10]), "otcache_demo")  # as saved when the slider was the only widget
    widgets = ("budget", "choose", "target_error", "target_speedup")
    assert [comfy.value(widget) for widget in widgets] == [10, "by hand", 0.03, 4]
    comfy.run()
    strip = comfy.strip_on(NODE)
    label, foot, target = (strip.locator(part) for part in (".label", ".foot", "path.target"))
    assert shows(strip, 10) and not target.get_attribute("d")

    comfy.choose("by error")
    by_error = int(label.inner_text().removeprefix("auto: ").split()[0])
    assert 10 < by_error < 15 and shows(strip, by_error, by="auto: ")
    assert target.get_attribute("d") and float(re.search(r"error (\S+)", foot.inner_text())[1]) <= 0.03
    comfy.page.screenshot(path=shots / f"auto_{name}_1_error.png")
    comfy.run()
    assert shows(strip, by_error, by="auto: ")
    report = comfy.strip_on(SAMPLER).locator(".label")
    comfy.eventually(lambda: report.inner_text().startswith(f"{by_error} of 50 evaluations"))  # the server chose the same
    workflow, prompt = comfy.documents()
    node = next(node for node in workflow["nodes"] if node["type"] == NODE)
    assert node["widgets_values"] == [10, "by error", 0.03, 4, 0, 1, 0, ""] and set(prompt[str(node["id"])]["inputs"]) == INPUTS

    comfy.page.reload()
    comfy.wait()
    strip = comfy.strip_on(NODE)
    comfy.eventually(lambda: shows(strip, by_error, by="auto: "))
    label, foot, target = (strip.locator(part) for part in (".label", ".foot", "path.target"))
    assert target.get_attribute("d") and comfy.value("choose") == "by error" and comfy.budget() == 10

    comfy.set("target_error", 0.0001)
    assert label.inner_text() == "auto: 50 of 50 evaluations, in full"
    assert foot.inner_text() == "no measured budget keeps 0.0001: every step is run"
    comfy.page.screenshot(path=shots / f"auto_{name}_2_missed.png")

    comfy.choose("by speed-up")
    assert shows(strip, 12, by="auto: ") and not target.get_attribute("d")
    comfy.page.screenshot(path=shots / f"auto_{name}_3_speedup.png")
    strip.focus()
    comfy.page.keyboard.press("ArrowRight")
    assert shows(strip, 13) and (comfy.budget(), comfy.value("choose")) == (13, "by hand")
    comfy.choose("by speed-up")
    comfy.set("target_speedup", 2.5)
    assert shows(strip, 20, by="auto: ")
    comfy.drag_budget(0.5)  # in grey, it cannot be moved
    assert (comfy.value("choose"), comfy.budget()) == ("by speed-up", 13) and shows(strip, 20, by="auto: ")
    comfy.choose("by hand")
    comfy.drag_budget(0.5)
    assert shows(strip, comfy.budget()) and comfy.budget() not in (13, 20)
    comfy.set("budget", 87)
    assert foot.inner_text() == "more than the 50 steps: 87 counts as 50"
    comfy.run()
    report = comfy.strip_on(SAMPLER).locator(".label")
    comfy.eventually(lambda: report.inner_text() == "50 of 50 evaluations, in full")
    assert comfy.budget() == 87
    assert comfy.complaints == []


VISIBLE = """() => {
  const node = nodeOf("OTBudgetInterpolate")
  const labelled = document.querySelectorAll(`[data-node-id="${node.id}"] [aria-label]`)
  const drawn = [...labelled].map(element => element.ariaLabel)
  const isShown = LiteGraph.vueNodesMode ? ({ name }) => drawn.includes(name) : widget => node.isWidgetVisible(widget)
  const slider = node.widgets.find(({ name }) => name === "budget")
  const handle = document.querySelector(`[data-node-id="${node.id}"] [role=slider][data-disabled]`)
  const isGrey = LiteGraph.vueNodesMode ? Boolean(handle) : Boolean(slider.computedDisabled)
  return [node.widgets.filter(widget => widget.name.startsWith("target") && isShown(widget)).map(({ name }) => name), isGrey]
}"""

LEAST = "nodeOf('OTBudgetInterpolate').computeSize()[1]"


@MODES
def test_only_what_is_in_use_is_shown(open_comfy, vue):
    """The target that chooses, and the slider in grey while it does; after a reload and from another node too."""
    comfy = open_comfy(vue=vue)
    workflow = small(comfy)
    comfy.load(workflow, "small")

    def used():
        comfy.focus(NODE)
        comfy.page.mouse.move(700, 850)
        return comfy.page.evaluate(VISIBLE)

    assert used() == [[], False]
    least = comfy.page.evaluate(LEAST)
    for choose, shown in (("by error", ["target_error"]), ("by speed-up", ["target_speedup"])):
        comfy.choose(choose)
        assert used() == [shown, True]
        comfy.eventually(lambda: is_inside(comfy.strip_on(NODE), NODE))
        assert vue or comfy.page.evaluate(LEAST) > least
    _, prompt = comfy.documents()
    [inputs] = [node["inputs"] for node in prompt.values() if node["class_type"] == NODE]
    assert set(inputs) == INPUTS | {"reference"}  # what is hidden is sent all the same
    sizes = []
    for _ in range(2):
        comfy.load(comfy.documents()[0], "again")
        assert used() == [["target_speedup"], True]
        sizes.append(comfy.page.evaluate("nodeOf('OTBudgetInterpolate').size[1]"))
    assert sizes[0] == sizes[1]  # it does not grow each time
    comfy.strip_on(NODE).focus()
    comfy.choose("by hand")
    assert used() == [[], False]
    assert comfy.complaints == []


def test_a_primitive_that_gives_the_budget_leaves_the_choice(open_comfy):
    """ComfyUI calls the widget's callback for it whenever a prompt is made."""
    comfy = open_comfy()
    comfy.load(demo(), "otcache_demo")
    comfy.set("choose", "by error")
    comfy.page.evaluate("""() => {
      const node = nodeOf("OTBudgetInterpolate"), primitive = LiteGraph.createNode("PrimitiveNode")
      app.graph.add(primitive)
      primitive.connect(0, node, node.inputs.findIndex(({ name }) => name === "budget"))
    }""")
    _, prompt = comfy.documents()
    [inputs] = [node["inputs"] for node in prompt.values() if node["class_type"] == NODE]
    assert inputs["choose"] == comfy.value("choose") == "by error" and inputs["budget"] == 10
    assert comfy.complaints == []


def test_no_choice_by_error_without_calibration(open_comfy, shots):
    """Two published schedules carry no measured error: the strip and the node say so in the same words."""
    comfy = open_comfy(vue=True)
    comfy.load(demo(), "otcache_demo")
    comfy.page.evaluate("""() => {
      for (const [slot, name] of ["lemica-flux1-dev-10", "lemica-flux1-dev-15"].entries()) {
        const node = LiteGraph.createNode("OTLoadSchedule")
        app.graph.add(node)
        node.pos = [nodeOf("OTBudgetInterpolate").pos[0] - 350, nodeOf("OTBudgetInterpolate").pos[1] + 150 * slot]
        node.widgets[0].value = name
        node.connect(0, nodeOf("OTBudgetInterpolate"), slot)
      }
    }""")
    comfy.run()
    strip = comfy.strip_on(NODE)
    assert shows(strip, 10) and "not known" in strip.locator(".foot").inner_text()
    comfy.choose("by error")
    assert strip.locator(".label").inner_text() == "No error was measured on these 50 steps"
    assert strip.locator(".foot").inner_text() == "choose by hand or by speed-up"
    comfy.page.screenshot(path=shots / "auto_no_calibration.png")
    with pytest.raises(Exception, match="No error was measured on this grid of 50 steps"):
        comfy.run()
    assert comfy.complaints == []
