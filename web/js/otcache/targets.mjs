// Which widgets count as `choose` stands: those that do not are hidden, or in grey.
import { BY_BUDGET, BY_ERROR, BY_HAND, BY_SPEEDUP } from "./schedule.mjs"

const HIDDEN = { target_error: BY_ERROR, target_speedup: BY_SPEEDUP } // of OT Budget Interpolate
const GREY = { speedup: BY_SPEEDUP, budget: BY_BUDGET, target_error: BY_ERROR } // of OT Auto Cache

/** Redraw a widget of which something has changed: Nodes 2.0 reads its options anew only when `disabled` changes. */
export function refresh(widget) {
  widget.disabled = !widget.disabled
  widget.disabled = !widget.disabled
}

/**
 * Show the target that chooses the budget and no other, and the slider in grey while a target does. choose: how the budget is
 * chosen, undefined where nobody can tell: then everything is shown. slider: the widget that gives the budget, if one does.
 */
export function showTargets(node, choose, slider) {
  for (const [name, mode] of Object.entries(HIDDEN)) {
    const widget = node.widgets?.find((other) => other.name === name)
    if (widget) setHidden(widget, choose !== undefined && choose !== mode)
  }
  if (slider) slider.disabled = choose !== undefined && choose !== BY_HAND
}

/** The same for OT Auto Cache, whose targets lie partly among the advanced inputs: only in grey, so that one is always seen. */
export function greyTargets(node, choose) {
  for (const [name, mode] of Object.entries(GREY)) {
    const widget = node.widgets?.find((other) => other.name === name)
    if (widget) widget.disabled = choose !== undefined && choose !== mode
  }
}

function setHidden(widget, isHidden) {
  if (Boolean(widget.hidden) === isHidden) return
  widget.hidden = widget.options.hidden = isHidden // the classic canvas goes by the one, Nodes 2.0 by the other
  refresh(widget)
}
