// Strips on OTCache's nodes: which steps run the model. Drawn here, kept nowhere: neither in the workflow nor in the prompt.
import { app } from "../../../scripts/app.js"
import { api } from "../../../scripts/api.js"
import { attach, showNamed } from "./otcache/attach.mjs"
import { labelChoices } from "./otcache/choices.mjs"
import { colourLinks } from "./otcache/colours.mjs"
import { allNodes, nodeByPath } from "./otcache/graph.mjs"
import { fitHost } from "./otcache/hosts.mjs"
import { translatedProgress } from "./otcache/messages.mjs"
import { locale, rootGraph } from "./otcache/page.mjs"
import { restore, showProgress, takeBack, takeOutside, takeReport } from "./otcache/results.mjs"
import { isChinese } from "./otcache/words.mjs"

let chinese = {} // node id -> what our locale says of it; empty in other languages

/** Put a progress text into Chinese where a node of ours shows it: a widget that the frontend adds in both ways nodes are drawn. */
function translateProgress({ nodeId, text }) {
  const node = nodeByPath(rootGraph(), nodeId)
  const shown = text && node?.comfyClass?.startsWith("OT") && node.widgets?.find(({ value }) => value === text)
  if (shown) shown.value = translatedProgress(text, chinese)
}

app.registerExtension({
  name: "OTCache.Strips",

  async init() {
    if (!isChinese(locale())) return
    try {
      const answer = await api.fetchApi("/i18n")
      chinese = (await answer.json()).zh?.nodeDefs ?? {}
    } catch {
      // no translations: the choices stay English
    }
  },

  setup() {
    const sheet = document.createElement("link")
    sheet.rel = "stylesheet"
    sheet.href = new URL("./otcache/strip.css", import.meta.url).href
    document.head.append(sheet)
    colourLinks(app.canvas)
    // Once the frontend has put the text on the node, whichever of us listens first; before anything is drawn.
    if (isChinese(locale())) api.addEventListener("progress_text", ({ detail }) => queueMicrotask(() => translateProgress(detail)))
    api.addEventListener("progress_state", ({ detail }) => showProgress(detail.nodes))
    for (const end of ["execution_success", "execution_error", "execution_interrupted"]) {
      api.addEventListener(end, () => showProgress(null))
    }
    api.addEventListener("execution_success", () => { // OT Save Schedule may have written over a file that is shown
      for (const [node] of allNodes(rootGraph())) if (node.comfyClass === "OTLoadSchedule") showNamed(node)
    })
    // ComfyUI itself gives this to the node that ran.
    api.addEventListener("executed", ({ detail }) => takeOutside(detail.display_node ?? detail.node, detail.output))
    // A subgraph is entered or left: there may be other nodes in it now.
    app.canvas.canvas.addEventListener("litegraph:set-graph", () => {
      for (const [node] of allNodes(rootGraph())) if (node.subgraph) fitHost(node)
    })
    api.addEventListener("otcache.run", ({ detail }) => takeReport(detail))
  },

  nodeCreated(node) {
    if (node.comfyClass?.startsWith("OT")) labelChoices(node.widgets, chinese[node.comfyClass])
    attach(node)
    if (node.subgraph) fitHost(node)
  },

  afterConfigureGraph() {
    restore().catch(() => {}) // without the server's history the strips ask for a run, as they do on a fresh page
  },

  onNodeOutputsUpdated: takeBack,
})
