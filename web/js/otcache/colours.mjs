// Colours of our links and slots. Without them they look like any untyped link of another pack.

export const COLOURS = { OT_SCHEDULE: "#2ec4b6", OT_CALIBRATION: "#c98a4b" } // strip.css has them for Nodes 2.0

/**
 * Give `canvas` (LiteGraph's) our colours. A colour palette of the user's that names our types still wins; one that does not
 * writes "" for every type it does not know, and would take them away.
 */
export function colourLinks(canvas) {
  for (const table of [canvas?.default_connection_color_byType, canvas?.constructor?.link_type_colors]) {
    if (!table) continue
    for (const [type, colour] of Object.entries(COLOURS)) {
      let chosen = table[type] || colour
      Object.defineProperty(table, type, {
        configurable: true,
        enumerable: true,
        get: () => chosen,
        set(value) {
          chosen = value || colour
        },
      })
    }
  }
}
