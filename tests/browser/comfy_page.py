"""ComfyUI's frontend as a person meets it."""

import json
import time

PATIENCE = 60  # seconds that anything but a run may take on a slow machine
READY = (
    "window.app && window.app.extensionManager && !window.app.extensionManager.spinner"
    " && document.querySelector('#graph-canvas') && app.canvas?.graph?.nodes.length"
)
STILL = """() => new Promise((resolve, reject) => {
  const late = setTimeout(() => reject("still moving after 60 s"), 60_000)
  let before = "", same = 0
  const look = () => {
    const elements = [...document.querySelectorAll(".otcache-strip, [data-node-id]")]
    const boxes = elements.map(element => element.getBoundingClientRect())
    const now = JSON.stringify([boxes, app.canvas.ds.scale, app.canvas.ds.offset])
    same = now === before ? same + 1 : 0
    before = now
    if (same < 6) return requestAnimationFrame(look)
    clearTimeout(late)
    resolve()
  }
  look()
})"""
RUN = """seconds => new Promise((resolve, reject) => {
  const { api } = window.comfyAPI.api
  const late = setTimeout(() => reject("no end after " + seconds + " s"), seconds * 1000)
  const ended = ok => ({ detail }) => {
    clearTimeout(late)
    ok ? resolve() : reject(`${detail.node_type}: ${detail.exception_message}`)
  }
  api.addEventListener("execution_success", ended(true), { once: true })
  api.addEventListener("execution_error", ended(false), { once: true })
  document.querySelector("[data-testid=queue-button]").click()
})"""
# In the graph that is open; "subgraph" is the node of one.
FIND = """window.nodeOf = name =>
  app.canvas.graph.nodes.find(node => name === "subgraph" ? node.subgraph : node.comfyClass === name)"""
FOCUS = """([name, scale]) => {
  const node = nodeOf(name)
  const { ds } = app.canvas
  ds.scale = scale
  ds.offset[0] = 130 / scale - node.pos[0]
  ds.offset[1] = 130 / scale - node.pos[1]
  app.canvas.setDirty(true, true)
}"""
FRAME = "() => new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)))"
WIDGET_BOX = """([name, widget]) => {
  const node = nodeOf(name)
  const { y } = node.widgets.find(entry => entry.name === widget)
  const corner = app.canvasPosToClientPos([node.pos[0] + 15, node.pos[1] + y + 10])
  const other = app.canvasPosToClientPos([node.pos[0] + node.size[0] - 15, node.pos[1] + y + 10])
  return [corner[0], corner[1], other[0]]
}"""
SET = """([name, widget, value]) => {
  const node = nodeOf(name), entry = node.widgets.find(w => w.name === widget)
  entry.value = value
  entry.callback?.(value, app.canvas, node)
  app.canvas.setDirty(true, true)
}"""
CALLED = """([name, widget]) => nodeOf(name).widgets.find(entry => entry.name === widget).label ?? widget"""
TRACK = """handle => {
  const { left, right } = handle.parentElement.closest("[aria-label=budget]").getBoundingClientRect()
  return [left, right]
}"""


class Comfy:
    """A page with the frontend on it. `complaints` collects its console's errors and warnings that name our files."""

    def __init__(self, server, browser, vue: bool = False, palette: str = "dark", locale: str = "en"):
        self.server, self.vue = server, vue
        settings = {"TutorialCompleted": True, "VueNodes.Enabled": vue, "ColorPalette": palette, "Locale": locale,
                    "Minimap.Visible": False}  # fmt: skip
        server.post("/settings", {f"Comfy.{name}": value for name, value in settings.items()})
        self.page = browser.new_page(viewport={"width": 1400, "height": 900})
        self.complaints = []
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.complaints.append(f"page error: {error} {error.stack}"))
        self.page.add_init_script(FIND)
        self.page.goto(server.url)
        self.wait()

    def _listen(self, message):
        if message.type in ("error", "warning") and "otcache" in f"{message.text} {message.location}".lower():
            self.complaints.append(f"{message.type}: {message.text} {message.location}")

    def wait(self):
        """Until the frontend takes input."""
        self.page.wait_for_function(READY, timeout=90_000)
        self.settle()

    def settle(self):
        """Until nodes and strips have stood still for some frames."""
        self.page.evaluate(STILL)

    def eventually(self, check):
        """Wait until `check()` neither fails an assertion nor is false; then its value, else the last AssertionError."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                found = check()
                assert found, f"still {found} after {PATIENCE} s"
                return found
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
            self.page.wait_for_timeout(50)

    def close(self):
        self.page.close()

    def open_template(self, name: str):
        """By hand in the template browser."""
        self.page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
        self.page.get_by_text("otcache", exact=True).first.click()
        self.page.get_by_test_id(f"template-workflow-{name}").first.click()
        self.page.wait_for_function("app.canvas.graph.nodes.some(node => node.comfyClass === 'OTBudgetInterpolate')")
        self.settle()

    def load(self, graph: dict, name: str):
        self.page.evaluate("([graph, name]) => app.loadGraphData(graph, true, true, name)", [graph, name])
        self.settle()

    def run(self, seconds: float = 300):
        """Press Run and wait for the end."""
        self.page.get_by_test_id("queue-button").wait_for(timeout=PATIENCE * 1000)
        self.page.evaluate(RUN, seconds)
        self.settle()

    def focus(self, node: str, scale: float = 1.3):
        """Bring a node class's first node to the page's upper left."""
        self.page.evaluate(FOCUS, [node, scale])
        self.settle()

    def strip_on(self, node: str):
        """The strip of a node class's first node (its element)."""
        self.focus(node)
        element = "nodeOf(name).widgets.find(widget => widget.name === 'otcache_strip').element"
        own = f"{element}.querySelector('.otcache-strip') ?? {element}"  # cells that can be clicked lie round it
        self.page.evaluate(f"name => {{ ({own}).dataset.test = name }}", node)
        return self.page.locator(f'.otcache-strip[data-test="{node}"]')

    def value(self, widget: str, node: str = "OTBudgetInterpolate"):
        """A widget's value."""
        return self.page.evaluate("([name, widget]) => nodeOf(name).widgets.find(w => w.name === widget).value", [node, widget])

    def budget(self) -> int:
        return self.value("budget")

    def set(self, widget: str, value, node: str = "OTBudgetInterpolate"):
        """What typing into a widget ends with."""
        self.page.evaluate(SET, [node, widget, value])
        self.settle()

    def set_all(self, values: dict[str, dict]):
        """`set` for each widget of each node class in `values`."""
        for node, wanted in values.items():
            for widget, value in wanted.items():
                self.set(widget, value, node)

    def choose(self, value: str, label: str | None = None):
        """In the list of `choose`, with the mouse. label: what the list calls it, where that is not the value."""
        self.focus("OTBudgetInterpolate")
        if self.vue:
            called = self.page.evaluate(CALLED, ["OTBudgetInterpolate", "choose"])
            self.page.locator(f'[data-node-id] [aria-label="{called}"]').first.click()
            self.page.get_by_role("option", name=label or value).click()
        else:
            left, y, right = self.page.evaluate(WIDGET_BOX, ["OTBudgetInterpolate", "choose"])
            self.page.mouse.click((left + right) / 2, y)
            self.page.locator(".litecontextmenu .litemenu-entry", has_text=label or value).click()
            self.page.mouse.move(left, y - 300)  # the canvas is drawn anew when the mouse moves
        self.eventually(lambda: self.value("choose") == value)
        self.settle()

    def drag_budget(self, share: float, node: str = "OTBudgetInterpolate"):
        """Drag the slider with the mouse to a share of its length."""
        self.focus(node)
        if self.vue:
            handle = self.page.locator('[aria-label="budget"] [role=slider]')
            box, (left, right) = handle.bounding_box(), handle.evaluate(TRACK)
            start, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        else:
            left, y, right = self.page.evaluate(WIDGET_BOX, [node, "budget"])
            start = left + 0.1 * (right - left)
        self.page.mouse.move(start, y)
        self.page.mouse.down()
        for part in (0.01, 0.3, 0.6, 1.0):  # a small step first: Nodes 2.0 drags relative to it
            self.page.mouse.move(start + part * (left + share * (right - left) - start), y)
            self.page.evaluate(FRAME)
        self.page.mouse.up()
        self.settle()

    def open_subgraph(self):
        """The first one of the root graph."""
        self.page.evaluate("app.canvas.openSubgraph(app.rootGraph.nodes.find(node => node.subgraph).subgraph)")
        self.settle()

    def open_root(self):
        self.page.evaluate("app.canvas.setGraph(app.rootGraph)")
        self.settle()

    def documents(self) -> tuple[dict, dict]:
        """The workflow and the prompt as they would be saved and sent."""
        found = self.page.evaluate("app.graphToPrompt()")
        return json.loads(json.dumps(found["workflow"])), json.loads(json.dumps(found["output"]))
