import { readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { ANCHOR_NOT_BELOW, expectedError, judged, scheduleAt, TOO_MANY } from "../../web/js/otcache/schedule.mjs"
import { geodesic, interp, quantileFunction, roundToSteps } from "../../web/js/otcache/transport.mjs"

const vectors = JSON.parse(readFileSync(new URL("./vectors.json", import.meta.url)))

describe("the same steps as Python", () => {
  it.each(vectors.map((vector, i) => [i, vector]))("case %i", (_, { data, expected }) => {
    const found = Object.fromEntries(Object.keys(expected).map((b) => [b, scheduleAt(data, Number(b)).steps]))
    expect(found).toEqual(expected)
  })

  it("covers prepared schedules, the geodesic on both sides, and the full run", () => {
    const sources = new Set()
    for (const { data, expected } of vectors) {
      for (const budget of Object.keys(expected).map(Number)) {
        const { source } = scheduleAt(data, budget)
        sources.add(source === "geodesic" ? `${source} ${budget < data.anchor.length}` : source)
      }
    }
    expect([...sources].sort()).toEqual(["anchor", "full", "geodesic false", "geodesic true", "prepared", "reference"])
  })
})

const even = (n) => Array.from({ length: n + 1 }, (_, i) => 1 - i / n)
const data = { sigmas: even(10), anchor: [0, 5], reference: [0, 2, 4, 7], prepared: {} }

describe("scheduleAt", () => {
  it.each([0, 11, 2.5, NaN])("has no schedule at budget %s of 10", (budget) => {
    expect(scheduleAt(data, budget)).toEqual({ problem: TOO_MANY })
  })

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
