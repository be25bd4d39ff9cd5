// Which nodes have a strip or a note, and how it comes to stand on them.
import { api } from "../../../../scripts/api.js"
import { askedOf, editable, followWidgets, limitBudget, setBudget } from "./controls.mjs"
import { widgetFor } from "./graph.mjs"
import { Note } from "./note.mjs"
import { after, KINDS, locale, noteForUndo, rootGraph, strips } from "./page.mjs"
import { take } from "./results.mjs"
import { heightOf, Strip } from "./strip.mjs"
import { addWidget, leastHeight, letZoom, NAME } from "./widget.mjs"
import { wordsFor } from "./words.mjs"

const EDITABLE = ["OTBudgetInterpolate", "OTAutoCache"]
const NOTES = { OTSaveSchedule: ["saved", "firstSaved", 4], OTCompare: ["compared", "firstCompared", 7] } // kind, hint, lines
const FIRST_MAX = 100 // of the slider, until the number of steps is known

/** Put on a fresh node of ours what belongs there, if anything does. */
export function attach(node) {
  if (node.comfyClass in KINDS) addStrip(node)
  if (node.comfyClass in NOTES) addNote(node)
}

function addStrip(node) {
  const kind = KINDS[node.comfyClass]
  const words = wordsFor(locale())
  const isEditable = EDITABLE.includes(node.comfyClass)
  const strip = new Strip(kind, words, () => askedOf(node, strip), (value) => setBudget(node, value), isEditable)
  const element = isEditable ? editable(node, strip, words) : strip.element
  keep(node, strip, heightOf(kind, isEditable), element)
  if (isEditable) followWidgets(node, strip)
  if (kind === "schedule") followName(node)
  if (kind === "budget") {
    limitBudget(node, FIRST_MAX)
    // The frontend waits for the "change" event of whatever has the focus, which is for inputs: undo would not know of our keys.
    for (const event of ["keyup", "blur"]) strip.element.addEventListener(event, noteForUndo)
  }
  letZoom(element)
}

function addNote(node) {
  const [kind, hint, lines] = NOTES[node.comfyClass]
  const words = wordsFor(locale())
  const note = new Note(kind, words, words[hint], lines)
  keep(node, note, note.height, note.element)
}

/** A node's own Strip or Note, which takes what the node sends. */
function keep(node, strip, height, element) {
  strips.set(node, strip)
  node.setSize([node.size[0], leastHeight(node)]) // it is fresh: nobody has set its size
  addWidget(node, NAME, height, element)
  after(node, "onExecuted", (output) => take(node, output))
}

/** OT Load Schedule shows what its name stands for as soon as it is chosen. */
function followName(node) {
  const own = node.widgets.find((widget) => widget.name === "schedule")
  for (const event of ["onConfigure", "onConnectionsChange"]) after(node, event, () => showNamed(node))
  after(own, "callback", () => showNamed(node))
  showNamed(node)
}

/** Ask the server for the schedule that OT Load Schedule names. */
export async function showNamed(node) {
  const strip = strips.get(node)
  const name = widgetFor(node, "schedule", rootGraph())?.value ?? ""
  const asked = (strip.asked = {}) // the latest question alone is answered
  const answer = name ? await api.fetchApi(`/otcache/schedule?name=${encodeURIComponent(name)}`).catch(() => null) : null
  const data = answer?.ok ? await answer.json() : null
  if (strip.asked === asked) strip.take(data)
}
