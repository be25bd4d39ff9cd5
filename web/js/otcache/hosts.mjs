// Reports of runs inside a subgraph, on the subgraph's own node: who runs a blueprint does not look inside.
import { allNodes, hostsOf } from "./graph.mjs"
import { KINDS, locale } from "./page.mjs"
import { heightOf, Strip } from "./strip.mjs"
import { addWidget, letZoom, NAME } from "./widget.mjs"
import { wordsFor } from "./words.mjs"

const TITLE = 20 // pixels of the line that says whose report it is
const shown = new WeakMap() // a subgraph's node -> {names, widgets, strips: path of a node inside -> Strip}

/** Give a subgraph's node one strip for each node inside that reports runs, and take away those of nodes that have gone. */
export function fitHost(host) {
  const inside = [...allNodes(host.subgraph)].filter(([node]) => KINDS[node.comfyClass] === "run")
  const names = JSON.stringify(inside.map(([node, path]) => [path, node.title]))
  const before = shown.get(host)
  if ((before?.names ?? "[]") === names) return
  for (const widget of before?.widgets ?? []) host.removeWidget(widget)
  const now = { names, widgets: [], strips: new Map() }
  shown.set(host, now)
  for (const [node, path] of inside) {
    const strip = before?.strips.get(path) ?? new Strip("run", wordsFor(locale()))
    now.strips.set(path, strip)
    now.widgets.push(addStrip(host, strip, now.widgets.length, inside.length > 1 ? node.title : ""))
  }
}

function addStrip(host, strip, number, title) {
  const element = document.createElement("div")
  const line = element.appendChild(document.createElement("div"))
  line.className = "otcache-title"
  line.textContent = line.title = title
  line.hidden = !title
  element.append(strip.element)
  letZoom(element)
  const height = heightOf("run", false) + (title ? TITLE : 0)
  element.style.minHeight = `${height}px`
  return addWidget(host, number ? `${NAME}_${number + 1}` : NAME, height, element)
}

/** The strips outside that show what the node reports whose execution id is `path`: one on each subgraph around it. */
export function outside(root, path) {
  return hostsOf(root, path).flatMap(([host, inner]) => {
    fitHost(host) // the node may have been put there since
    return shown.get(host)?.strips.get(inner) ?? []
  })
}
