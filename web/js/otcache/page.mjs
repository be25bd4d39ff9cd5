// What all that stands on nodes shares: ComfyUI's frontend, and who has a strip.
import { app } from "../../../../scripts/app.js"

export const KINDS = {
  OTBudgetInterpolate: "budget", OTCachedSampler: "run", OTApplyCache: "run", OTAutoCache: "run", OTLoadSchedule: "schedule",
}
export const rootGraph = () => app.rootGraph ?? app.graph
export const strips = new WeakMap() // node -> its Strip or Note
export const locale = () => app.extensionManager?.setting?.get("Comfy.Locale")

/** Let `action` follow whenever a method of a node, or a widget's callback, is called. */
export function after(node, name, action) {
  const original = node[name]
  node[name] = function () {
    const answer = original?.apply(this, arguments)
    action.apply(this, arguments)
    return answer
  }
}

/** Let the frontend look at the graph: what has changed since it last did is one step of undo. */
export function noteForUndo() {
  app.canvas.emitBeforeChange?.()
  app.canvas.emitAfterChange?.()
}
