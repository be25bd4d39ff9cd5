// The element of a strip: built once, afterwards only attributes and texts change, and only those that differ.
import * as layout from "./layout.mjs"
import { forcedSteps, ruledSteps } from "./rules.mjs"
import { BY_ERROR, chosenBudget, expectedError, expectedPsnr, judged, scheduleAt } from "./schedule.mjs"
import { budgetFoot, budgetLabel, runLabels, scheduleFoot } from "./words.mjs"

const SVG = "http://www.w3.org/2000/svg"
const PATHS = ["curve", "dots", "bars", "skip", "run", "now", "axis", "target", "marker", "line", "points", "ring", "on", "off"]
const CHROME = 54 // the lines of text and the padding
const PLOTS = { budget: layout.BUDGET_HEIGHT, run: layout.RUN_HEIGHT, schedule: layout.SCHEDULE_HEIGHT }
const MORE = { schedule: 48, run: 28 } // further lines of text
const KEYS = { run: "M0 0h8v10h-8z", skip: "M.5 2.5h7v5h-7z", bars: "M0 7h2v3h-2zM3 2h2v8h-2zM6 5h2v5h-2z" } // class: shape

/** Height of a strip's element in CSS pixels. kind: "budget", "run" or "schedule"; isEditable: whether its steps can be forced by
 * hand. */
export function heightOf(kind, isEditable) {
  return CHROME + plotHeight(kind, isEditable) + (MORE[kind] ?? 0)
}

function plotHeight(kind, isEditable) {
  return PLOTS[kind] + (kind !== "budget" && isEditable ? layout.MARKS_HEIGHT : 0)
}

/**
 * One strip. kind: "budget" (a slider), "run" (a picture of what ran) or "schedule" (of what was loaded). words: of words.mjs.
 * ask() says what the widgets ask for (see `chosenBudget` and `ruledSteps`) and is called whenever it is drawn; setBudget(value)
 * is called for keys. `data` is what the node sent, or null. onDraw, where it is set, is called with a truth value for each step,
 * or with null where cells are no steps.
 */
export class Strip {
  constructor(kind, words, ask, setBudget, isEditable = false) {
    this.kind = kind
    this.words = words
    this.ask = ask
    this.data = null
    this.budget = null // as chosen by what is asked
    this.now = -1
    this.width = 0 // of the plot; kept, for asking would make the browser lay out the page
    this.still = null // what stays while the budget moves
    this.element = document.createElement("div")
    this.element.className = `otcache-strip ${kind} empty`
    this.element.tabIndex = 0
    this.element.style.minHeight = this.element.style.maxHeight = `${heightOf(kind, isEditable)}px`
    this.onDraw = null
    this.element.setAttribute("role", kind === "budget" ? "slider" : "img")
    if (kind === "budget") this.element.setAttribute("aria-valuemin", 1)
    this.element.innerHTML =
      '<div class="hint"></div><div class="label"></div><div class="key"></div><div class="foot"></div>'
    const part = (name) => this.element.querySelector(`.${name}`)
    this.label = part("label")
    this.foot = part("foot")
    for (const line of [this.label, this.foot]) line.append("")
    this.hint = part("hint")
    this.first = { budget: words.first, run: words.firstReport, schedule: words.firstSchedule }[kind] // said before there are data
    this.hint.textContent = this.first
    for (const [name, shape] of Object.entries(KEYS)) {
      if (name === "bars" && kind !== "run") continue
      part("key").insertAdjacentHTML("beforeend", `<svg viewBox="0 0 9 10"><path class="${name}" d="${shape}"/></svg>`)
      part("key").append(words.legend[name])
    }
    this.when = part("key").appendChild(document.createElement("span"))
    this.when.className = "when"
    this.plot = document.createElementNS(SVG, "svg")
    this.plot.setAttribute("class", "plot")
    this.plot.setAttribute("height", plotHeight(kind, isEditable))
    this.paths = Object.fromEntries(PATHS.map((name) => [name, this.path(name)]))
    this.shapes = {} // as drawn
    this.labels = [] // the ticks' elements
    this.element.insertBefore(this.plot, this.foot)
    this.describe(this.first)
    this.plot.addEventListener("pointermove", ({ offsetX }) => this.point(offsetX))
    if (kind === "budget") this.element.addEventListener("keydown", (event) => this.key(event, setBudget))
    new ResizeObserver(([{ contentRect }]) => this.resize(contentRect.width)).observe(this.element)
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

  /** Take what a node sent, and draw it; in grey with the time `earlier`, where that is set: when it was sent. */
  take(data, earlier = "") {
    this.data = data?.problem ? null : data
    this.still = null
    this.when.textContent = earlier && this.words.earlier(earlier)
    this.element.classList.toggle("earlier", Boolean(earlier))
    this.hint.textContent = data?.problem ? this.words.said(data.problem) : this.first
    this.element.classList.toggle("empty", !this.data)
    this.show(-1)
  }

  /** Say which step lies at x. */
  point(x) {
    const { computed, steps = computed?.length } = this.data ?? {}
    const step = computed?.length === steps ? layout.cellAt(x, this.cells, this.width) : -1 // samplers of several evaluations a step
    this.plot.parentElement.title = step < 0 ? "" : this.words.cell(step, computed[step])
  }

  resize(width) {
    this.width = width
    this.still = null
    this.show()
  }

  /** Draw what is asked for now, with cell `now` framed. */
  show(now = this.now) {
    this.now = now
    if (!this.data || this.width < 40) return
    if (this.data.kind === "budget") this.showBudget()
    else if (this.data.kind === "schedule") this.showSchedule()
    else this.showRun()
  }

  showBudget() {
    const { data, words, width, cells } = this
    const asked = this.ask()
    const chosen = chosenBudget(data, asked)
    const { steps: own, source, problem } = chosen.problem ? chosen : scheduleAt(data, chosen.budget)
    const forced = forcedSteps(asked.forced)
    const { sigma, points, plot } = this.background(asked.choose === BY_ERROR ? asked.target_error : null)
    this.budget = chosen.budget ?? asked.budget
    this.element.setAttribute("aria-valuemax", cells)
    this.element.setAttribute("aria-valuenow", this.budget)
    if (problem || !forced) {
      this.draw({ ...layout.cells(new Array(cells).fill(false), width), curve: sigma.curve })
      this.write(...(problem ? words[problem](cells) : words.notForced))
      this.onDraw?.(null)
      return
    }
    const steps = ruledSteps(own, cells, asked, forced)
    const isRuled = steps.join() !== own.join()
    const computed = new Array(cells).fill(false)
    for (const step of steps) computed[step] = true
    const isMeasured = !isRuled && points.some(([at]) => at === this.budget)
    const error = isRuled ? null : isMeasured ? data.prepared[this.budget].score : expectedError(data.curve, this.budget)
    this.draw({
      ...layout.cells(computed, width),
      curve: sigma.curve,
      dots: sigma.dots(steps),
      now: layout.cellFrame(this.now, cells, width),
      ...plot,
      ...plot?.at(this.budget, error),
      ...layout.marks(forced, cells, width),
    })
    const leftOut = [...forced.keys()].filter((step) => step >= cells).map((step) => step + 1)
    const foot = leftOut.length ? words.leftOut(leftOut.join(words.and), cells) : budgetFoot(words, {
      asked, missed: chosen.missed, total: cells, error, isMeasured, isFull: source === "full" && !isRuled, metric: data.metric,
      psnr: expectedPsnr(data, this.budget), calibrated: points.length > 0, warning: data.warning, ruledFrom: isRuled ? this.budget : null,
    })
    const list = steps.map((step) => step + 1).join(words.and)
    this.write(budgetLabel(words, steps.length, cells, asked.choose), foot, words.steps(list))
    this.onDraw?.(computed)
  }

  /** What stays while the budget moves: the sigma curve, the judged points and the error plot. */
  background(target) {
    if (this.still?.target !== target) {
      const { data, width, cells } = this
      const points = judged(data)
      const plot = points.length ? layout.errorPlot(points, data.curve, cells, target, width) : undefined
      this.still = { target, points, plot, sigma: layout.sigmaCurve(data.sigmas, width) }
    }
    return this.still
  }

  showSchedule() {
    const { data, words, width, cells } = this
    const { curve, dots } = layout.sigmaCurve(data.sigmas, width)
    const steps = data.computed.flatMap((runs, i) => (runs ? [i] : []))
    this.draw({ ...layout.cells(data.computed, width), curve, dots: dots(steps) })
    this.write(budgetLabel(words, steps.length, cells), scheduleFoot(words, data))
  }

  showRun() {
    const { head, foot } = runLabels(this.words, this.data)
    const { computed, steps } = this.data
    const text = this.ask?.().forced ?? ""
    const forced = forcedSteps(text)
    const isBySteps = computed.length === steps
    this.draw({
      ...(isBySteps && forced ? layout.marks(forced, steps, this.width, layout.RUN_CELLS) : {}),
      ...layout.cells(this.data.computed, this.width, layout.RUN_CELLS),
      bars: layout.timeBars(this.data.seconds, this.width),
      now: layout.cellFrame(this.now, this.cells, this.width, layout.RUN_CELLS),
    })
    const note = forced ? text && this.words.forcedNext(text) : this.words.notForced.join(this.words.and)
    this.write(head, [note, foot].filter(Boolean).join("\n"))
    this.onDraw?.(isBySteps ? computed.map(Boolean) : null)
  }

  draw(shapes) {
    for (const name of PATHS) {
      const shape = shapes[name] ?? ""
      if (shape !== (this.shapes[name] ?? "")) this.paths[name].setAttribute("d", shape)
    }
    if (shapes.ticks !== this.shapes.ticks) this.drawTicks(shapes.ticks ?? [])
    this.shapes = shapes
  }

  drawTicks(ticks) {
    while (this.labels.length < ticks.length) {
      this.labels.push(this.plot.appendChild(document.createElementNS(SVG, "text")))
    }
    this.labels.forEach((label, i) => {
      label.textContent = ticks[i]?.text ?? ""
      if (!ticks[i]) return
      label.setAttribute("x", ticks[i].x)
      label.setAttribute("y", ticks[i].y)
      label.setAttribute("text-anchor", ticks[i].anchor)
    })
  }

  write(label, foot, more = "") {
    for (const [part, text] of [[this.label, label], [this.foot, foot]]) {
      if (part.title === text) continue
      part.firstChild.data = text // a new text node would make the browser match the page's rules about children again
      part.title = text // where the node is too narrow for it
    }
    this.describe([label, ...foot.split("\n"), more].filter(Boolean).join(". "))
  }

  describe(text) {
    this.element.setAttribute("aria-label", `OTCache ${this.words.names[this.kind]}. ${text}`)
    if (this.kind === "budget") this.element.setAttribute("aria-valuetext", text)
  }

  key(event, setBudget) {
    if (!this.data) return // how far the budget goes is not known yet
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 5, PageDown: -5, Home: -Infinity, End: Infinity }
    const step = steps[event.key]
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return
    event.preventDefault()
    event.stopPropagation() // ComfyUI's own arrow keys move nodes
    setBudget(Math.min(Math.max((this.budget ?? this.ask().budget) + step, 1), this.cells))
  }
}
