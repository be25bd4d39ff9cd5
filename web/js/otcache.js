// Strips on OTCache's nodes: which steps run the model. Drawn here, kept nowhere: neither in the workflow nor in the prompt.
import { app } from "../../../scripts/app.js"
import { api } from "../../../scripts/api.js"
import { labelChoices } from "./otcache/choices.mjs"
import { colourLinks } from "./otcache/colours.mjs"
import { Editor } from "./otcache/editing.mjs"
import { allNodes, locatorOf, nodeByPath, widgetFor } from "./otcache/graph.mjs"
import { BY_HAND } from "./otcache/schedule.mjs"
import { heightOf, Strip } from "./otcache/strip.mjs"
import { isChinese, wordsFor } from "./otcache/words.mjs"

const KINDS = { OTBudgetInterpolate: "budget", OTCachedSampler: "run", OTApplyCache: "run", OTAutoCache: "run" }
const EDITABLE = ["OTBudgetInterpolate", "OTAutoCache"]
const RULES = ["start_percent", "end_percent", "max_skips", "forced"] // widgets of both
const ASKED = ["budget", "choose", "target_error", "target_speedup", ...RULES] // widgets of OT Budget Interpolate
const TYPE = "OTCACHE_STRIP" // a name of our own: Nodes 2.0 replaces widgets whose type it knows
const NAME = "otcache_strip"
const MARGIN = 10 // the classic canvas keeps so much free around a DOM widget
const WIDTH = 320 // of a fresh node: its lines of text fit
const FIRST_MAX = 100 // of the slider, until the number of steps is known
const MAX = 1000 // that OT Budget Interpolate takes
const RECENT = 16 // runs to look through for results after a reload

const strips = new WeakMap() // node -> Strip
let chinese = {} // node id -> what our locale says of it; empty in other languages

/** "<workflow>/<path>" -> what OT Apply Cache reported: its node has no outputs of its own that the server would keep. */
const reports = {
  get(key) {
    try {
      return JSON.parse(sessionStorage.getItem(`otcache:${key}`))
    } catch {
      return null // not ours, or the browser keeps nothing
    }
  },
  set(key, report) {
    try {
      sessionStorage.setItem(`otcache:${key}`, JSON.stringify(report))
    } catch {
      // full: the report is gone after a reload, as if there had been no run
    }
  },
}

const rootGraph = () => app.rootGraph ?? app.graph
const locale = () => app.extensionManager?.setting?.get("Comfy.Locale")

function addStrip(node) {
  const kind = KINDS[node.comfyClass]
  const words = wordsFor(locale())
  const isEditable = EDITABLE.includes(node.comfyClass)
  const strip = new Strip(kind, words, () => askedOf(node, strip), (value) => setBudget(node, value), isEditable)
  strips.set(node, strip)
  const height = heightOf(kind, isEditable)
  const element = isEditable ? editable(node, strip, words) : strip.element
  const widget = node.addDOMWidget(NAME, TYPE, element, {
    serialize: false, // not in the prompt
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: () => height + 2 * MARGIN,
    getMaxHeight: () => height + 2 * MARGIN,
  })
  widget.serialize = false // not in the workflow's values
  const size = node.computeSize()
  node.setSize([Math.max(node.size[0], size[0], WIDTH), Math.max(node.size[1], size[1])])

  if (isEditable) followWidgets(node, strip)
  if (kind === "budget") {
    limitBudget(node, FIRST_MAX)
    // The frontend waits for the "change" event of whatever has the focus, which is for inputs: undo would not know of our keys.
    for (const event of ["keyup", "blur"]) strip.element.addEventListener(event, noteForUndo)
  }
  after(node, "onExecuted", (output) => take(node, output))
  element.addEventListener("wheel", (event) => {
    if (!globalThis.LiteGraph?.vueNodesMode) app.canvas.processMouseWheel?.(event) // zoom as elsewhere on a node
  })
}

/** The element of a strip whose steps can be forced by hand. */
function editable(node, strip, words) {
  const forced = () => widgetFor(node, "forced", rootGraph())
  const write = (text) => {
    if (!forced()) return // another node gives it
    setValue(node, forced(), text)
    noteForUndo()
  }
  return new Editor(strip, words, () => forced()?.value, write).element
}

/** Let the frontend look at the graph: what has changed since it last did is one step of undo. */
function noteForUndo() {
  app.canvas.emitBeforeChange?.()
  app.canvas.emitAfterChange?.()
}

function followWidgets(node, strip) {
  for (const name of ASKED) {
    const own = node.widgets?.find((widget) => widget.name === name)
    if (!own) continue
    after(own, "callback", () => {
      // Not where another node gives it: a Primitive calls this whenever a prompt is made.
      if (strip.kind === "budget" && name === "budget" && widgetFor(node, name, rootGraph()) === own) chooseByHand(node)
      strip.show()
      node.graph?.setDirtyCanvas?.(true, true) // the classic canvas would show the old value until the mouse moves
    })
  }
  for (const event of ["onConfigure", "onConnectionsChange"]) after(node, event, () => strip.show())
}

function after(node, name, action) {
  const original = node[name]
  node[name] = function () {
    const answer = original?.apply(this, arguments)
    action.apply(this, arguments)
    return answer
  }
}

/** Let the slider end at `steps`: beyond them there is nothing. The node itself takes up to `MAX`, and N for more than N. */
function limitBudget(node, steps) {
  const widget = widgetFor(node, "budget", rootGraph())
  const max = Math.min(steps, MAX)
  if (!widget?.options || widget.options.max === max) return
  widget.options.max = max
  widget.disabled = !widget.disabled // Nodes 2.0 reads the options anew only when something else changes
  widget.disabled = !widget.disabled
}

function setBudget(node, value) {
  const widget = widgetFor(node, "budget", rootGraph())
  if (!widget) return // another node gives it
  chooseByHand(node)
  setValue(node, widget, value)
}

/** Who moves the slider wants its budget. */
function chooseByHand(node) {
  const widget = widgetFor(node, "choose", rootGraph())
  if (widget && widget.value !== BY_HAND) setValue(node, widget, BY_HAND)
}

function setValue(node, widget, value) {
  widget.value = value
  widget.callback?.(value, app.canvas, node)
  strips.get(node).show() // a promoted widget does not call the node's own
  node.graph?.setDirtyCanvas?.(true, true)
}

/** What the widgets ask for; where another node gives a value, that of the last run. */
function askedOf(node, strip) {
  return Object.fromEntries(ASKED.map((name) => {
    const widget = widgetFor(node, name, rootGraph())
    return [name, widget ? widget.value : strip.data?.asked?.[name]]
  }))
}

function take(node, output) {
  const data = output?.otcache?.[0]
  const strip = strips.get(node)
  if (!strip || !data || data.kind !== strip.kind || !isWhole(data)) return
  strip.take(data)
  if (strip.kind === "budget") limitBudget(node, strip.cells)
}

/** Whether a strip can be drawn from what was found: another version of the pack may have left it. */
function isWhole(data) {
  const parts = data.kind === "budget" ? ["sigmas", "anchor", "reference", "prepared", "curve", "asked"] : ["computed", "seconds"]
  return parts.every((part) => data[part])
}

/** Bring back what earlier runs of this workflow gave: from this page, else from the server's history. */
async function restore() {
  const root = rootGraph()
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
  const root = rootGraph()
  const states = Object.entries(nodes ?? {}).map(([path, state]) => [nodeByPath(root, state.display_node_id ?? path), state])
  const running = states.find(([node, { state }]) => node?.comfyClass === "OTCachedSampler" && state === "running")
  const cell = running ? running[1].value : -1
  for (const [node] of allNodes(root)) {
    const strip = strips.get(node)
    if (!strip?.data || !(strip.kind === "budget" || node === running?.[0] || cell < 0)) continue
    const now = running && strip.cells === running[1].max ? cell : -1
    if (now !== strip.now) strip.show(now)
  }
}

app.registerExtension({
  name: "OTCache.Strips",

  async init() {
    if (!isChinese(locale())) return
    try {
      const answer = await api.fetchApi("/i18n")
      chinese = (await answer.json()).zh?.nodeDefs ?? {}
    } catch {
      // no translations: the choices stay English
    }
  },

  setup() {
    const sheet = document.createElement("link")
    sheet.rel = "stylesheet"
    sheet.href = new URL("./otcache/strip.css", import.meta.url).href
    document.head.append(sheet)
    colourLinks(app.canvas)
    api.addEventListener("progress_state", ({ detail }) => showProgress(detail.nodes))
    for (const end of ["execution_success", "execution_error", "execution_interrupted"]) {
      api.addEventListener(end, () => showProgress(null))
    }
    api.addEventListener("otcache.run", ({ detail }) => {
      if (!detail.workflow) return // queued without one, by a script
      reports.set(`${detail.workflow}/${detail.node}`, detail.strip)
      const root = rootGraph()
      const node = root.id === detail.workflow && nodeByPath(root, detail.node)
      if (node) take(node, { otcache: [detail.strip] })
    })
  },

  nodeCreated(node) {
    if (node.comfyClass?.startsWith("OT")) labelChoices(node.widgets, chinese[node.comfyClass])
    if (node.comfyClass in KINDS) addStrip(node)
  },

  afterConfigureGraph() {
    restore().catch(() => {}) // without the server's history the strips ask for a run, as they do on a fresh page
  },

  /** Another tab's workflow was opened: the frontend gives back what its nodes sent. */
  onNodeOutputsUpdated(outputs) {
    const root = rootGraph()
    for (const [node] of allNodes(root)) {
      if (strips.has(node)) take(node, outputs[locatorOf(node, root)])
    }
  },
})
