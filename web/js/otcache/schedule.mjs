// What a budget means: which steps run the model, and how large an error the calibration found there.
// The arithmetic of otcache_core/schedules/interpolation.py (tests/web/vectors.json tells whether it still is).
import { interp, interpolate } from "./transport.mjs"

/** How OT Budget Interpolate can choose: the values of its widget `choose`. */
export const BY_HAND = "by hand"
export const BY_ERROR = "by error"
export const BY_SPEEDUP = "by speed-up"
export const BY_BUDGET = "by budget" // of OT Auto Cache

/** One of these says why there is no schedule. */
export const ANCHOR_NOT_BELOW = "anchor not below"
export const NOT_CALIBRATED = "not calibrated"

/**
 * `schedule_at` at a budget of 1 to N. data: what OT Budget Interpolate sends: sigmas, anchor, reference, and prepared as
 * {budget: {steps, score}}. Returns {steps, source} or {problem}.
 */
export function scheduleAt(data, budget) {
  const { sigmas, anchor, reference, prepared } = data
  const total = sigmas.length - 1
  if (prepared[budget]) return { steps: prepared[budget].steps, source: "prepared" }
  if (budget === anchor.length) return { steps: anchor, source: "anchor" }
  if (budget === reference.length) return { steps: reference, source: "reference" }
  if (budget === total) return { steps: Array.from({ length: total }, (_, i) => i), source: "full" }
  if (anchor.length >= reference.length) return { problem: ANCHOR_NOT_BELOW }
  return { steps: interpolate(anchor, reference, sigmas, budget), source: "geodesic" }
}

/**
 * The budget that the widgets ask for: {budget, missed}, or {problem}. asked: {budget, choose, target_error, target_speedup}.
 * missed: whether no budget is known to meet the target.
 */
export function chosenBudget(data, asked) {
  const total = data.sigmas.length - 1
  if (asked.choose === BY_ERROR) {
    if (!data.curve.length) return { problem: NOT_CALIBRATED }
    const budget = smallestBudget(data.curve, total, asked.target_error)
    const error = expectedError(data.curve, budget)
    return { budget, missed: error === null || error > asked.target_error }
  }
  if (asked.choose === BY_SPEEDUP) {
    const budget = budgetForSpeedup(total, asked.target_speedup)
    return { budget, missed: total / budget < asked.target_speedup }
  }
  return { budget: Math.min(Math.trunc(asked.budget), total), missed: false } // as the server reads an INT
}

/** The judged budgets as rising [[budget, score], ...]. */
export function judged(data) {
  return Object.entries(data.prepared)
    .filter(([, entry]) => entry.score !== null)
    .map(([budget, entry]) => [Number(budget), entry.score])
    .sort((a, b) => a[0] - b[0])
}

/** What a curve of rising [[budget, error], ...] says at `budget`; between its points on the line in logarithms, else null. */
export function expectedError(curve, budget) {
  const known = curve.find(([at]) => at === budget)
  if (known) return known[1]
  if (!curve.length || budget < curve[0][0] || budget > curve.at(-1)[0]) return null
  const [budgets, errors] = [0, 1].map((part) => curve.map((point) => Math.log(point[part])))
  return Math.exp(interp(Math.log(budget), budgets, errors))
}

/** The PSNR in dB to expect at a budget: measured, or on the line in log(budget) between those; null where none is known. */
export function expectedPsnr(data, budget) {
  const known = Object.entries(data.prepared)
    .map(([at, entry]) => [Number(at), entry.psnr ?? null])
    .filter(([, psnr]) => psnr !== null)
    .sort((a, b) => a[0] - b[0])
  if (!known.length || budget < known[0][0] || budget > known.at(-1)[0]) return null
  return interp(Math.log(budget), known.map(([at]) => Math.log(at)), known.map(([, psnr]) => psnr))
}

/** The smallest budget on a curve of at least one point whose expected error is at most `target`; `total` if none is. */
export function smallestBudget(curve, total, target) {
  const last = curve.at(-1)[0]
  let budget = curve[0][0]
  while (budget <= last && !(expectedError(curve, budget) <= target)) budget++
  return budget <= last ? budget : total
}

/** The largest budget with total / budget >= `target`; 1 when there is none. */
export function budgetForSpeedup(total, target) {
  let budget = total
  while (budget > 1 && !(total / budget >= target)) budget--
  return budget
}
