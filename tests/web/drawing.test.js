// @vitest-environment jsdom
import { beforeAll, beforeEach, describe, expect, it } from "vitest"
import { allNodes, hostsOf, locatorOf, nodeByPath, widgetFor } from "../../web/js/otcache/graph.mjs"
import { budgetRange, cellAt, cellFrame, cells, errorPlot, short, sigmaCurve, timeBars } from "../../web/js/otcache/layout.mjs"
import { BY_ERROR, BY_HAND, BY_SPEEDUP, expectedPsnr, NOT_CALIBRATED } from "../../web/js/otcache/schedule.mjs"
import { budgetFoot, budgetLabel, factor, runLabels, wordsFor } from "../../web/js/otcache/words.mjs"

const count = (path) => (path.match(/M/g) ?? []).length
const numbers = (path) => path.match(/-?[\d.]+/g).map(Number)
const even = (n) => Array.from({ length: n + 1 }, (_, i) => 1 - i / n)

describe("layout", () => {
  it.each([10, 50, 100, 400])("draws every one of %i cells once, inside the width", (n) => {
    const computed = Array.from({ length: n }, (_, i) => i % 3 === 0)
    const { run, skip } = cells(computed, 300)
    expect(count(run)).toBe(computed.filter(Boolean).length)
    expect(count(run) + count(skip)).toBe(n)
    for (const path of [run, skip]) {
      for (const [, x, , width] of path.matchAll(/M([\d.]+) ([\d.]+)h(-?[\d.]+)/g)) {
        expect(Number(x)).toBeGreaterThanOrEqual(0)
        expect(Number(width)).toBeGreaterThan(0)
        expect(Number(x) + Number(width)).toBeLessThanOrEqual(300)
      }
    }
  })

  it("tells computed and predicted cells apart by height, at every width", () => {
    const heights = (path) => new Set([...path.matchAll(/v([\d.]+)/g)].map(([, v]) => Number(v)))
    for (const width of [120, 300, 900]) {
      const { run, skip } = cells([true, false, true, false], width)
      expect(Math.max(...heights(skip))).toBeLessThan(0.5 * Math.min(...heights(run)))
    }
  })

  it("finds the cell under the pointer", () => {
    expect([0, 4, 33, 150, 295.9, 296.1].map((x) => cellAt(x, 10, 300))).toEqual([-1, 0, 0, 5, 9, -1])
  })

  it("frames a cell that exists, and nothing else", () => {
    expect([-1, 10].map((i) => cellFrame(i, 10, 300))).toEqual(["", ""])
    expect(count(cellFrame(3, 10, 300))).toBe(1)
  })

  it("draws the sigma curve falling, with a dot at every computed step", () => {
    const { curve, dots } = sigmaCurve(even(20), 300)
    const y = numbers(curve).filter((_, i) => i % 2)
    expect(y).toEqual([...y].sort((a, b) => a - b))
    expect(count(dots([0, 4, 9]))).toBe(3)
  })

  const points = [[8, 0.05], [9, 0.04], [10, 0.03], [15, 0.01]]

  const makePlot = (target = null) => errorPlot(points, points, 50, target, 300)

  it("marks the budget on the error curve, at the edge where the curve does not reach", () => {
    expect(budgetRange(points, 50)).toEqual([5, 20])
    const plot = makePlot()
    expect(count(plot.points)).toBe(4)
    expect(count(plot.at(10, 0.03).ring)).toBe(1)
    const beyond = plot.at(45, null)
    expect(beyond.ring).toBe("")
    expect(Math.max(...numbers(beyond.marker))).toBeLessThanOrEqual(300)
  })

  it("labels the first and last judged budget, without overlap", () => {
    const ticks = makePlot().ticks.filter((tick) => tick.anchor === "middle")
    expect(ticks[0].text).toBe("8")
    expect(ticks.at(-1).text).toBe("15")
    ticks.slice(1).forEach((tick, i) => expect(tick.x - ticks[i].x).toBeGreaterThanOrEqual(20))
  })

  it("draws the target between the errors that it separates, and inside the plot wherever it is", () => {
    const height = (target) => numbers(makePlot(target).target)[1]
    const errors = numbers(makePlot(0.02).line).filter((_, i) => i % 2)
    expect(height(0.02)).toBeGreaterThan(errors[2])
    expect(height(0.02)).toBeLessThan(errors[3])
    for (const target of [0, 1e-9, 0.02, 0.05, 10]) {
      const plot = makePlot(target)
      const { y } = plot.ticks.at(-1)
      expect(plot.ticks.at(-1).text).toBe(`\u2264 ${target}`)
      expect(height(target) >= 64 && height(target) <= 108 && y >= 64 && y <= 112).toBe(true)
      expect(Math.min(...numbers(plot.line).filter((_, i) => i % 2))).toBeGreaterThanOrEqual(64)
    }
    expect(makePlot().target).toBe("")
  })

  it("draws a curve of one point or of equal errors", () => {
    for (const few of [[[8, 0.05]], [[1, 0.05]], [[8, 0.05], [9, 0.05]]]) {
      const plot = errorPlot(few, few, 50, 0.05, 300)
      for (const part of [...Object.values(plot), ...Object.values(plot.at(8, 0.05))]) {
        expect(JSON.stringify(part) ?? "").not.toMatch(/NaN|Infinity|null/)
      }
    }
  })

  it("draws a bar for each evaluation, the longest over the whole height", () => {
    const bars = timeBars([0.1, 0.0001, 0.2], 300, 2, 26)
    const heights = [...bars.matchAll(/v([\d.]+)/g)].map(([, v]) => Number(v))
    expect(heights).toEqual([13, 0.5, 26])
    expect(timeBars([0, 0], 300)).not.toMatch(/NaN/)
  })

  it("writes numbers short", () => {
    expect([0.0334, 0.00074, 12.34, 123456].map(short)).toEqual(["0.033", "7e-4", "12", "1e+5"])
  })
})

describe("words", () => {
  const en = wordsFor("en")

  it("says what a budget means, and who chose it", () => {
    expect(budgetLabel(en, 11, 50, BY_HAND)).toBe("11 of 50 evaluations, up to 4.5x")
    expect(budgetLabel(en, 50, 50, BY_HAND)).toBe("50 of 50 evaluations, in full")
    expect(budgetLabel(en, 11, 50, BY_ERROR)).toBe("auto: 11 of 50 evaluations, up to 4.5x")
    expect(budgetLabel(en, 12, 50, BY_SPEEDUP)).toBe("auto: 12 of 50 evaluations, up to 4.2x")
    expect([5, 4.55, 12.5].map(factor)).toEqual(["5", "4.5", "12.5"])
  })

  const say = (found) => budgetFoot(en, {
    asked: { choose: BY_HAND, budget: 10 }, missed: false, total: 50, metric: "rmse", calibrated: true, error: null, psnr: null, ...found,
  })

  it("claims an error only where there is one", () => {
    const other = { metric: "ms-ssim*rmse" }
    expect(say({ ...other, error: 0.033456, isMeasured: true })).toBe("error 0.0335 (ms-ssim*rmse, measured in calibration)")
    expect(say({ ...other, error: 0.02 })).toMatch("between measured budgets")
    expect(say({})).toBe("error not measured at this budget")
    expect(say({ calibrated: false })).toMatch("not known")
    expect(say({ isFull: true })).toMatch("no error")
    expect(say({ error: 0.02, warning: "two models" })).toBe("two models")
  })

  it("says in dB and in words what an error means, where that is known", () => {
    const judged = { metric: "ms-ssim*rmse", error: 0.033456, isMeasured: true, psnr: 33.4 }
    expect(say(judged)).toBe("about 33 dB, differs in details; error 0.0335 (measured)")
    expect(say({ ...judged, isMeasured: false, psnr: 35.1 })).toBe("about 35 dB, hard to tell apart; error 0.0335")
    expect(say({ ...judged, psnr: 24.9 })).toMatch("differs at a glance")
    expect(say({ error: 0.01, isMeasured: true })).toBe("about 40 dB, hard to tell apart; error 0.01 (measured)")
    expect(say({ metric: "expected latent error", error: 0.0512 })).toBe("latent about 5.1 % off, by what was learnt")
  })

  it("takes the PSNR of neighbours for budgets between them, and none beyond", () => {
    const data = { prepared: { 8: { psnr: 30 }, 12: { psnr: null }, 32: { psnr: 40 }, 40: {} } }
    expect([8, 16, 32].map((budget) => expectedPsnr(data, budget))).toEqual([30, 35, 40])
    expect([7, 33].map((budget) => expectedPsnr(data, budget))).toEqual([null, null])
    expect(expectedPsnr({ prepared: {} }, 8)).toBe(null)
  })

  it("says when a target was missed, and when the slider is beyond the steps", () => {
    const full = { isFull: true, missed: true }
    expect(say({ ...full, asked: { choose: BY_ERROR, target_error: 0.001 } })).toMatch("no measured budget keeps 0.001")
    expect(say({ missed: true, asked: { choose: BY_SPEEDUP, target_speedup: 60 } })).toMatch("only 50x")
    expect(say({ isFull: true, asked: { choose: BY_HAND, budget: 60 } })).toBe("more than the 50 steps: 60 counts as 50")
  })

  it("sets measured beside ideal speed-up, and says why a run was computed in full", () => {
    const run = { evaluations: 10, computed: new Array(50).fill(0), ideal: 5, measured: 4.62, level: "output", reason: "" }
    expect(runLabels(en, run)).toEqual({ head: "10 of 50 evaluations, 5x ideal", foot: "4.6x as fast as in full, measured" })
    expect(runLabels(en, { ...run, spread: 0.21 }).foot).toBe("4.6x ± 0.2 as fast as in full, measured")
    expect(runLabels(en, { ...run, spread: 0.01 }).foot).toBe("4.6x as fast as in full, measured")
    expect(runLabels(wordsFor("zh"), { ...run, spread: 0.21 }).foot).toBe("实测速度为完整运行的 4.6 ± 0.2 倍")
    expect(runLabels(en, { ...run, hint: "save more" }).foot).toBe("4.6x as fast as in full, measured\nsave more")
    const full = { ...run, evaluations: 50, ideal: 1, measured: null, reason: "this sampler chooses its own noise levels" }
    expect(runLabels(en, full)).toEqual({
      head: "50 of 50 evaluations, in full", foot: "computed in full: this sampler chooses its own noise levels",
    })
    const taught = "learnt from this run, with 18 evaluations more to rehearse; the next one makes 16 of 50"
    expect(runLabels(en, { ...full, reason: taught }).foot).toBe("learnt from this run: the next one makes 16 of 50")
    expect(runLabels(wordsFor("zh"), { ...full, reason: taught }).foot).toBe("已从这次运行学习：下一次为 50 步中计算 16 次")
    const anew = "learnt from this run, with 5 evaluations more to rehearse; learn is anew: the next one is made in full, too"
    expect(runLabels(en, { ...full, reason: anew }).foot).toBe("learnt from this run; learn is anew: the next one is made in full, too")
    const recorded = "learnt from this run; the next one makes 50 of 50"
    expect(runLabels(en, { ...full, reason: recorded }).foot).toBe("learnt from this run")
    expect(runLabels(en, { ...run, level: "blocks" }).foot).toBe("4.6x as fast as in full, measured\ntransformer blocks reused")
    expect(runLabels(en, { ...full, level: "blocks" }).foot).not.toMatch("reused")
    expect(runLabels(en, { ...run, warning: "made on another model" }).foot).toBe("4.6x as fast as in full, measured\nmade on another model")
    expect(runLabels(en, { ...run, measured: null, extra: 2, level_reason: "no blocks" }).foot).toBe(
      "blocks could not be reused: no blocks, 2 more than scheduled: conditions changed in mid-run",
    )
  })

  it("speaks Chinese to those who set it, English to all others", () => {
    expect(budgetLabel(wordsFor("zh-TW"), 10, 50, BY_ERROR)).toMatch(/[\u4e00-\u9fff]/)
    expect([undefined, "fr"].map(wordsFor)).toEqual([en, en])
    const shape = (words) => Object.entries(words).map(([key, value]) => [key, typeof value, value.length]).filter(([, type]) => type === "function")
    expect(shape(wordsFor("zh"))).toEqual(shape(en))
    expect(Object.keys(wordsFor("zh"))).toEqual(Object.keys(en))
    expect(en[NOT_CALIBRATED](50)).toEqual(["No error was measured on these 50 steps", "choose by hand or by speed-up"])
  })
})

describe("graph", () => {
  const makeGraph = (id, nodes) => {
    const graph = { id, nodes, getNodeById: (wanted) => nodes.find((node) => String(node.id) === String(wanted)) ?? null }
    for (const node of nodes) node.graph = graph
    return graph
  }
  const inner = makeGraph("inner", [{ id: 2 }])
  const root = makeGraph("root", [{ id: 3, subgraph: inner }, { id: "8" }])

  it("finds nodes in subgraphs, and none where there is none", () => {
    expect(nodeByPath(root, "8")).toBe(root.nodes[1])
    expect(nodeByPath(root, "3:2")).toBe(inner.nodes[0])
    expect(["9", "8:1", "3:4", "9:9"].map((path) => nodeByPath(root, path))).toEqual([undefined, undefined, undefined, undefined])
  })

  it("names nodes as runs and as the frontend do", () => {
    expect([...allNodes(root)].map(([, path]) => path)).toEqual(["3", "3:2", "8"])
    expect([root.nodes[1], inner.nodes[0]].map((node) => locatorOf(node, root))).toEqual(["8", "inner:2"])
  })

  it("finds the subgraphs' nodes around a node, the outermost first", () => {
    expect(hostsOf(root, "3:2")).toEqual([[root.nodes[0], "2"]])
    expect([hostsOf(root, "8"), hostsOf(root, "8:1"), hostsOf(root, "9:9")]).toEqual([[], [], []])
    const outer = { id: "outer", nodes: [{ id: "7", subgraph: root }], getNodeById: () => outer.nodes[0] }
    expect(hostsOf(outer, "7:3:2")).toEqual([[outer.nodes[0], "3:2"], [root.nodes[0], "2"]])
  })
})

describe("widgetFor", () => {
  const makeGraph = (nodes, inputs, links) => {
    const graph = { id: String(Math.random()), nodes, inputs, getLink: (id) => links[id] }
    for (const node of nodes) node.graph = graph
    return graph
  }
  const widget = (value) => ({ name: "budget", value })
  const own = { widgets: [widget(1)], inputs: [{ name: "budget", link: null }] }
  const promoted = { widgets: [widget(2)], inputs: [{ name: "budget", link: 7 }] }
  const given = { widgets: [widget(3)], inputs: [{ name: "budget", link: 8 }] }
  const links = { 7: { origin_id: -10, origin_slot: 1 }, 8: { origin_id: "5", origin_slot: 0 } }
  const subgraph = makeGraph([own, promoted, given], [{ name: "other" }, { name: "budget_1" }], links)
  const hosting = (link) => ({ subgraph, widgets: [{ name: "budget_1", value: 4 }], inputs: [{ name: "budget_1", link }] })

  it("is the node's own, the one it was promoted to, or none", () => {
    const root = makeGraph([hosting(null)], [], {})
    expect([own, promoted, given].map((node) => widgetFor(node, "budget", root)?.value)).toEqual([1, 4, undefined])
  })

  it("is none where another node gives the promoted value, or no node shows the subgraph", () => {
    const root = makeGraph([hosting(8)], [], links)
    expect(widgetFor(promoted, "budget", root)).toBe(undefined)
    expect(widgetFor(promoted, "budget", makeGraph([], [], {}))).toBe(undefined)
  })

  it("is none where two nodes show the same subgraph, or the link leads nowhere", () => {
    expect(widgetFor(promoted, "budget", makeGraph([hosting(null), hosting(null)], [], {}))).toBe(undefined)
    expect(widgetFor(own, "budget", makeGraph([hosting(null), hosting(null)], [], {}))?.value).toBe(1)
    const lost = { widgets: [], inputs: [{ name: "budget", link: 7 }] }
    const bare = makeGraph([lost], [], { 7: { origin_id: "-10", origin_slot: 3 } })
    expect(widgetFor(lost, "budget", makeGraph([{ subgraph: bare, widgets: [], inputs: [] }], [], {}))).toBe(undefined)
  })
})

describe("the element", () => {
  let Strip
  let strip
  let asked
  let widgets
  const data = { kind: "budget", budget: 4, metric: "rmse", sigmas: even(10), anchor: [0, 5], reference: [0, 2, 4, 7],
                 prepared: { 2: { steps: [0, 5], score: 0.1 }, 4: { steps: [0, 2, 4, 7], score: 0.02 } },
                 curve: [[2, 0.1], [4, 0.02]] }
  const show = (more) => {
    Object.assign(widgets, more)
    strip.show()
  }

  beforeAll(async () => {
    globalThis.ResizeObserver = class { // jsdom has no layout
      constructor(callback) { this.callback = callback }
      observe() { this.callback([{ contentRect: { width: 300 } }]) }
    }
    ;({ Strip } = await import("../../web/js/otcache/strip.mjs"))
  })

  beforeEach(() => {
    asked = []
    widgets = { budget: 4, choose: BY_HAND, target_error: 0.02, target_speedup: 4 }
    strip = new Strip("budget", wordsFor("en"), () => widgets, (value) => asked.push(value))
  })

  it("asks for a run before there are data", () => {
    strip.show()
    expect(strip.element.classList.contains("empty")).toBe(true)
    expect(strip.element.getAttribute("aria-label")).toMatch("Run once")
    strip.element.dispatchEvent(new KeyboardEvent("keydown", { key: "End" }))
    expect(asked).toEqual([])
  })

  it("is a slider to assistive technology", () => {
    strip.take(data)
    const read = (name) => strip.element.getAttribute(name)
    expect([read("role"), strip.element.tabIndex, read("aria-valuenow"), read("aria-valuemax")]).toEqual(["slider", 0, "4", "10"])
    expect(read("aria-valuetext")).toBe("4 of 10 evaluations, up to 2.5x. about 34 dB, differs in details; error 0.02 (measured). The model runs at steps 1, 3, 5, 8.")
  })

  it("asks for other budgets on keys, never beyond the ends, and leaves shortcuts alone", () => {
    strip.take(data)
    const press = (key, more) => {
      const event = new KeyboardEvent("keydown", { key, cancelable: true, ...more })
      strip.element.dispatchEvent(event)
      return event.defaultPrevented
    }
    expect(["ArrowRight", "ArrowDown", "PageUp", "PageDown", "Home", "End"].map((key) => press(key))).toEqual(new Array(6).fill(true))
    expect(asked).toEqual([5, 3, 9, 1, 1, 10])
    expect([press("a"), press("ArrowRight", { ctrlKey: true })]).toEqual([false, false])
  })

  it("follows every widget, and marks a target only when it chooses", () => {
    strip.take(data)
    const label = () => strip.label.textContent
    const target = () => strip.paths.target.getAttribute("d") ?? ""
    show({ budget: 3 })
    expect([label(), count(target())]).toEqual(["3 of 10 evaluations, up to 3.3x", 0])
    show({ choose: BY_ERROR })
    expect([label(), count(target())]).toEqual(["auto: 4 of 10 evaluations, up to 2.5x", 1])
    show({ target_error: 0.2 })
    expect(label()).toBe("auto: 2 of 10 evaluations, up to 5x")
    show({ choose: BY_SPEEDUP, target_speedup: 3 })
    expect([label(), count(target())]).toEqual(["auto: 3 of 10 evaluations, up to 3.3x", 0])
  })

  it("moves from the budget that was chosen when a key is pressed", () => {
    strip.take(data)
    show({ choose: BY_SPEEDUP, target_speedup: 5 })
    strip.element.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }))
    expect(asked).toEqual([3])
  })

  it("says that nothing was measured, and recovers", () => {
    strip.take({ ...data, prepared: {}, curve: [] })
    show({ choose: BY_ERROR })
    expect(strip.label.textContent).toMatch("No error was measured")
    expect(strip.paths.run.getAttribute("d") ?? "").toBe("")
    show({ choose: BY_HAND })
    expect(strip.label.textContent).toBe("4 of 10 evaluations, up to 2.5x")
    expect(strip.foot.textContent).toMatch("not known")
  })

  it("touches only what changes", async () => {
    strip.take(data)
    const changed = []
    const observer = new MutationObserver((records) => changed.push(...records.map(({ target }) => target.getAttribute?.("class"))))
    observer.observe(strip.plot, { attributes: true, subtree: true, childList: true, characterData: true })
    show({ budget: 5 })
    await Promise.resolve()
    expect(new Set(changed)).toEqual(new Set(["dots", "skip", "run", "marker", "ring"]))
    changed.length = 0
    show({})
    await Promise.resolve()
    expect(changed).toEqual([])
  })

  it("is a picture of what ran on samplers", () => {
    const report = new Strip("run", wordsFor("en"))
    report.take({ kind: "run", steps: 4, evaluations: 2, computed: [1, 0, 1, 0], seconds: [1, 0, 1, 0], ideal: 2, measured: 1.9, level: "output", reason: "" })
    expect(report.element.getAttribute("role")).toBe("img")
    expect(report.element.getAttribute("aria-label")).toMatch("2 of 4 evaluations, 2x ideal. 1.9x as fast as in full, measured")
    expect(count(report.paths.run.getAttribute("d"))).toBe(2)
  })
})
