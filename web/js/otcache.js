// Strips on OTCache's nodes: which steps run the model. Drawn here, kept nowhere: neither in the workflow nor in the prompt.
import { app } from "../../../scripts/app.js"
import { api } from "../../../scripts/api.js"
import { allNodes, locatorOf, nodeByPath } from "./otcache/graph.mjs"
import { heightOf, Strip } from "./otcache/strip.mjs"
import { wordsFor } from "./otcache/words.mjs"

const KINDS = { OTBudgetInterpolate: "budget", OTCachedSampler: "run", OTApplyCache: "run" }
const TYPE = "OTCACHE_STRIP" // a name of our own: Nodes 2.0 replaces widgets whose type it knows
const NAME = "otcache_strip"
const MARGIN = 10 // the classic canvas keeps so much free around a DOM widget
const WIDTH = 320 // of a fresh node: its lines of text fit
const RECENT = 16 // runs to look through for results after a reload

const strips = new WeakMap() // node -> Strip
const reports = new Map() // "<workflow>/<path>" -> what OT Apply Cache reported; its node has no outputs of its own to show

function addStrip(node) {
  const kind = KINDS[node.comfyClass]
  const budget = node.widgets?.find((widget) => widget.name === "budget")
  const words = wordsFor(app.extensionManager?.setting?.get("Comfy.Locale"))
  const strip = new Strip(kind, words, kind === "budget" && budget ? (value) => setBudget(node, budget, value) : null)
  strips.set(node, strip)
  const height = heightOf(kind)
  const widget = node.addDOMWidget(NAME, TYPE, strip.element, {
    serialize: false, // not in the prompt
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: () => height + 2 * MARGIN,
    getMaxHeight: () => height + 2 * MARGIN,
  })
  widget.serialize = false // not in the workflow's values
  const size = node.computeSize()
  node.setSize([Math.max(node.size[0], size[0], WIDTH), Math.max(node.size[1], size[1])])

  const show = () => kind === "budget" && strip.show(currentBudget(node, budget, strip))
  if (budget) {
    const callback = budget.callback
    budget.callback = function () {
      const answer = callback?.apply(this, arguments)
      show()
      return answer
    }
  }
  after(node, "onExecuted", (output) => take(node, output))
  after(node, "onConfigure", show)
  after(node, "onConnectionsChange", show)
  strip.element.addEventListener("wheel", (event) => {
    if (!globalThis.LiteGraph?.vueNodesMode) app.canvas.processMouseWheel?.(event) // zoom as elsewhere on a node
  })
  show()
}

function after(node, name, action) {
  const original = node[name]
  node[name] = function () {
    const answer = original?.apply(this, arguments)
    action.apply(this, arguments)
    return answer
  }
}

function setBudget(node, widget, value) {
  const { min = 1, max = value } = widget.options ?? {}
  widget.value = Math.min(Math.max(value, min), max)
  widget.callback?.(widget.value, app.canvas, node)
  node.graph?.setDirtyCanvas?.(true, true)
}

/** The slider's value, or what the last run used when another node gives the budget. */
function currentBudget(node, widget, strip) {
  const linked = node.inputs?.some((input) => input.name === "budget" && input.link != null)
  return linked && strip.data ? strip.data.budget : Number(widget?.value)
}

function take(node, output) {
  const data = output?.otcache?.[0]
  const strip = strips.get(node)
  if (!strip || !data || data.kind !== strip.kind) return
  strip.take(data)
  if (strip.kind === "budget") {
    strip.show(currentBudget(node, node.widgets.find((widget) => widget.name === "budget"), strip))
  }
}

/** Bring back what earlier runs of this workflow gave: from this page, else from the server's history. */
async function restore() {
  const root = app.rootGraph ?? app.graph
  const missing = () => [...allNodes(root)].filter(([node]) => strips.has(node) && !strips.get(node).data)
  for (const [node, path] of missing()) take(node, { otcache: [reports.get(`${root.id}/${path}`)] })
  if (!missing().length) return
  const answer = await api.fetchApi(`/history?max_items=${RECENT}`)
  if (!answer.ok) return
  for (const entry of Object.values(await answer.json()).reverse()) {
    if (entry.prompt?.[3]?.extra_pnginfo?.workflow?.id !== root.id) continue
    for (const [node, path] of missing()) take(node, entry.outputs?.[path])
  }
}

/** While a cached sampler works, its cell is framed on its own strip and on those of the budgets. */
function showProgress(nodes) {
  const root = app.rootGraph ?? app.graph
  const states = Object.entries(nodes ?? {}).map(([path, state]) => [nodeByPath(root, state.display_node_id ?? path), state])
  const running = states.find(([node, { state }]) => node?.comfyClass === "OTCachedSampler" && state === "running")
  const cell = running ? running[1].value : -1
  for (const [node] of allNodes(root)) {
    const strip = strips.get(node)
    if (!strip?.data || !(strip.kind === "budget" || node === running?.[0] || cell < 0)) continue
    const now = running && strip.cells === running[1].max ? cell : -1
    if (now !== strip.now) strip.show(undefined, now)
  }
}

app.registerExtension({
  name: "OTCache.Strips",

  setup() {
    const sheet = document.createElement("link")
    sheet.rel = "stylesheet"
    sheet.href = new URL("./otcache/strip.css", import.meta.url).href
    document.head.append(sheet)
    api.addEventListener("progress_state", ({ detail }) => showProgress(detail.nodes))
    for (const end of ["execution_success", "execution_error", "execution_interrupted"]) {
      api.addEventListener(end, () => showProgress(null))
    }
    api.addEventListener("otcache.run", ({ detail }) => {
      const root = app.rootGraph ?? app.graph
      reports.set(`${root.id}/${detail.node}`, detail.strip)
      const node = nodeByPath(root, detail.node)
      if (node) take(node, { otcache: [detail.strip] })
    })
  },

  nodeCreated(node) {
    if (node.comfyClass in KINDS) addStrip(node)
  },

  afterConfigureGraph() {
    restore().catch(() => {}) // without the server's history the strips ask for a run, as they do on a fresh page
  },

  /** Another tab's workflow was opened: the frontend gives back what its nodes sent. */
  onNodeOutputsUpdated(outputs) {
    const root = app.rootGraph ?? app.graph
    for (const [node] of allNodes(root)) {
      if (strips.has(node)) take(node, outputs[locatorOf(node, root)])
    }
  },
})
