// The element of a strip: built once, afterwards only attributes and texts change.
import * as layout from "./layout.mjs"
import { expectedError, judged, scheduleAt } from "./schedule.mjs"
import { budgetLabel, errorLabel, runLabels } from "./words.mjs"

const SVG = "http://www.w3.org/2000/svg"
const PATHS = ["curve", "dots", "bars", "skip", "run", "now", "axis", "marker", "line", "points", "ring"]
const CHROME = 54 // the lines of text and the padding
const KEY = '<svg viewBox="0 0 9 10"><path class="run" d="M0 0h8v10h-8z"/></svg>'
const KEY_SKIP = '<svg class="second" viewBox="0 0 9 10"><path class="skip" d="M.5 2.5h7v5h-7z"/></svg>'

/** Height of a strip's element in CSS pixels. kind: "budget" or "run". */
export function heightOf(kind) {
  return CHROME + (kind === "budget" ? layout.BUDGET_HEIGHT : layout.RUN_HEIGHT)
}

/**
 * One strip. kind: "budget" (a slider: `setBudget(value)` is called for keys) or "run" (a picture of what ran).
 * words: of words.mjs. `data` is what the node sent, or null; `show` draws it.
 */
export class Strip {
  constructor(kind, words, setBudget) {
    this.kind = kind
    this.words = words
    this.data = null
    this.budget = null
    this.now = -1
    this.points = []
    this.element = document.createElement("div")
    this.element.className = "otcache-strip empty"
    this.element.tabIndex = 0
    this.element.style.minHeight = this.element.style.maxHeight = `${heightOf(kind)}px`
    this.element.setAttribute("role", kind === "budget" ? "slider" : "img")
    this.element.innerHTML =
      '<div class="hint"></div><div class="label"></div><div class="key"></div><div class="foot"></div>'
    const part = (name) => this.element.querySelector(`.${name}`)
    this.label = part("label")
    this.foot = part("foot")
    part("hint").textContent = kind === "budget" ? words.first : words.firstReport
    const [runs, predicted] = words.legend
    part("key").innerHTML = KEY
    part("key").append(runs)
    part("key").insertAdjacentHTML("beforeend", KEY_SKIP)
    part("key").append(predicted)
    this.plot = document.createElementNS(SVG, "svg")
    this.plot.setAttribute("class", "plot")
    this.plot.setAttribute("height", kind === "budget" ? layout.BUDGET_HEIGHT : layout.RUN_HEIGHT)
    this.paths = Object.fromEntries(PATHS.map((name) => [name, this.path(name)]))
    this.shapes = {} // as drawn
    this.ticks = []
    this.element.insertBefore(this.plot, this.foot)
    this.describe(kind === "budget" ? words.first : words.firstReport)
    if (setBudget) this.element.addEventListener("keydown", (event) => this.key(event, setBudget))
    new ResizeObserver(() => this.show()).observe(this.element)
  }

  path(name) {
    const path = document.createElementNS(SVG, "path")
    path.setAttribute("class", name)
    this.plot.append(path)
    return path
  }

  /** How many cells there are. */
  get cells() {
    return this.data?.kind === "budget" ? this.data.sigmas.length - 1 : (this.data?.computed.length ?? 0)
  }

  /** Take what a node sent. */
  take(data) {
    this.data = data
    this.now = -1
    this.points = data?.kind === "budget" ? judged(data) : []
    this.show()
  }

  /** Draw at `budget`; anything that is left out stays as it was. */
  show(budget = this.budget, now = this.now) {
    this.budget = budget
    this.now = now
    const width = this.element.clientWidth - 8
    this.element.classList.toggle("empty", !this.data)
    if (!this.data || width < 40) return
    if (this.data.kind === "budget") this.showBudget(width)
    else this.showRun(width)
  }

  showBudget(width) {
    const { data, budget, words, points } = this
    const total = data.sigmas.length - 1
    const { steps, source, problem } = scheduleAt(data, budget)
    this.element.setAttribute("aria-valuemin", 1)
    this.element.setAttribute("aria-valuemax", total)
    this.element.setAttribute("aria-valuenow", budget)
    if (problem) {
      this.draw({ ...layout.cells(new Array(total).fill(false), width), ...layout.sigmaCurve(data.sigmas, [], width) })
      this.write(words[problem](budget, total), "")
      return
    }
    const computed = new Array(total).fill(false)
    for (const step of steps) computed[step] = true
    const error = expectedError(points, budget)
    const isMeasured = source !== "full" && points.some(([at]) => at === budget)
    const plot = points.length ? layout.errorPlot(points, total, budget, error, width) : {}
    this.draw({
      ...layout.cells(computed, width),
      ...layout.sigmaCurve(data.sigmas, steps, width),
      now: layout.cellFrame(this.now, total, width),
      ...plot,
    })
    const foot = errorLabel(words, {
      error, isMeasured, isFull: source === "full", metric: data.metric, calibrated: points.length > 0,
    })
    this.write(budgetLabel(words, budget, total), foot, words.steps(steps.map((step) => step + 1).join(", ")))
  }

  showRun(width) {
    const { head, foot } = runLabels(this.words, this.data)
    this.draw({
      ...layout.cells(this.data.computed, width),
      bars: layout.timeBars(this.data.seconds, width),
      now: layout.cellFrame(this.now, this.data.computed.length, width),
    })
    this.write(head, foot)
  }

  draw(shapes) {
    for (const name of PATHS) {
      const shape = shapes[name] ?? ""
      if (shape !== this.shapes[name]) this.paths[name].setAttribute("d", shape)
      this.shapes[name] = shape
    }
    const ticks = shapes.ticks ?? []
    while (this.ticks.length < ticks.length) {
      this.ticks.push(this.plot.appendChild(document.createElementNS(SVG, "text")))
    }
    this.ticks.forEach((text, i) => {
      text.textContent = ticks[i]?.text ?? ""
      if (!ticks[i]) return
      text.setAttribute("x", ticks[i].x)
      text.setAttribute("y", ticks[i].y)
      text.setAttribute("text-anchor", ticks[i].anchor)
    })
  }

  write(label, foot, more = "") {
    this.label.textContent = label
    this.foot.textContent = foot
    this.label.title = label // where the node is too narrow for it
    this.foot.title = foot
    this.describe([label, foot, more].filter(Boolean).join(". "))
  }

  describe(text) {
    this.element.setAttribute("aria-label", `OTCache ${this.kind === "budget" ? this.words.name : this.words.report}. ${text}`)
    if (this.kind === "budget") this.element.setAttribute("aria-valuetext", text)
  }

  key(event, setBudget) {
    const total = this.data ? this.data.sigmas.length - 1 : Infinity
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 5, PageDown: -5, Home: -Infinity, End: Infinity }
    const step = steps[event.key]
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return
    event.preventDefault()
    event.stopPropagation() // ComfyUI's own arrow keys move nodes
    setBudget(Math.min(Math.max(this.budget + step, 1), total))
  }
}
