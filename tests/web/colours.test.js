import { readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { COLOURS, colourLinks } from "../../web/js/otcache/colours.mjs"

class Canvas {
  static link_type_colors = { MODEL: "#b39ddb" }
  default_connection_color_byType = {}
}

describe("colours of links and slots", () => {
  it("are ours until a palette names our types, and again after it", () => {
    const canvas = new Canvas()
    colourLinks(canvas)
    for (const table of [canvas.default_connection_color_byType, Canvas.link_type_colors]) {
      expect(table).toMatchObject(COLOURS)
      Object.assign(table, { OT_SCHEDULE: "", OT_CALIBRATION: "" }) // as a palette that does not know them
      expect(table).toMatchObject(COLOURS)
      table.OT_SCHEDULE = "#123456"
      expect(table.OT_SCHEDULE).toBe("#123456")
    }
    expect(Canvas.link_type_colors.MODEL).toBe("#b39ddb")
  })

  it("do without what another version of the frontend lacks", () => {
    expect(() => [colourLinks({}), colourLinks(undefined)]).not.toThrow()
  })

  it("are the same in Nodes 2.0, and told apart", () => {
    const style = readFileSync("web/js/otcache/strip.css", "utf8")
    for (const [type, colour] of Object.entries(COLOURS)) expect(style).toContain(`--color-datatype-${type}: ${colour};`)
    expect(new Set(Object.values(COLOURS)).size).toBe(2)
  })
})
