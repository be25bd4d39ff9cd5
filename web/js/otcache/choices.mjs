// Labels of combo widgets' choices. ComfyUI's locales translate the names of inputs, but not what can be chosen in them.

/** Give `widgets` the labels that a node's locale entry has under inputs.<name>.options; their values stay as they are. */
export function labelChoices(widgets, entry) {
  for (const { name, options } of widgets ?? []) {
    const labels = entry?.inputs?.[name]?.options
    if (labels && options) options.getOptionLabel = (value) => labels[value] ?? value ?? ""
  }
}
