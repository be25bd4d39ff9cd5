// Steps forced by hand: a row of cells over a strip's own, for mouse and keyboard, and what they write into the node's widget.
import { forcedSteps, forcedText, toggled } from "./rules.mjs"

const MOVES = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: 1, ArrowDown: -1, PageUp: 5, PageDown: -5, Home: -Infinity, End: Infinity }

/**
 * The cells over a Strip that can be clicked. words: of words.mjs. read() gives the widget's text, undefined where another node
 * gives it; write(text) sets it. `element` holds the strip's and stands in its place on the node.
 */
export class Editor {
  constructor(strip, words, read, write) {
    Object.assign(this, { strip, words, read, write })
    this.element = document.createElement("div")
    this.element.className = "otcache-editable"
    this.grid = document.createElement("div")
    this.grid.className = `otcache-cells ${strip.kind}`
    this.grid.setAttribute("role", "grid")
    this.grid.setAttribute("aria-label", words.cells)
    this.row = this.grid.appendChild(document.createElement("div"))
    this.row.setAttribute("role", "row")
    this.clearing = document.createElement("button")
    this.clearing.type = "button"
    this.clearing.className = "otcache-clear"
    this.clearing.textContent = words.clear
    this.clearing.setAttribute("aria-label", words.clearAll)
    this.clearing.title = words.clearAll
    this.element.append(strip.element, this.grid, this.clearing)
    this.at = 0 // the cell that takes the focus
    this.computed = []
    strip.onDraw = (computed) => this.show(computed)
    this.clearing.addEventListener("click", () => this.write(""))
    this.grid.addEventListener("click", ({ target }) => this.toggle([...this.row.children].indexOf(target)))
    this.grid.addEventListener("keydown", (event) => this.key(event))
    this.grid.addEventListener("focusin", ({ target }) => this.reach([...this.row.children].indexOf(target)))
    // A press here is no drag of the node; ComfyUI takes the pointer's own events for that.
    for (const event of ["pointerdown", "mousedown"]) {
      for (const part of [this.grid, this.clearing]) part.addEventListener(event, (press) => press.stopPropagation())
    }
  }

  /** Cells for `computed`, truth values; none where the strip's cells are not the run's steps. */
  show(computed) {
    const forced = forcedSteps(this.read())
    const isShown = computed !== null && this.read() !== undefined && forced !== null
    this.grid.hidden = !isShown
    this.clearing.hidden = !this.read()
    if (!isShown) return
    this.computed = computed
    while (this.row.children.length > computed.length) this.row.lastChild.remove()
    while (this.row.children.length < computed.length) this.row.append(this.cell())
    this.reach(Math.min(this.at, computed.length - 1))
    computed.forEach((runs, step) => this.tell(this.row.children[step], this.words.cell(step, runs, forced.get(step))))
  }

  cell() {
    const cell = document.createElement("span")
    cell.setAttribute("role", "gridcell")
    cell.tabIndex = -1
    return cell
  }

  tell(cell, text) {
    if (cell.title === text) return
    cell.title = text
    cell.setAttribute("aria-label", text)
  }

  /** Let the cell of `step` be the one that Tab comes to. */
  reach(step) {
    if (step < 0) return
    this.row.children[this.at]?.setAttribute("tabindex", -1)
    this.at = step
    this.row.children[step]?.setAttribute("tabindex", 0)
  }

  toggle(step) {
    const forced = forcedSteps(this.read())
    if (step < 0 || forced === null) return
    const next = forcedText(toggled(forced, step, this.computed[step]))
    if (next !== forcedText(forced)) this.write(next)
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return
    const move = MOVES[event.key]
    if (move !== undefined) this.row.children[Math.min(Math.max(this.at + move, 0), this.computed.length - 1)].focus()
    else if (event.key === " " || event.key === "Enter") this.toggle(this.at)
    else if (event.key === "Delete" || event.key === "Backspace") this.write("")
    else return
    event.preventDefault()
    event.stopPropagation() // ComfyUI's own keys move, bypass and delete nodes
  }
}
