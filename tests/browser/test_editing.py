"""Steps forced by hand on the strips, with the mouse and with keys, in both ways that nodes are drawn."""

from strips import CLASSIC, MODES, NODE, NODES2, cells, demo

SEND = """() => nodeOf("OTBudgetInterpolate").onExecuted({ otcache: [{
  kind: "budget", asked: {}, metric: "rmse", sigmas: Array.from({ length: 21 }, (_, i) => 1 - i / 20),
  anchor: [0, 10], reference: [0, 4, 8, 12, 16], prepared: {}, curve: [],
}] })"""
SAVED = """name => app.extensionManager.workflow.activeWorkflow.changeTracker.activeState.nodes
  .find(node => node.type === name).widgets_values.at(-1)"""


def grid_of(strip):
    return strip.locator("xpath=..").locator("[role=grid]")


def cell(strip, step):
    return grid_of(strip).locator("[role=gridcell]").nth(step - 1)


def marks(strip, kind):
    return (strip.locator(f"path.{kind}").get_attribute("d") or "").count("M")


def prepared(open_comfy, vue):
    comfy = open_comfy(vue=vue)
    comfy.load(demo(), "otcache_demo")
    comfy.page.evaluate(SEND)
    comfy.set("budget", 5)
    return comfy, comfy.strip_on(NODE)


@MODES
def test_a_click_forces_a_step_and_another_frees_it(open_comfy, shots, vue):
    comfy, strip = prepared(open_comfy, vue)
    name = "nodes2" if vue else "classic"
    before = comfy.page.evaluate("[...nodeOf('OTBudgetInterpolate').pos]")
    assert (cells(strip, "run"), marks(strip, "on"), marks(strip, "off")) == (5, 0, 0)
    cell(strip, 3).click()
    assert comfy.value("forced") == "+3" and (cells(strip, "run"), marks(strip, "on")) == (6, 1)
    assert strip.locator(".label").inner_text() == "6 of 20 evaluations, up to 3.3x"
    assert strip.locator(".foot").inner_text() == "budget 5 changed: error not measured"
    assert cell(strip, 3).get_attribute("aria-label") == "step 3: model runs, forced on"
    cell(strip, 9).click()
    assert comfy.value("forced") == "+3 -9" and (cells(strip, "run"), marks(strip, "off")) == (5, 1)
    cell(strip, 1).click()  # the first step is always computed
    assert comfy.value("forced") == "+3 -9"
    comfy.page.screenshot(path=shots / f"edited_{name}.png")
    strip.locator("xpath=..").screenshot(path=shots / f"edited_{name}_strip.png")
    assert comfy.page.evaluate("[...nodeOf('OTBudgetInterpolate').pos]") == before  # the node was not dragged
    _, prompt = comfy.documents()
    [inputs] = [node["inputs"] for node in prompt.values() if node["class_type"] == NODE]
    assert inputs["forced"] == "+3 -9"

    for expected in ("+3", ""):
        comfy.settle()
        comfy.page.keyboard.press("Control+z")
        comfy.eventually(lambda expected=expected: comfy.page.evaluate(SAVED, NODE) == expected)
    comfy.eventually(lambda: comfy.value("forced") == "")
    assert comfy.complaints == []


@NODES2
def test_keys_move_over_the_steps_and_force_them(open_comfy, vue):
    comfy, strip = prepared(open_comfy, vue)
    cell(strip, 1).focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft", " ", "End", "Enter"):
        comfy.page.keyboard.press(key)
    assert comfy.value("forced") == "+3 +20"
    assert cell(strip, 20).evaluate("cell => cell === document.activeElement && cell.tabIndex === 0")
    assert grid_of(strip).locator("[tabindex='0']").count() == 1  # Tab comes to one of them
    comfy.page.keyboard.press("Enter")
    assert comfy.value("forced") == "+3"
    comfy.page.keyboard.press("Delete")
    assert comfy.value("forced") == "" and strip.is_visible()  # and the node is still there
    assert comfy.budget() == 5
    assert comfy.complaints == []


@CLASSIC
def test_what_is_typed_shows_and_can_be_cleared(open_comfy, vue):
    comfy, strip = prepared(open_comfy, vue)
    clear = strip.locator("xpath=..").get_by_role("button", name="Clear all forced steps")
    assert not clear.is_visible()
    comfy.set("forced", "+2 +4 -30")
    assert marks(strip, "on") == 2 and "step 30, but there are 20 steps" in strip.locator(".foot").inner_text()
    comfy.set("forced", "2, 4")
    assert strip.locator(".label").inner_text() == "forced must be step numbers with a sign, such as +3 -7"
    assert not grid_of(strip).is_visible()
    comfy.set("max_skips", 2)
    clear.click()
    assert comfy.value("forced") == "" and not clear.is_visible() and grid_of(strip).is_visible()
    assert cells(strip, "run") == 10  # the cap halves each of the five gaps of three
    comfy.set("start_percent", 0.25)
    assert [cell(strip, step).get_attribute("title") for step in (4, 5, 6)] == [
        "step 4: model runs", "step 5: model runs", "step 6: predicted",
    ]  # fmt: skip
    assert comfy.complaints == []


@NODES2
def test_auto_caches_last_run_can_be_edited(open_comfy, shots, vue):
    comfy = open_comfy(vue=vue)
    comfy.load(demo(), "otcache_demo")
    comfy.page.evaluate("""() => {
      const node = LiteGraph.createNode("OTAutoCache")
      app.graph.add(node)
      node.pos = [nodeOf("OTBudgetInterpolate").pos[0], nodeOf("OTBudgetInterpolate").pos[1] - 3000] // where no other is
      node.onExecuted({ otcache: [{ kind: "run", steps: 6, evaluations: 3, computed: [1, 0, 0, 1, 1, 0],
        seconds: [1, 0, 0, 1, 1, 0], ideal: 2, measured: 2, spread: null, level: "output", reason: "" }] })
    }""")
    strip = comfy.strip_on("OTAutoCache")
    cell(strip, 2).click()
    cell(strip, 4).click()
    assert comfy.value("forced", "OTAutoCache") == "+2 -4" and (marks(strip, "on"), marks(strip, "off")) == (1, 1)
    assert strip.locator(".foot").inner_text().startswith("forced: +2 -4\n")
    assert (cells(strip, "run"), cells(strip, "skip")) == (3, 3)  # what ran stays what ran
    strip.locator("xpath=..").screenshot(path=shots / f"edited_auto_{'nodes2' if vue else 'classic'}.png")
    cell(strip, 2).click()
    assert comfy.value("forced", "OTAutoCache") == "-4"
    comfy.set("budget", 7, "OTAutoCache")  # which is no slider
    assert comfy.value("choose", "OTAutoCache") == "by speed-up"
    comfy.page.evaluate("""() => nodeOf("OTAutoCache").onExecuted({ otcache: [{ kind: "run", steps: 3, evaluations: 3,
      computed: [1, 0, 0, 1, 1, 0], seconds: [1, 0, 0, 1, 1, 0], ideal: 2, measured: 2, level: "output", reason: "" }] })""")
    assert not grid_of(strip).is_visible()  # two evaluations a step: cells are no steps
    assert comfy.complaints == []
