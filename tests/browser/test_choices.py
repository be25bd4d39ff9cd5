"""In Chinese the choices of combo widgets are Chinese too; what is saved and sent stays as the nodes know it."""

import json

from strips import MODES, NODE, demo

from tools.make_locales import FILE

ZH = json.loads((FILE.parents[1] / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
LISTEN = """() => {
  window.drawn = []
  const { fillText } = CanvasRenderingContext2D.prototype
  CanvasRenderingContext2D.prototype.fillText = function (text) {
    drawn.push(String(text))
    if (drawn.length > 5000) drawn.splice(0, 2500)
    return fillText.apply(this, arguments)
  }
}"""
REDRAWN = """() => new Promise(resolve => {
  drawn.length = 0
  app.canvas.setDirty(true, true)
  requestAnimationFrame(() => requestAnimationFrame(() => resolve(drawn)))
})"""
TEXTS = """name => [...document.querySelectorAll(`[data-node-id="${nodeOf(name).id}"] *`)]
  .flatMap(element => [...element.childNodes]).filter(child => child.nodeType === Node.TEXT_NODE)
  .map(child => child.data.trim()).filter(Boolean)"""


def texts(comfy, node):
    """What stands on a node of a class; in the classic canvas, on all that are in sight."""
    comfy.focus(node)
    return set(comfy.page.evaluate(TEXTS, node) if comfy.vue else comfy.page.evaluate(REDRAWN))


def labels(node, widget):
    """Value -> Chinese label of a widget's choices."""
    return ZH[node]["inputs"][widget]["options"]


@MODES
def test_choices_are_shown_in_chinese_and_kept_in_english(open_comfy, shots, vue):
    comfy, name = open_comfy(vue=vue, locale="zh"), "nodes2" if vue else "classic"
    comfy.page.evaluate(LISTEN)
    comfy.load(demo(), "otcache_demo")
    before = comfy.documents()[1]
    choose = labels(NODE, "choose")
    comfy.eventually(lambda: choose["by hand"] in texts(comfy, NODE))
    assert "by hand" not in texts(comfy, NODE)
    comfy.choose("by error", choose["by error"])
    comfy.eventually(lambda: choose["by error"] in texts(comfy, NODE))
    comfy.page.screenshot(path=shots / f"choices_{name}_budget.png")
    workflow, prompt = comfy.documents()
    node = next(node for node in workflow["nodes"] if node["type"] == NODE)
    assert node["widgets_values"] == [10, "by error", 0.03, 4, 0, 1, 0, ""]
    assert prompt[str(node["id"])]["inputs"]["choose"] == "by error"

    scene = next(node["inputs"] for node in before.values() if node["class_type"] == "OTDemoModel")
    shown = texts(comfy, "OTDemoModel")
    for widget, entry in ZH["OTDemoModel"]["inputs"].items():
        if "options" in entry:
            assert entry["options"][scene[widget]] in shown, widget
    comfy.page.screenshot(path=shots / f"choices_{name}_scene.png")
    comfy.choose("by hand", choose["by hand"])
    assert comfy.documents()[1] == before
    assert comfy.complaints == []
