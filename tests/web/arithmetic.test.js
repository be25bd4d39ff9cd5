import { readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import {
  ANCHOR_NOT_BELOW, BY_ERROR, BY_HAND, BY_SPEEDUP, budgetForSpeedup, chosenBudget, expectedError, judged, NOT_CALIBRATED, scheduleAt,
  smallestBudget,
} from "../../web/js/otcache/schedule.mjs"
import { geodesic, interp, quantileFunction, roundToSteps } from "../../web/js/otcache/transport.mjs"

const vectors = JSON.parse(readFileSync(new URL("./vectors.json", import.meta.url)))

describe("the same as Python", () => {
  const numbered = vectors.map((vector, i) => [i, vector])

  it.each(numbered)("steps, case %i", (_, { data, steps }) => {
    const found = Object.fromEntries(Object.keys(steps).map((b) => [b, scheduleAt(data, Number(b)).steps]))
    expect(found).toEqual(steps)
  })

  it.each(numbered.filter(([, { errors }]) => errors))("errors and budgets by error, case %i", (_, { data, errors, by_error }) => {
    for (const [budget, error] of Object.entries(errors)) {
      const found = expectedError(data.curve, Number(budget))
      error === null ? expect(found).toBe(null) : expect(found).toBeCloseTo(error, 12)
    }
    const total = data.sigmas.length - 1
    expect(by_error.map(([target]) => [target, smallestBudget(data.curve, total, target)])).toEqual(by_error)
  })

  it.each(numbered)("budgets by speed-up, case %i", (_, { data, by_speedup }) => {
    expect(by_speedup.map(([target]) => [target, budgetForSpeedup(data.sigmas.length - 1, target)])).toEqual(by_speedup)
  })

  it("covers prepared schedules, the geodesic on both sides, and the full run", () => {
    const sources = new Set()
    for (const { data, steps } of vectors) {
      for (const budget of Object.keys(steps).map(Number)) {
        const { source } = scheduleAt(data, budget)
        sources.add(source === "geodesic" ? `${source} ${budget < data.anchor.length}` : source)
      }
    }
    expect([...sources].sort()).toEqual(["anchor", "full", "geodesic false", "geodesic true", "prepared", "reference"])
  })
})

const even = (n) => Array.from({ length: n + 1 }, (_, i) => 1 - i / n)
const data = { sigmas: even(10), anchor: [0, 5], reference: [0, 2, 4, 7], prepared: {}, curve: [] }

describe("scheduleAt", () => {
  it("says when the anchor is no smaller than the reference, but still shows both", () => {
    const equal = { ...data, anchor: [0, 1, 2, 3] }
    expect(scheduleAt(equal, 3)).toEqual({ problem: ANCHOR_NOT_BELOW })
    expect(scheduleAt(equal, 4).steps).toEqual([0, 1, 2, 3])
  })

  it("prefers what was judged", () => {
    const both = { ...data, prepared: { 4: { steps: [0, 1, 3, 6], score: 0.1 } } }
    expect(scheduleAt(both, 4)).toEqual({ steps: [0, 1, 3, 6], source: "prepared" })
  })
})

describe("transport", () => {
  it("interpolates like numpy.interp", () => {
    expect([-1, 0, 0.25, 0.5, 2].map((x) => interp(x, [0, 0.5, 1], [0, 2, 3]))).toEqual([0, 0, 1, 2, 3])
  })

  it("stays monotone beyond the ends of the geodesic", () => {
    const [a, b] = [quantileFunction([0, 1, 2], even(10)), quantileFunction([0, 8, 9], even(10))]
    for (const lambda of [-3, 0.5, 4]) {
      const { t } = geodesic(a, b, lambda)
      expect(t).toEqual([...t].sort((x, y) => x - y))
      expect(Math.min(...t) >= 0 && Math.max(...t) <= 1).toBe(true)
    }
  })

  it("gives distinct steps even for equal times", () => {
    expect(roundToSteps([0, 0, 0], even(5))).toEqual([0, 1, 2])
    expect(roundToSteps([0, 1, 1], even(5))).toEqual([0, 3, 4])
  })
})

describe("chosenBudget", () => {
  const ask = (asked, more) => chosenBudget({ ...data, ...more }, asked)
  const curve = [[3, 0.04], [5, 0.02], [6, 0.02]]

  it("is the slider's by hand, at most the number of steps, as whole as the server reads it", () => {
    const budgets = [4, 10, 60, 7.9].map((budget) => ask({ choose: BY_HAND, budget }).budget)
    expect(budgets).toEqual([4, 10, 10, 7])
  })

  it("says when no budget is known to keep the error, and runs every step", () => {
    const byError = (target_error) => ask({ choose: BY_ERROR, target_error, budget: 1 }, { curve })
    expect([0.5, 0.04, 0.03, 0.02].map((target) => byError(target))).toEqual(
      [3, 3, 4, 5].map((budget) => ({ budget, missed: false })),
    )
    expect(byError(0.019)).toEqual({ budget: 10, missed: true })
  })

  it("cannot choose by error what nobody measured", () => {
    expect(ask({ choose: BY_ERROR, target_error: 0.1 })).toEqual({ problem: NOT_CALIBRATED })
  })

  it("says when no budget is so fast", () => {
    const bySpeedup = (target_speedup) => ask({ choose: BY_SPEEDUP, target_speedup })
    expect([1, 2.5, 3, 10].map((target) => bySpeedup(target).budget)).toEqual([10, 4, 3, 1])
    expect([10, 10.5].map((target) => bySpeedup(target).missed)).toEqual([false, true])
  })
})

describe("expectedError", () => {
  const points = [[8, 0.04], [10, 0.02], [15, 0.01]]

  it("is the measured one where there is one, and lies between neighbours elsewhere", () => {
    expect(expectedError(points, 10)).toBe(0.02)
    expect(expectedError(points, 9)).toBeGreaterThan(0.02)
    expect(expectedError(points, 9)).toBeLessThan(0.04)
  })

  it("claims nothing outside of what was measured", () => {
    expect([7, 16, 50].map((b) => expectedError(points, b))).toEqual([null, null, null])
    expect(expectedError([], 10)).toBe(null)
  })

  it("leaves out schedules without a score", () => {
    const prepared = { 15: { steps: [], score: 0.01 }, 8: { steps: [], score: 0.04 }, 9: { steps: [], score: null } }
    expect(judged({ prepared })).toEqual([[8, 0.04], [15, 0.01]])
  })
})
