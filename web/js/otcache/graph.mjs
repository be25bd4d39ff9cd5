// Finding nodes in the root graph and its subgraphs.

/** The node that an execution id names, such as "8" or "3:2" (node 2 in the subgraph of node 3); undefined if none. */
export function nodeByPath(root, path) {
  const parts = String(path).split(":")
  const last = parts.pop()
  let graph = root
  for (const part of parts) graph = graph?.getNodeById(part)?.subgraph
  return graph?.getNodeById(last) ?? undefined
}

/** The subgraphs' nodes around the node that an execution id names, the outermost first, each with the rest of the id. */
export function hostsOf(root, path) {
  const parts = String(path).split(":")
  const hosts = parts.slice(0, -1).map((_, i) => [nodeByPath(root, parts.slice(0, i + 1).join(":")), parts.slice(i + 1).join(":")])
  return hosts.filter(([host]) => host?.subgraph)
}

/** The key of a node's outputs in the frontend's store: "8" in the root graph, "<subgraph's id>:2" in a subgraph. */
export function locatorOf(node, root) {
  return node.graph && node.graph !== root ? `${node.graph.id}:${node.id}` : String(node.id)
}

/** All nodes of a graph and its subgraphs with their execution ids, as [node, path] pairs. */
export function* allNodes(graph, prefix = "") {
  for (const node of graph?.nodes ?? []) {
    yield [node, `${prefix}${node.id}`]
    if (node.subgraph) yield* allNodes(node.subgraph, `${prefix}${node.id}:`)
  }
}

const SUBGRAPH_INPUTS = "-10" // the id of the node that stands for a subgraph's inputs

/**
 * The widget that gives a node's input its value: its own, or where that was promoted, the one on the subgraph's node.
 * Undefined when another node gives the value, or when several nodes show the same subgraph: nobody can tell which is meant.
 */
export function widgetFor(node, name, root) {
  const { link } = node.inputs?.find((input) => input.name === name) ?? {}
  if (link == null) return node.widgets?.find((widget) => widget.name === name)
  const { origin_id, origin_slot } = node.graph?.getLink?.(link) ?? {}
  if (String(origin_id) !== SUBGRAPH_INPUTS) return undefined
  const hosts = new Set([...allNodes(root)].map(([other]) => other).filter((other) => other.subgraph === node.graph))
  const input = node.graph.inputs?.[origin_slot]
  return hosts.size === 1 && input ? widgetFor([...hosts][0], input.name, root) : undefined
}
