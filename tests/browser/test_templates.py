"""The example workflows in the frontend: nodes stand apart as they are drawn, and missing model files are offered."""

from strips import MODES
from workflows import NAMES, load

OVERLAPS = """() => {
  const boxes = app.graph.nodes.map(node => {
    const drawn = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect()
    if (drawn) return [node.type, drawn.left, drawn.top, drawn.right, drawn.bottom]
    const [x, y, width, height] = node.getBounding()
    return [node.type, x, y, x + width, y + height]
  })
  const apart = (a, b) => a[3] <= b[1] + 1 || b[3] <= a[1] + 1 || a[4] <= b[2] + 1 || b[4] <= a[2] + 1
  return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b => !apart(a, b)).map(b => `${a[0]} and ${b[0]}`))
}"""
TOO_SMALL = "app.graph.nodes.filter(node => node.size[1] < node.computeSize()[1]).map(node => node.type)"


@MODES
def test_nodes_stand_apart_as_drawn(open_comfy, shots, vue):
    comfy = open_comfy(vue=vue)
    comfy.page.set_viewport_size({"width": 1900, "height": 1100})
    for name in NAMES:
        comfy.load(load(name), name)
        comfy.page.evaluate("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        comfy.settle()
        comfy.page.screenshot(path=shots / f"{name}_{'nodes2' if vue else 'classic'}.png")
        assert comfy.page.evaluate(OVERLAPS) == [], name
        assert vue or comfy.page.evaluate(TOO_SMALL) == [], name
    assert comfy.complaints == []


@MODES
def test_templates_open_readable(open_comfy, shots, vue):
    """The smallest, and the two that need the most room. The canvas leaves text out below a zoom of 4/7."""
    comfy = open_comfy(vue=vue)
    for name, width, height, last in (
        ("otcache_start", 1400, 900, "OTCompare"), ("otcache_wan2_2_t2v", 1920, 950, "SaveWEBM"),
        ("otcache_calibrate", 1920, 950, "OTSaveSchedule"),
    ):  # fmt: skip
        comfy.page.set_viewport_size({"width": width, "height": height})
        comfy.page.goto(f"{comfy.server.url}/?template={name}&source=otcache")  # as the template browser opens it
        comfy.wait()
        has_come = "last => app.canvas.graph.nodes.some(node => node.comfyClass === last)"
        comfy.page.wait_for_function(has_come, arg=last, timeout=90_000)
        comfy.settle()
        comfy.page.screenshot(path=shots / f"opened_{name}_{'nodes2' if vue else 'classic'}.png")
        assert comfy.page.evaluate("app.canvas.ds.scale") >= 4 / 7, name
    assert comfy.complaints == []


def test_missing_files_are_offered(open_comfy, shots):
    comfy = open_comfy()
    name = "otcache_wan2_2_t2v"
    comfy.load(load(name), name)
    comfy.page.get_by_text("View details").click()
    models = [entry for node in load(name)["nodes"] for entry in node["properties"].get("models", [])]
    assert len(models) == 4
    for entry in models:
        comfy.page.get_by_text(entry["name"]).first.wait_for()
    comfy.eventually(lambda: comfy.page.get_by_text("Download", exact=True).count() == len(models))
    comfy.page.screenshot(path=shots / "missing_files.png")
    assert comfy.complaints == []
