// What a budget means: which steps run the model, and how large an error the calibration found there.
import { interpolate } from "./transport.mjs"

/** One of these says why there is no schedule at a budget. */
export const TOO_MANY = "too many"
export const ANCHOR_NOT_BELOW = "anchor not below"

/**
 * `schedule_at` of otcache_core/interpolation.py. data: what OT Budget Interpolate sends: sigmas, anchor, reference, and
 * prepared as {budget: {steps, score}}. Returns {steps, source} or {problem}.
 */
export function scheduleAt(data, budget) {
  const { sigmas, anchor, reference, prepared } = data
  const total = sigmas.length - 1
  if (!(Number.isInteger(budget) && budget >= 1 && budget <= total)) return { problem: TOO_MANY }
  if (prepared[budget]) return { steps: prepared[budget].steps, source: "prepared" }
  if (budget === anchor.length) return { steps: anchor, source: "anchor" }
  if (budget === reference.length) return { steps: reference, source: "reference" }
  if (budget === total) return { steps: Array.from({ length: total }, (_, i) => i), source: "full" }
  if (anchor.length >= reference.length) return { problem: ANCHOR_NOT_BELOW }
  return { steps: interpolate(anchor, reference, sigmas, budget), source: "geodesic" }
}

/** The judged budgets as rising [[budget, score], ...]. */
export function judged(data) {
  return Object.entries(data.prepared)
    .filter(([, entry]) => entry.score > 0)
    .map(([budget, entry]) => [Number(budget), entry.score])
    .sort((a, b) => a[0] - b[0])
}

/** Expected error at `budget`: measured, or on the straight line (in logarithms) between measured ones; else null. */
export function expectedError(points, budget) {
  const after = points.findIndex(([at]) => at >= budget)
  if (after < 0) return null
  const [right, high] = points[after]
  if (right === budget) return high
  if (after === 0) return null
  const [left, low] = points[after - 1]
  const share = (Math.log(budget) - Math.log(left)) / (Math.log(right) - Math.log(left))
  return Math.exp((1 - share) * Math.log(low) + share * Math.log(high))
}
