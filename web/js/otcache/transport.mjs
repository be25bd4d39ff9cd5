// The arithmetic of otcache_core/schedules/transport.py, step for step: a change there needs one here (tests/web/vectors.json tells).
// Ties between two steps are decided by the last bit, so operations keep NumPy's order.

/** Normalised trajectory time [N + 1]: 0 at the first sigma, 1 at the last, linear in sigma. */
export function trajectoryTime(sigmas) {
  const first = sigmas[0]
  const range = first - sigmas[sigmas.length - 1]
  return sigmas.map((sigma) => (first - sigma) / range)
}

/** numpy.interp at one point: piecewise linear through rising `xs`, constant outside. */
export function interp(x, xs, ys) {
  const last = xs.length - 1
  if (x < xs[0]) return ys[0]
  if (x >= xs[last]) return ys[last]
  let low = 0
  let high = last
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (xs[middle] <= x) low = middle
    else high = middle
  }
  if (xs[low] === x) return ys[low]
  return ((ys[low + 1] - ys[low]) / (xs[low + 1] - xs[low])) * (x - xs[low]) + ys[low]
}

/** The quantile function of a schedule: knots (k / B, time of compute step k) and (1, 1). */
export function quantileFunction(steps, sigmas) {
  const time = trajectoryTime(sigmas)
  const u = Array.from({ length: steps.length + 1 }, (_, k) => k / steps.length)
  return { u, t: [...steps.map((step) => time[step]), 1] }
}

/** The point at fraction `lambda` of the Wasserstein geodesic between two quantile functions; monotone outside [0, 1] too. */
export function geodesic(start, end, lambda) {
  const u = [...new Set([...start.u, ...end.u])].sort((a, b) => a - b)
  let highest = -Infinity
  const t = u.map((at) => {
    highest = Math.max(highest, (1 - lambda) * interp(at, start.u, start.t) + lambda * interp(at, end.u, end.t))
    return Math.min(Math.max(highest, 0), 1)
  })
  return { u, t }
}

const square = (x) => x * x

/** The distinct steps nearest to `times` in least squares, the first is 0; by dynamic programming in O(B N). */
export function roundToSteps(times, sigmas) {
  const grid = trajectoryTime(sigmas).slice(0, -1)
  let cost = grid.map((_, i) => (i ? Infinity : 0))
  const choices = []
  for (const time of times.slice(1)) {
    const next = [Infinity]
    const choice = [0]
    let best = Infinity
    let latest = 0 // the latest step that attains the minimum so far
    for (let i = 1; i < grid.length; i++) {
      if (cost[i - 1] <= best) [best, latest] = [cost[i - 1], i - 1]
      next.push(best + square(grid[i] - time))
      choice.push(latest)
    }
    cost = next
    choices.push(choice)
  }
  const steps = [cost.indexOf(cost.reduce((a, b) => Math.min(a, b)))]
  for (const choice of choices.reverse()) steps.unshift(choice[steps[0]])
  return steps
}

/** Position of `budget` between the anchor's budget (0) and the reference's (1), linear in its logarithm. */
export function budgetToLambda(budget, anchor, reference) {
  return (Math.log(budget) - Math.log(anchor)) / (Math.log(reference) - Math.log(anchor))
}

/** The compute steps that the geodesic from anchor to reference has at `budget`. */
export function interpolate(anchor, reference, sigmas, budget) {
  const lambda = Math.min(budgetToLambda(budget, anchor.length, reference.length), 1)
  const warp = geodesic(quantileFunction(anchor, sigmas), quantileFunction(reference, sigmas), lambda)
  const times = Array.from({ length: budget }, (_, k) => interp(k / budget, warp.u, warp.t))
  return roundToSteps(times, sigmas)
}
