// @vitest-environment jsdom
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it, vi } from "vitest"
import { Editor } from "../../web/js/otcache/editing.mjs"
import { marks } from "../../web/js/otcache/layout.mjs"
import { forcedSteps, forcedText, ruledSteps, toggled } from "../../web/js/otcache/rules.mjs"
import { wordsFor } from "../../web/js/otcache/words.mjs"

const { texts, cases } = JSON.parse(readFileSync(join(import.meta.dirname, "rules.json"))) // jsdom's URL is not Node's

describe("the same as Python", () => {
  it.each(texts)("what %j forces", (text, found) => {
    const forced = forcedSteps(text)
    expect(forced && Object.fromEntries(forced)).toEqual(found)
  })

  it.each(cases.map((given, i) => [i, given]))("ruled steps, case %i", (_, { total, steps, asked, forced, ruled }) => {
    expect(ruledSteps(steps, total, asked, new Map(forced))).toEqual(ruled)
  })
})

it("takes what older graphs do not ask for as no rule", () => {
  expect(forcedSteps(undefined)).toEqual(new Map())
  expect(ruledSteps([0, 4], 9, {}, new Map())).toEqual([0, 4])
})

describe("toggling", () => {
  it("forces a step the other way and frees it again, but not the first", () => {
    const forced = toggled(new Map(), 4, false)
    expect(forcedText(forced)).toBe("+5")
    expect(forcedText(toggled(forced, 2, true))).toBe("-3 +5")
    expect(forcedText(toggled(forced, 4, true))).toBe("")
    expect(toggled(new Map(), 0, true).size).toBe(0)
  })

  it("marks forced steps inside the strip, and only those that exist", () => {
    const { on, off } = marks(new Map([[0, true], [19, false], [20, true]]), 20, 300)
    expect([on, off].map((path) => path.match(/M/g).length)).toEqual([1, 1])
    const x = `${on}${off}`.match(/[ML]([\d.]+)/g).map((point) => Number(point.slice(1)))
    expect(Math.min(...x)).toBeGreaterThan(0)
    expect(Math.max(...x)).toBeLessThan(300)
  })
})

describe("the cells", () => {
  const words = wordsFor("en")

  const make = (start) => {
    let text = start
    const strip = { kind: "budget", element: document.createElement("div") }
    const write = vi.fn((value) => {
      text = value
    })
    const editor = new Editor(strip, words, () => text, write)
    document.body.append(editor.element)
    strip.onDraw([true, false, true, false])
    return { editor, strip, write, cells: [...editor.row.children] }
  }

  it("say what each step does", () => {
    const { cells } = make("+2")
    expect(cells.map((cell) => cell.getAttribute("aria-label"))).toEqual([
      "step 1: model runs", "step 2: predicted, forced on", "step 3: model runs", "step 4: predicted",
    ])
  })

  it("take clicks and keys", () => {
    const { cells, write } = make("")
    cells[2].click()
    expect(write).toHaveBeenLastCalledWith("-3")
    cells[0].focus()
    const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }))
    press("ArrowRight")
    expect(document.activeElement).toBe(cells[1])
    press("Enter")
    expect(write).toHaveBeenLastCalledWith("+2 -3")
    press("Delete")
    expect(write).toHaveBeenLastCalledWith("")
    expect(cells.filter((cell) => cell.tabIndex === 0)).toEqual([cells[1]])
  })

  it("are not there where they would be no steps, or where another node gives the text", () => {
    const { editor, strip } = make("")
    strip.onDraw(null)
    expect(editor.grid.hidden).toBe(true)
    strip.onDraw([true, false])
    expect(editor.grid.hidden).toBe(false)
    expect(editor.row.children.length).toBe(2)
    expect(make(undefined).editor.grid.hidden).toBe(true)
    expect(make("nonsense").editor.grid.hidden).toBe(true)
  })
})
