"""ComfyUI's frontend as a person meets it."""

import json

READY = (
    "window.app && window.app.extensionManager && !window.app.extensionManager.spinner"
    " && document.querySelector('#graph-canvas')"
)
RUN = """seconds => new Promise((resolve, reject) => {
  const { api } = window.comfyAPI.api
  const late = setTimeout(() => reject("no end after " + seconds + " s"), seconds * 1000)
  const ended = ok => ({ detail }) => { clearTimeout(late); ok ? resolve() : reject(JSON.stringify(detail)) }
  api.addEventListener("execution_success", ended(true), { once: true })
  api.addEventListener("execution_error", ended(false), { once: true })
  document.querySelector("[data-testid=queue-button]").click()
})"""
FIND = "window.nodeOf = name => app.canvas.graph.nodes.find(node => node.comfyClass === name)"  # in the graph that is open
FOCUS = """([name, scale]) => {
  const node = nodeOf(name)
  const { ds } = app.canvas
  ds.scale = scale
  ds.offset[0] = 130 / scale - node.pos[0]
  ds.offset[1] = 130 / scale - node.pos[1]
  app.canvas.setDirty(true, true)
}"""
WIDGET_BOX = """([name, widget]) => {
  const node = nodeOf(name)
  const { y } = node.widgets.find(entry => entry.name === widget)
  const corner = app.canvasPosToClientPos([node.pos[0] + 15, node.pos[1] + y + 10])
  const other = app.canvasPosToClientPos([node.pos[0] + node.size[0] - 15, node.pos[1] + y + 10])
  return [corner[0], corner[1], other[0]]
}"""

TRACK = """handle => {
  let track = handle
  while (track.getBoundingClientRect().width < 80) track = track.parentElement
  const { left, right } = track.getBoundingClientRect()
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
        self.page.wait_for_timeout(500)

    def close(self):
        self.page.close()

    def open_template(self, name: str):
        """By hand in the template browser."""
        self.page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
        self.page.get_by_text("otcache", exact=True).first.click()
        self.page.get_by_test_id(f"template-workflow-{name}").first.click()
        self.page.wait_for_function("app.canvas.graph.nodes.some(node => node.comfyClass === 'OTBudgetInterpolate')")
        self.page.wait_for_timeout(500)

    def load(self, graph: dict, name: str):
        self.page.evaluate("([graph, name]) => app.loadGraphData(graph, true, true, name)", [graph, name])
        self.page.wait_for_timeout(500)

    def run(self, seconds: float = 300):
        """Press Run and wait for the end."""
        self.page.evaluate(RUN, seconds)
        self.page.wait_for_timeout(300)

    def focus(self, node: str, scale: float = 1.3):
        """Bring a node class's first node to the page's upper left."""
        self.page.evaluate(FOCUS, [node, scale])
        self.page.wait_for_timeout(400)

    def strip_on(self, node: str):
        """The strip of a node class's first node (its element)."""
        self.focus(node)
        element = "nodeOf(name).widgets.find(widget => widget.name === 'otcache_strip').element"
        self.page.evaluate(f"name => {{ {element}.dataset.test = name }}", node)
        return self.page.locator(f'.otcache-strip[data-test="{node}"]')

    def budget(self) -> int:
        return self.page.evaluate(
            "nodeOf('OTBudgetInterpolate').widgets.find(w => w.name === 'budget').value"
        )

    def drag_budget(self, share: float):
        """Drag the slider with the mouse to a share of its length."""
        self.focus("OTBudgetInterpolate")
        if self.vue:
            handle = self.page.locator('[aria-label="budget"] [role=slider]')
            box, (left, right) = handle.bounding_box(), handle.evaluate(TRACK)
            start, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        else:
            left, y, right = self.page.evaluate(WIDGET_BOX, ["OTBudgetInterpolate", "budget"])
            start = left + 0.1 * (right - left)
        self.page.mouse.move(start, y)
        self.page.mouse.down()
        for part in (0.3, 0.6, 1.0):
            self.page.mouse.move(start + part * (left + share * (right - left) - start), y)
        self.page.mouse.up()
        self.page.wait_for_timeout(200)

    def documents(self) -> tuple[dict, dict]:
        """The workflow and the prompt as they would be saved and sent."""
        found = self.page.evaluate("app.graphToPrompt()")
        return json.loads(json.dumps(found["workflow"])), json.loads(json.dumps(found["output"]))
