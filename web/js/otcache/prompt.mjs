// Whether a prompt that ran is the one that the graph would make now.
import { allNodes } from "./graph.mjs"

/** "<path>/<input>" of the values that ComfyUI itself changes after each run: a seed set to randomize, say. */
export function freeValues(root) {
  const free = new Set()
  for (const [node, path] of allNodes(root)) {
    for (const { name, linkedWidgets } of node.widgets ?? []) {
      const control = linkedWidgets?.find((widget) => widget.name === "control_after_generate")
      if (control && control.value !== "fixed") free.add(`${path}/${name}`)
    }
  }
  return free
}

/** Whether two prompts {path: {class_type, inputs}} run the same nodes with the same values, but for the `free` ones. */
export function isSamePrompt(a, b, free) {
  const paths = Object.keys(a)
  return paths.length === Object.keys(b).length && paths.every((path) => b[path] && isSameNode(a[path], b[path], path, free))
}

function isSameNode(a, b, path, free) {
  const names = new Set([...Object.keys(a.inputs), ...Object.keys(b.inputs)])
  return a.class_type === b.class_type && [...names].every((name) =>
    free.has(`${path}/${name}`) || JSON.stringify(a.inputs[name]) === JSON.stringify(b.inputs[name]))
}
