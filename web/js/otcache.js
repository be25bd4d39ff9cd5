// Strips on OTCache's nodes: which steps run the model. Drawn here, kept nowhere: neither in the workflow nor in the prompt.
import { app } from "../../../scripts/app.js"
import { api } from "../../../scripts/api.js"
import { labelChoices } from "./otcache/choices.mjs"
import { colourLinks } from "./otcache/colours.mjs"
import { Editor } from "./otcache/editing.mjs"
import { allNodes, locatorOf, nodeByPath, widgetFor } from "./otcache/graph.mjs"
import { translatedProgress } from "./otcache/messages.mjs"
import { Note } from "./otcache/note.mjs"
import { freeValues, isSamePrompt } from "./otcache/prompt.mjs"
import { reports } from "./otcache/reports.mjs"
import { BY_HAND } from "./otcache/schedule.mjs"
import { heightOf, Strip } from "./otcache/strip.mjs"
import { refresh, showTargets } from "./otcache/targets.mjs"
import { isChinese, wordsFor } from "./otcache/words.mjs"

const KINDS = {
  OTBudgetInterpolate: "budget", OTCachedSampler: "run", OTApplyCache: "run", OTAutoCache: "run", OTLoadSchedule: "schedule",
}
const EDITABLE = ["OTBudgetInterpolate", "OTAutoCache"]
const NOTES = { OTSaveSchedule: ["saved", "firstSaved", 4], OTCompare: ["compared", "firstCompared", 6] } // kind, hint, lines
const RULES = ["start_percent", "end_percent", "max_skips", "forced"] // widgets of both that are editable
const ASKED = ["budget", "choose", "target_error", "target_speedup", ...RULES] // widgets of OT Budget Interpolate
const TYPE = "OTCACHE_STRIP" // a name of our own: Nodes 2.0 replaces widgets whose type it knows
const NAME = "otcache_strip"
const MARGIN = 10 // the classic canvas keeps so much free around a DOM widget
const WIDTH = 320 // of a fresh node: its lines of text fit
const FIRST_MAX = 100 // of the slider, until the number of steps is known
const MAX = 1000 // that OT Budget Interpolate takes
const PARTS = { budget: ["sigmas", "anchor", "reference", "prepared", "curve", "asked"], run: ["computed", "seconds"] }
const RECENT = 16 // runs to look through for results after a reload

const strips = new WeakMap() // node -> Strip or Note
let chinese = {} // node id -> what our locale says of it; empty in other languages

const rootGraph = () => app.rootGraph ?? app.graph
const locale = () => app.extensionManager?.setting?.get("Comfy.Locale")

function addStrip(node) {
  const kind = KINDS[node.comfyClass]
  const words = wordsFor(locale())
  const isEditable = EDITABLE.includes(node.comfyClass)
  const strip = new Strip(kind, words, () => askedOf(node, strip), (value) => setBudget(node, value), isEditable)
  const element = isEditable ? editable(node, strip, words) : strip.element
  addWidget(node, strip, heightOf(kind, isEditable), element)
  if (isEditable) followWidgets(node, strip)
  if (kind === "schedule") followName(node)
  if (kind === "budget") {
    limitBudget(node, FIRST_MAX)
    // The frontend waits for the "change" event of whatever has the focus, which is for inputs: undo would not know of our keys.
    for (const event of ["keyup", "blur"]) strip.element.addEventListener(event, noteForUndo)
  }
  element.addEventListener("wheel", (event) => {
    if (!globalThis.LiteGraph?.vueNodesMode) app.canvas.processMouseWheel?.(event) // zoom as elsewhere on a node
  })
}

function addNote(node) {
  const [kind, hint, lines] = NOTES[node.comfyClass]
  const words = wordsFor(locale())
  const note = new Note(kind, words, words[hint], lines)
  addWidget(node, note, note.height)
}

/** Put a Strip or Note on its node, in both ways that nodes are drawn. element: what is shown of it. */
function addWidget(node, strip, height, element = strip.element) {
  strips.set(node, strip)
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
  after(node, "onExecuted", (output) => take(node, output))
}

/** OT Load Schedule shows what its name stands for as soon as it is chosen. */
function followName(node) {
  const own = node.widgets.find((widget) => widget.name === "schedule")
  for (const event of ["onConfigure", "onConnectionsChange"]) after(node, event, () => showNamed(node))
  after(own, "callback", () => showNamed(node))
  showNamed(node)
}

async function showNamed(node) {
  const strip = strips.get(node)
  const name = widgetFor(node, "schedule", rootGraph())?.value ?? ""
  const asked = (strip.asked = {}) // the latest question alone is answered
  const answer = name ? await api.fetchApi(`/otcache/schedule?name=${encodeURIComponent(name)}`).catch(() => null) : null
  const data = answer?.ok ? await answer.json() : null
  if (strip.asked === asked) strip.take(data)
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
      if (strip.kind === "budget" && name === "choose") fitTargets(node, true)
      strip.show()
      node.graph?.setDirtyCanvas?.(true, true) // the classic canvas would show the old value until the mouse moves
    })
  }
  const fit = strip.kind === "budget" ? (resize) => fitTargets(node, resize) : () => {}
  for (const event of ["onConfigure", "onConnectionsChange"]) {
    after(node, event, () => {
      fit()
      strip.show()
    })
  }
  fit(true)
}

/** Show those widgets that count as `choose` stands. resize: let the node become so much higher or lower. */
function fitTargets(node, resize = false) {
  const before = node.computeSize()[1]
  const [choose, slider] = ["choose", "budget"].map((name) => widgetFor(node, name, rootGraph()))
  showTargets(node, choose?.value, slider)
  const needed = node.computeSize()[1]
  const height = node.size[1] + (resize ? needed - before : 0)
  node.setSize([node.size[0], Math.max(height, needed)])
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
  refresh(widget)
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
  return (PARTS[data.kind] ?? []).every((part) => data[part])
}

/**
 * Bring back what a run gave that the graph would repeat as it stands. The workflow's id alone does not tell: all copies of a
 * template share it, whatever was changed in one of them before it ran.
 */
async function restore() {
  const root = rootGraph()
  const missing = () => [...allNodes(root)].filter(([node]) => strips.has(node) && !strips.get(node).data && node.comfyClass !== "OTLoadSchedule")
  if (!missing().length) return
  const answer = await api.fetchApi(`/history?max_items=${RECENT}`)
  if (!answer.ok) return
  const entries = Object.entries(await answer.json()).reverse()
  const own = entries.filter(([, entry]) => entry.prompt?.[3]?.extra_pnginfo?.workflow?.id === root.id)
  if (!own.length) return
  const { output } = await app.graphToPrompt()
  const free = freeValues(root)
  for (const [id, entry] of own) {
    if (root !== rootGraph()) return // another workflow was opened meanwhile
    if (!isSamePrompt(entry.prompt[2], output, free)) continue
    for (const [node, path] of missing()) take(node, entry.outputs?.[path] ?? { otcache: [reports.find(id, path)] })
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
    if (!strip?.data || !(strip.kind in PARTS)) continue
    if (!(strip.kind === "budget" || node === running?.[0] || cell < 0)) continue
    const now = running && strip.cells === running[1].max ? cell : -1
    if (now !== strip.now) strip.show(now)
  }
}

/** Put a progress text into Chinese where a node of ours shows it: a widget that the frontend adds in both ways nodes are drawn. */
function translateProgress({ nodeId, text }) {
  const node = nodeByPath(rootGraph(), nodeId)
  const shown = text && node?.comfyClass?.startsWith("OT") && node.widgets?.find(({ value }) => value === text)
  if (shown) shown.value = translatedProgress(text, chinese)
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
    // Once the frontend has put the text on the node, whichever of us listens first; before anything is drawn.
    if (isChinese(locale())) api.addEventListener("progress_text", ({ detail }) => queueMicrotask(() => translateProgress(detail)))
    api.addEventListener("progress_state", ({ detail }) => showProgress(detail.nodes))
    for (const end of ["execution_success", "execution_error", "execution_interrupted"]) {
      api.addEventListener(end, () => showProgress(null))
    }
    api.addEventListener("execution_success", () => { // OT Save Schedule may have written over a file that is shown
      for (const [node] of allNodes(rootGraph())) if (node.comfyClass === "OTLoadSchedule") showNamed(node)
    })
    api.addEventListener("otcache.run", ({ detail }) => {
      if (!detail.workflow) return // queued without one, by a script
      reports.add({ prompt: detail.prompt, path: detail.node, strip: detail.strip })
      const root = rootGraph()
      const node = root.id === detail.workflow && nodeByPath(root, detail.node)
      if (!node) return
      const output = { otcache: [detail.strip] }
      if (app.nodeOutputs) app.nodeOutputs[locatorOf(node, root)] = output // so that it comes back with the workflow's tab
      take(node, output)
    })
  },

  nodeCreated(node) {
    if (node.comfyClass?.startsWith("OT")) labelChoices(node.widgets, chinese[node.comfyClass])
    if (node.comfyClass in KINDS) addStrip(node)
    if (node.comfyClass in NOTES) addNote(node)
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
