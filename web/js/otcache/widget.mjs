// An element on a node.
import { app } from "../../../../scripts/app.js"

export const NAME = "otcache_strip"
const TYPE = "OTCACHE_STRIP" // a name of our own: Nodes 2.0 replaces widgets whose type it knows
const MARGIN = 10 // the classic canvas keeps so much free around a DOM widget
const WIDTH = 380 // of a fresh node: its lines of text fit
const CAPTION = 40 // under a node's pictures, where the frontend writes their size

/** Put an element on a node, in both ways that nodes are drawn; returns its widget. name: no other widget of the node has it. */
export function addWidget(node, name, height, element) {
  const widget = node.addDOMWidget(name, TYPE, element, {
    serialize: false, // not in the prompt
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: () => height + 2 * MARGIN,
    getMaxHeight: () => height + 2 * MARGIN,
  })
  widget.serialize = false // not in the workflow's values
  const [width] = node.computeSize()
  node.setSize([Math.max(node.size[0], width, WIDTH), Math.max(node.size[1], leastHeight(node))])
  return widget
}

/** What a node needs; 0 in Nodes 2.0, which fits it to what it shows itself and leaves out advanced inputs. */
export function leastHeight(node) {
  return globalThis.LiteGraph?.vueNodesMode ? 0 : node.computeSize()[1]
}

/**
 * Room for pictures three times as wide as high: the classic canvas draws them below the widgets, beyond the node if need be.
 * height: of our element, the last of the widgets.
 */
export function makeRoomForPictures(node, height) {
  if (globalThis.LiteGraph?.vueNodesMode) return
  const [width, has] = node.size
  const top = node.widgets.find((widget) => widget.name === NAME).y + height + 2 * MARGIN
  node.setSize([width, Math.max(has, top + width / 3 + CAPTION)])
}

/** The wheel zooms over an element as elsewhere on a node. */
export function letZoom(element) {
  element.addEventListener("wheel", (event) => {
    if (!globalThis.LiteGraph?.vueNodesMode) app.canvas.processMouseWheel?.(event)
  })
}
