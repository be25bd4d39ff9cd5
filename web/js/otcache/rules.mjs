// What is asked of single steps beyond a budget: the arithmetic of otcache_core/schedules/rules.py on the schedule's own grid.

const SAME = 1e-6
const MOST_FORCED = 1000

/** {step: whether it is computed} from text such as "+3 -7", steps from 0; null for text that is none, as `forced_steps` says. */
export function forcedSteps(text) {
  const found = new Map()
  for (const word of String(text ?? "").split(/[\s,]+/).filter(Boolean)) {
    const step = Number(word.slice(1)) - 1
    if (!/^[+-][1-9][0-9]{0,4}$/.test(word) || found.has(step) || word === "-1") return null
    found.set(step, word[0] === "+")
  }
  return found.size > MOST_FORCED ? null : found
}

/** The text of forced steps, in their order. */
export function forcedText(forced) {
  return [...forced].sort(([a], [b]) => a - b).map(([step, runs]) => `${runs ? "+" : "-"}${step + 1}`).join(" ")
}

/** `forced` with `step` the other way than it is shown, or free again where it was forced; the first step stays computed. */
export function toggled(forced, step, isComputed) {
  const next = new Map(forced)
  if (next.has(step)) next.delete(step)
  else if (step > 0) next.set(step, !isComputed)
  return next
}

/**
 * `steps` of `total` as the rules change them: first the range, then the cap, last what is forced, which moves no other step.
 * asked: {start_percent, end_percent, max_skips}, each may be missing. forced: a Map.
 */
export function ruledSteps(steps, total, asked, forced) {
  const start = (asked.start_percent ?? 0) * total - SAME
  const end = (asked.end_percent ?? 1) * total + SAME
  const chosen = new Set(steps)
  for (let step = 0; step < total; step++) if (step < start || step > end) chosen.add(step)
  const most = Math.trunc(asked.max_skips ?? 0)
  if (most > 0) {
    const rising = [...chosen].sort((a, b) => a - b)
    rising.forEach((from, i) => {
      const length = (rising[i + 1] ?? total) - from
      const parts = Math.floor((length - 1) / (most + 1)) + 1
      for (let part = 1; part < parts; part++) chosen.add(from + Math.floor((length * part) / parts))
    })
  }
  for (const [step, runs] of forced) if (step < total) runs ? chosen.add(step) : chosen.delete(step)
  return [...chosen.add(0)].sort((a, b) => a - b)
}
