import { describe, expect, it } from "vitest"
import { freeValues, isSamePrompt } from "../../web/js/otcache/prompt.mjs"

const prompt = (changes) => ({
  "3:2": { class_type: "KSampler", inputs: { seed: 1, steps: 20, model: ["8", 0], ...changes }, _meta: { title: "named" } },
  8: { class_type: "OTDemoModel", inputs: {} },
})

describe("a prompt that ran", () => {
  const none = new Set()

  it("is the graph's when all values and links are equal, whatever the titles", () => {
    expect(isSamePrompt(prompt(), { ...prompt(), 8: { class_type: "OTDemoModel", inputs: {}, is_changed: [1] } }, none)).toBe(true)
    for (const change of [{ steps: 21 }, { model: ["8", 1] }, { model: undefined }, { extra: 1 }]) {
      expect(isSamePrompt(prompt(), prompt(change), none), JSON.stringify(change)).toBe(false)
      expect(isSamePrompt(prompt(change), prompt(), none), JSON.stringify(change)).toBe(false)
    }
    const { 8: demo, ...rest } = prompt()
    expect([isSamePrompt(prompt(), rest, none), isSamePrompt(rest, prompt(), none)]).toEqual([false, false])
    expect(isSamePrompt(prompt(), { ...rest, 8: { ...demo, class_type: "Other" } }, none)).toBe(false)
  })

  it("may differ in what ComfyUI itself changes after each run", () => {
    const seed = (value) => ({ name: "seed", linkedWidgets: [{ name: "control_after_generate", value }] })
    const root = (value) => ({ nodes: [{ id: 3, subgraph: { nodes: [{ id: 2, widgets: [seed(value), { name: "steps" }] }] } }] })
    expect([...freeValues(root("randomize"))]).toEqual(["3:2/seed"])
    expect([...freeValues(root("fixed"))]).toEqual([])
    expect(isSamePrompt(prompt(), prompt({ seed: 2 }), freeValues(root("randomize")))).toBe(true)
    expect(isSamePrompt(prompt(), prompt({ steps: 2 }), freeValues(root("randomize")))).toBe(false)
  })
})
