// Where everything is drawn, in CSS pixels: numbers in, SVG path strings out. Nothing here touches the page.

export const BUDGET_HEIGHT = 124
export const SCHEDULE_HEIGHT = 54
export const RUN_HEIGHT = 40
export const RUN_CELLS = 22 // their top in the strip of a run, which has more lines of text and lower bars
export const MARKS_HEIGHT = 8 // below the cells of a strip of that height that can be edited
const SIDE = 4
const CURVE = { top: 2, height: 30 }
const CELLS = { top: 36, height: 16 }
const ERROR = { top: 64, height: 44, left: 44 }
const TICKS = 121
const TICK_GAP = 20
const PREDICTED = 0.45 // of a computed cell's height: told apart by height and filling, not by colour alone
const DOT = 1.8
const BEYOND = 2 // the error plot reaches so many times below and above what was measured to show a target

const number = (x) => Math.round(x * 100) / 100

/** A line through [[x, y], ...] as a path. */
function line(points) {
  return points.map(([x, y], i) => `${i ? "L" : "M"}${number(x)} ${number(y)}`).join("")
}

/** Discs of radius r at [[x, y], ...] as a path. */
function discs(points, r) {
  return points.map(([x, y]) => `M${number(x - r)} ${number(y)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`).join("")
}

function box(x, y, width, height) {
  return `M${number(x)} ${number(y)}h${number(width)}v${number(height)}h${number(-width)}z`
}

/** Cells of equal width: {run, skip} paths. computed: one truth value a cell. */
export function cells(computed, width, top = CELLS.top, height = CELLS.height) {
  const pitch = (width - 2 * SIDE) / computed.length
  const gap = Math.min(1.5, pitch * 0.25)
  let run = ""
  let skip = ""
  computed.forEach((runs, i) => {
    const x = SIDE + i * pitch + gap / 2
    if (runs) run += box(x, top, pitch - gap, height)
    else if (pitch < 4) skip += box(x, top + height * 0.4, pitch - gap, height * 0.2)
    else skip += box(x + 0.5, top + (height * (1 - PREDICTED)) / 2, pitch - gap - 1, height * PREDICTED)
  })
  return { run, skip }
}

/**
 * Marks below cells that were forced by hand: {on, off} paths, told apart by direction and filling. forced: a Map of step ->
 * whether it is computed. cells: their top.
 */
export function marks(forced, count, width, cells = CELLS.top) {
  const top = cells + CELLS.height + 2
  const pitch = (width - 2 * SIDE) / count
  const half = Math.min(Math.max(pitch * 0.4, 1.5), 3.5)
  const at = { on: "", off: "" }
  for (const [step, runs] of forced) {
    if (step >= count) continue
    const x = SIDE + (step + 0.5) * pitch
    const [tip, base] = runs ? [top, top + 6] : [top + 6, top]
    at[runs ? "on" : "off"] += `${line([[x, tip], [x + half, base], [x - half, base]])}z`
  }
  return at
}

/** The cell at x, or -1. */
export function cellAt(x, count, width) {
  const index = Math.floor((x - SIDE) / ((width - 2 * SIDE) / count))
  return index >= 0 && index < count ? index : -1
}

/** The frame around cell `index`, or "". */
export function cellFrame(index, count, width, top = CELLS.top, height = CELLS.height) {
  if (!(index >= 0 && index < count)) return ""
  const pitch = (width - 2 * SIDE) / count
  return box(SIDE + index * pitch - 1, top - 2, pitch + 2, height + 4)
}

/** The sigma curve over the cells' centres: its path, and dots(steps), the path of those where the model runs. */
export function sigmaCurve(sigmas, width) {
  const total = sigmas.length - 1
  const range = sigmas[0] - sigmas[total]
  const pitch = (width - 2 * SIDE) / total
  const spots = sigmas.map((sigma, i) => [
    SIDE + (i + (i < total ? 0.5 : 1)) * pitch,
    CURVE.top + DOT + (1 - (sigma - sigmas[total]) / range) * (CURVE.height - 2 * DOT),
  ])
  return { curve: line(spots), dots: (steps) => discs(steps.map((step) => spots[step]), DOT) }
}

/** The budgets that the error plot spans: a little more than those judged. */
export function budgetRange(points, total) {
  const low = Math.max(1, Math.floor(points[0][0] * 0.7))
  const high = Math.min(total, Math.ceil(points[points.length - 1][0] * 1.3))
  return [Math.min(low, high - 1), high]
}

/**
 * Error against budget, both logarithmic. points, curve: measured and expected, [[budget, error], ...] rising, at least one.
 * target: an error to draw a line at, or null. Returns paths {axis, line, points, target}, ticks [{x, y, text, anchor}], and
 * at(budget, error or null) -> paths {marker, ring}.
 */
export function errorPlot(points, curve, total, target, width) {
  const [low, high] = budgetRange(points, total)
  const scores = points.map(([, score]) => score)
  const [least, most] = [Math.min(...scores), Math.max(...scores)]
  const aim = target === null ? most : Math.min(Math.max(target, least / BEYOND), most * BEYOND)
  const [floor, ceiling] = [Math.min(least, aim) * 0.85, Math.max(most, aim) * 1.15]
  const { top, height, left } = ERROR
  const [from, to] = [left, width - SIDE - 6]
  const x = (b) => from + ((Math.log(b) - Math.log(low)) / (Math.log(high) - Math.log(low))) * (to - from)
  const y = (e) => top + ((Math.log(ceiling) - Math.log(e)) / (Math.log(ceiling) - Math.log(floor))) * height
  const bottom = top + height
  const ticks = [
    { x: left - 4, y: y(most) + 3, text: short(most), anchor: "end" },
    ...(scores.length > 1 ? [{ x: left - 4, y: y(least) + 3, text: short(least), anchor: "end" }] : []),
  ]
  const last = x(points.at(-1)[0])
  let free = -Infinity
  for (const [b] of points) {
    if (x(b) < free || (x(b) > last - TICK_GAP && x(b) < last)) continue
    ticks.push({ x: x(b), y: TICKS, text: String(b), anchor: "middle" })
    free = x(b) + TICK_GAP
  }
  return {
    axis: line([[left, top], [left, bottom], [to + 6, bottom]]),
    line: line(curve.map(([b, e]) => [x(b), y(e)])),
    points: discs(points.map(([b, e]) => [x(b), y(e)]), DOT),
    target: target === null ? "" : line([[left, y(aim)], [to + 6, y(aim)]]),
    ticks: target === null ? ticks : [...ticks, targetTick(target, y(aim), left, to + 6)],
    at: (budget, error) => {
      const here = x(Math.min(Math.max(budget, low), high))
      const shown = error !== null && budget >= low && budget <= high
      return { marker: line([[here, top - 2], [here, bottom]]), ring: shown ? discs([[here, y(error)]], 4) : "" }
    },
  }
}

/** The number at a target's line, on the side where the falling curve is not. */
function targetTick(target, y, left, right) {
  const text = `\u2264 ${Number(target.toPrecision(3))}`
  const isHigh = y < ERROR.top + ERROR.height / 2
  return { x: isHigh ? right : left + 4, y: y < ERROR.top + 10 ? y + 10 : y - 3, text, anchor: isHigh ? "end" : "start" }
}

/** Time of each evaluation as bars above the cells. */
export function timeBars(seconds, width, top = 2, height = 14) {
  const most = Math.max(...seconds) || 1
  const pitch = (width - 2 * SIDE) / seconds.length
  const gap = Math.min(1.5, pitch * 0.25)
  return seconds
    .map((value, i) => {
      const tall = Math.max((value / most) * height, 0.5)
      return box(SIDE + i * pitch + gap / 2, top + height - tall, pitch - gap, tall)
    })
    .join("")
}

/** Two significant digits without an exponent where that is short. */
export function short(value) {
  return value >= 1e-3 && value < 1e4 ? String(Number(value.toPrecision(2))) : value.toExponential(0)
}
