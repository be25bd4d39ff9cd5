"""A workflow of a few seconds: two published schedules, the slider, and the tiny model sampled through both kinds of node."""

ID = "0b8f4c52-5f1e-4a77-9d6e-3f2a6c1d7e90"  # as in a template: all copies share it
BUILD = """() => {
  app.graph.clear()
  const add = (type, x, y) => {
    const node = LiteGraph.createNode(type)
    node.pos = [x, y]
    app.graph.add(node)
    return node
  }
  const link = (from, output, to, input) => from.connect(output, to, to.inputs.findIndex(({ name }) => name === input))
  const set = (node, values) => {
    for (const widget of node.widgets) if (widget.name in values) widget.value = values[widget.name]
  }
  const demo = add("OTDemoModel", -900, 0), budget = add("OTBudgetInterpolate", 0, 0)
  for (const [i, name] of ["reference", "anchor"].entries()) {
    const load = add("OTLoadSchedule", -450, 300 * i)
    set(load, { schedule: ["lemica-flux1-dev-15", "lemica-flux1-dev-10"][i] })
    link(load, 0, budget, name)
  }
  const values = { steps: 20, cfg: 4, sampler_name: "euler", scheduler: "simple" }
  const apply = add("OTApplyCache", 450, 700)
  link(demo, 0, apply, "model")
  link(budget, 0, apply, "schedule")
  for (const [i, type] of ["OTCachedSampler", "KSampler"].entries()) {
    const sampler = add(type, 900, 700 * i), decode = add("VAEDecode", 1350, 700 * i)
    set(sampler, values)
    link(i ? apply : demo, 0, sampler, "model")
    if (!i) link(budget, 0, sampler, "schedule")
    for (const [slot, input] of [[1, "positive"], [2, "negative"], [4, "latent_image"]]) link(demo, slot, sampler, input)
    link(sampler, 0, decode, "samples")
    link(demo, 3, decode, "vae")
    link(decode, 0, add("PreviewImage", 1700, 700 * i), "images")
  }
}"""


def small(comfy) -> dict:
    """The workflow, made by the frontend of `comfy` itself."""
    comfy.page.evaluate(BUILD)
    return comfy.documents()[0] | {"id": ID}
