"""How a workflow file becomes the graph that ComfyUI's /prompt takes, as the frontend does it."""

FRONTEND_ONLY = {"MarkdownNote", "Note"}
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def api_graph(workflow: dict, info: dict) -> dict:
    """API format, with widget values given names by /object_info's order; all of them must be used up.

    Raises `KeyError` for a node that `info` does not know.
    """
    sources = {number: [str(node), slot] for number, node, slot, *_ in workflow["links"]}
    graph = {}
    for node in workflow["nodes"]:
        if node["type"] in FRONTEND_ONLY:
            continue
        inputs, values = {}, list(node["widgets_values"])
        declared = info[node["type"]]["input"]
        for name, (kind, *rest) in (declared.get("required", {}) | declared.get("optional", {})).items():
            extra = rest[0] if rest else {}
            if not isinstance(kind, list) and kind not in WIDGETS:
                continue
            inputs[name] = values.pop(0)
            if extra.get("control_after_generate", name in ("seed", "noise_seed")):
                assert values.pop(0) in ("fixed", "randomize", "increment", "decrement")
        assert not values, f"{node['type']} has widget values that no widget takes: {values}"
        for entry in node["inputs"]:
            if entry["link"] is not None:
                inputs[entry["name"]] = sources[entry["link"]]
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph


def leading_to(graph: dict, kinds: set[str]) -> dict:
    """The nodes of an API graph that those of `kinds` need, themselves included."""
    wanted, found = [number for number, node in graph.items() if node["class_type"] in kinds], {}
    while wanted:
        number = wanted.pop()
        if number not in found:
            found[number] = graph[number]
            wanted += [value[0] for value in graph[number]["inputs"].values() if isinstance(value, list)]
    return found
