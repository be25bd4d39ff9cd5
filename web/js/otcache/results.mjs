// What runs gave: it comes while the page is open, with a workflow's tab, or out of the server's history.
import { app } from "../../../../scripts/app.js"
import { api } from "../../../../scripts/api.js"
import { limitBudget } from "./controls.mjs"
import { allNodes, locatorOf, nodeByPath } from "./graph.mjs"
import { outside } from "./hosts.mjs"
import { locale, rootGraph, strips } from "./page.mjs"
import { freeValues, isSamePrompt } from "./prompt.mjs"
import { reports } from "./reports.mjs"

const PARTS = { budget: ["sigmas", "anchor", "reference", "prepared", "curve", "asked"], run: ["computed", "seconds"] }
const PROGRESS = "$$node-text-preview" // the frontend's widget for texts such as "rehearsing 1 of 2"
const RECENT = 16 // runs to look through for results after a reload

/** Show on a node what it sent. earlier: when that was, where it is not this graph's own doing. */
export function take(node, output, earlier) {
  const strip = strips.get(node)
  if (strip) give(strip, output, earlier)
  if (strip?.kind === "budget" && strip.data) limitBudget(node, strip.cells)
}

/** Show around a node in a subgraph what it sent. path: its execution id. */
export function takeOutside(path, output, earlier) {
  for (const strip of outside(rootGraph(), path)) give(strip, output, earlier)
}

function give(strip, output, earlier) {
  const data = output?.otcache?.[0]
  if (!data || data.kind !== strip.kind || !isWhole(data)) return
  strip.take(data, strip.kind === "budget" ? "" : earlier) // what a slider goes by holds for the next run too
}

/** Whether a strip can be drawn from what was found: another version of the pack may have left it. */
function isWhole(data) {
  return (PARTS[data.kind] ?? []).every((part) => data[part])
}

/** Take the report of a node that has no outputs of its own which the server would send. */
export function takeReport({ prompt, workflow, node: path, strip }) {
  if (!workflow) return // queued without one, by a script
  reports.add({ prompt, path, strip })
  const root = rootGraph()
  const node = root.id === workflow && nodeByPath(root, path)
  if (!node) return
  const output = { otcache: [strip] }
  if (app.nodeOutputs) app.nodeOutputs[locatorOf(node, root)] = output // so that it comes back with the workflow's tab
  take(node, output)
  takeOutside(path, output)
  dropProgress(node)
}

/** The text of a lesson goes when its report comes: after later runs it would still stand there. */
function dropProgress(node) {
  const text = node.widgets?.find(({ name }) => name === PROGRESS)
  if (text) node.removeWidget(text)
}

/** Another tab's workflow was opened: the frontend gives back what its nodes sent. */
export function takeBack(outputs) {
  const root = rootGraph()
  const all = [...allNodes(root)].filter(([node]) => strips.has(node))
  for (const [node, path] of all) {
    const output = outputs[locatorOf(node, root)]
    take(node, output)
    // Where several nodes show the same subgraph, nobody can tell whose it is.
    if (all.filter(([other]) => other === node).length === 1) takeOutside(path, output)
  }
}

/**
 * Bring back what a run gave that the graph would repeat as it stands. The workflow's id alone does not tell: all copies of a
 * template share it, whatever was changed in one of them before it ran.
 */
export async function restore() {
  const root = rootGraph()
  const lacks = ([node, path]) =>
    strips.has(node) && node.comfyClass !== "OTLoadSchedule" && [strips.get(node), ...outside(root, path)].some(({ data }) => !data)
  const missing = () => [...allNodes(root)].filter(lacks)
  if (!missing().length) return
  const answer = await api.fetchApi(`/history?max_items=${RECENT}`)
  if (!answer.ok) return
  const entries = Object.entries(await answer.json()).reverse()
  const own = entries.filter(([, entry]) => entry.prompt?.[3]?.extra_pnginfo?.workflow?.id === root.id)
  if (!own.length) return
  const { output } = await app.graphToPrompt()
  const free = freeValues(root)
  for (const [id, entry] of own) {
    if (root !== rootGraph()) return // another workflow was opened meanwhile
    if (!isSamePrompt(entry.prompt[2], output, free)) continue
    const ended = entry.status?.messages?.at(-1)?.[1].timestamp
    const when = new Date(ended ?? Date.now()).toLocaleTimeString(locale(), { timeStyle: "short" })
    for (const [node, path] of missing()) {
      const sent = entry.outputs?.[path] ?? { otcache: [reports.find(id, path)] }
      if (!strips.get(node).data) take(node, sent, when)
      takeOutside(path, sent, when)
    }
  }
}

/** While a cached sampler works, its cell is framed on its own strip, on those around it and on those of the budgets. */
export function showProgress(nodes) {
  const root = rootGraph()
  const states = Object.entries(nodes ?? {}).map(([path, state]) => [state.display_node_id ?? path, state])
  const [path, state] = states.find(([path, { state }]) => state === "running" && nodeByPath(root, path)?.comfyClass === "OTCachedSampler") ?? []
  const cell = state?.value ?? -1
  const own = state ? [strips.get(nodeByPath(root, path)), ...outside(root, path)] : []
  for (const [node, at] of [...allNodes(root)].filter(([node]) => strips.has(node))) {
    for (const strip of [strips.get(node), ...outside(root, at)]) {
      if (!strip.data || !(strip.kind in PARTS)) continue
      if (!(strip.kind === "budget" || own.includes(strip) || cell < 0)) continue
      const now = state && strip.cells === state.max ? cell : -1
      if (now !== strip.now) strip.show(now)
    }
  }
}
