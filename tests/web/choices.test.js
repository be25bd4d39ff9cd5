import { readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { labelChoices } from "../../web/js/otcache/choices.mjs"
import { isChinese } from "../../web/js/otcache/words.mjs"

const { OTBudgetInterpolate: entry } = JSON.parse(readFileSync("locales/zh/nodeDefs.json", "utf8"))

describe("choices", () => {
  it("get the locale's labels, and keep their values", () => {
    const values = ["by hand", "by error", "by speed-up"]
    const widgets = [{ name: "choose", options: { values } }, { name: "budget", options: {} }, { name: "strip" }]
    labelChoices(widgets, entry)
    expect(values.map(widgets[0].options.getOptionLabel)).toEqual(["手动", "按误差", "按加速"])
    expect(widgets[0].options.values).toEqual(["by hand", "by error", "by speed-up"])
    expect(widgets[1].options).toEqual({})
  })

  it("that nobody translated show what they are; the classic canvas asks for null as well", () => {
    const widget = { name: "choose", options: {} }
    labelChoices([widget], entry)
    expect([null, "", "new"].map(widget.options.getOptionLabel)).toEqual(["", "", "new"])
  })

  it("stay alone without a locale", () => {
    const widget = { name: "choose", options: {} }
    labelChoices([widget], undefined)
    labelChoices(undefined, entry)
    expect(widget.options).toEqual({})
  })

  it("are Chinese for every Chinese locale", () => {
    expect(["zh", "zh-TW", "en", undefined].map(isChinese)).toEqual([true, true, false, false])
  })
})
