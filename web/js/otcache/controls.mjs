// The widgets that a strip goes by: what they ask for, and what strip and slider write into them.
import { app } from "../../../../scripts/app.js"
import { Editor } from "./editing.mjs"
import { widgetFor } from "./graph.mjs"
import { after, noteForUndo, rootGraph, strips } from "./page.mjs"
import { BY_HAND } from "./schedule.mjs"
import { greyTargets, refresh, showTargets } from "./targets.mjs"
import { leastHeight } from "./widget.mjs"

const RULES = ["start_percent", "end_percent", "max_skips", "forced"] // widgets of both that are editable
const ASKED = ["budget", "choose", "target_error", "target_speedup", ...RULES] // widgets of OT Budget Interpolate
const MAX = 1000 // that OT Budget Interpolate takes

/** The element of a strip whose steps can be forced by hand. */
export function editable(node, strip, words) {
  const forced = () => widgetFor(node, "forced", rootGraph())
  const write = (text) => {
    if (!forced()) return // another node gives it
    setValue(node, forced(), text)
    noteForUndo()
  }
  return new Editor(strip, words, () => forced()?.value, write).element
}

/** Draw the strip anew whenever one of those widgets changes, and show those that count. */
export function followWidgets(node, strip) {
  const greyed = () => greyTargets(node, widgetFor(node, "choose", rootGraph())?.value)
  const fit = strip.kind === "budget" ? (resize) => fitTargets(node, resize) : greyed
  for (const name of ASKED) {
    const own = node.widgets?.find((widget) => widget.name === name)
    if (!own) continue
    after(own, "callback", () => {
      // Not where another node gives it: a Primitive calls this whenever a prompt is made.
      if (strip.kind === "budget" && name === "budget" && widgetFor(node, name, rootGraph()) === own) chooseByHand(node)
      if (name === "choose") fit(true)
      strip.show()
      node.graph?.setDirtyCanvas?.(true, true) // the classic canvas would show the old value until the mouse moves
    })
  }
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
  const before = leastHeight(node)
  const [choose, slider] = ["choose", "budget"].map((name) => widgetFor(node, name, rootGraph()))
  showTargets(node, choose?.value, slider)
  const needed = leastHeight(node)
  const height = node.size[1] + (resize ? needed - before : 0)
  node.setSize([node.size[0], Math.max(height, needed)])
}

/** Let the slider end at `steps`: beyond them there is nothing. The node itself takes up to `MAX`, and N for more than N. */
export function limitBudget(node, steps) {
  const widget = widgetFor(node, "budget", rootGraph())
  const max = Math.min(steps, MAX)
  if (!widget?.options || widget.options.max === max) return
  widget.options.max = max
  refresh(widget)
}

/** What a key on the strip of a budget does. */
export function setBudget(node, value) {
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
export function askedOf(node, strip) {
  return Object.fromEntries(ASKED.map((name) => {
    const widget = widgetFor(node, name, rootGraph())
    return [name, widget ? widget.value : strip.data?.asked?.[name]]
  }))
}
