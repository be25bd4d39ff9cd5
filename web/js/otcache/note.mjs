// A few lines of text on a node: what was saved, what was measured.
import { noteText } from "./words.mjs"

const LINE = 16
const PADDING = 7

/** What a node says after a run. hint: what it says before. lines: how many there is room for. */
export class Note {
  constructor(kind, words, hint, lines) {
    this.kind = kind
    this.words = words
    this.data = null
    this.height = lines * LINE + PADDING
    this.element = document.createElement("div")
    this.element.className = "otcache-strip otcache-note"
    this.element.tabIndex = 0 // long ones are scrolled, by keys too
    this.element.setAttribute("role", "status")
    this.element.style.minHeight = this.element.style.maxHeight = `${this.height}px`
    this.element.textContent = hint
  }

  /** Take what a node sent; earlier: as in a Strip. */
  take(data, earlier = "") {
    this.data = data
    this.element.textContent = [earlier && this.words.earlier(earlier), noteText(this.words, data, Boolean(earlier))].filter(Boolean).join("\n")
    this.element.classList.toggle("earlier", Boolean(earlier))
  }
}
