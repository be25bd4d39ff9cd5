"""Workflow files as ComfyUI's frontend writes them (litegraph, version 0.4), from a description and /object_info.

    w = Workflow("name", info, note="markdown")
    with w.group("Load"):
        model = w.add("UNETLoader", unet_name="flux1-dev.safetensors")
    with w.group("Sample"):
        w.add("KSampler", model=model["MODEL"], steps=50)

Groups stand side by side from left to right, `row()` begins below; nodes in a group stand below each other, `column()` begins
beside. Widgets left out have their default. A loader that holds one of `files` carries its address, so that the frontend offers
the download of what is missing.
"""

from __future__ import annotations

import uuid
from contextlib import contextmanager

from .layout import GAP, HEADER, NOTE_WIDTH, TITLE, WIDTH, Column, Group, Node, Output, lay_out, note_height

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
SLOT, WIDGET, TEXT, PICTURE = 24, 28, 100, 320  # pixels
STRIPS = {"OTBudgetInterpolate": 204, "OTCachedSampler": 142, "OTApplyCache": 142, "OTAutoCache": 150, "OTAnchorSearch": 270,
          "OTLoadSchedule": 180, "OTCompare": 212}
"""Pixels that web/js/otcache.js adds, and what a running search shows."""
NOTE_COLOURS = {"color": "#432", "bgcolor": "#653"}


class Workflow:
    """Collects nodes and writes them; see the module."""

    def __init__(
        self, name: str, info: dict, note: str, files: dict[str, dict] | None = None, note_line: int = 24,
        note_width: int = NOTE_WIDTH, note_left: int = 0, note_top: int = HEADER + TITLE, start: int | None = None,
    ):  # fmt: skip
        """files: by name of a model file, its url and directory. note_line: pixels for each line of the note. start: where
        the first group begins, by default to the right of the note."""
        self.name, self._info, self._note, self._files, self._note_line = name, info, note, files or {}, note_line
        self._note_width, self._note_corner = note_width, [note_left, note_top]
        self._start = note_width + GAP if start is None else start
        self._nodes: list[Node] = []
        self._groups: list[Group] = []
        self._row = 0

    @contextmanager
    def group(self, title: str, below: bool = False, drop: int = 0, left: int = 0, width: int = WIDTH):
        """Nodes added inside stand in a box with that title.

        below: it stands below the group before, not beside it. drop: it begins so many pixels lower. left: with so many
        pixels more before it. width: of its first column's nodes.
        """
        self._groups.append(Group(title, self._row, below, drop, left, [Column(width=width)]))
        yield

    def column(self, drop: int = 0, width: int = WIDTH) -> None:
        """The next nodes of this group stand beside those before. drop: and so many pixels lower. width: theirs."""
        self._groups[-1].columns.append(Column(drop, width))

    def drop(self, pixels: int) -> None:
        """The first column of this group begins so many pixels lower."""
        self._groups[-1].columns[0].drop = pixels

    def row(self) -> None:
        """The next groups stand below those before."""
        self._row += 1

    def add(
        self, kind: str, title: str | None = None, control: str = "fixed", above: int = 0, tall: int | None = None, **inputs
    ) -> Node:  # fmt: skip
        """Place a node. control: what happens to its seed after a run. above: so many pixels more are left free above it.
        tall: its height in pixels, where that is not the usual one.

        Raises KeyError for a node or an input that ComfyUI does not have, or a missing link.
        """
        info = self._info[kind]
        links = {name: value for name, value in inputs.items() if isinstance(value, Output)}
        values = dict(inputs)
        known = dict(input_specs(info))
        if unknown := set(inputs) - set(known):
            raise KeyError(f"{kind} has no input {sorted(unknown)}; it has {sorted(known)}")
        optional = info["input"].get("optional", {})
        for name, spec in known.items():
            if name in inputs:
                continue
            if not is_widget(spec):
                if name not in optional:
                    raise KeyError(f"{kind}: nothing is linked to {name}")
            else:
                values[name] = default(spec)
        outputs = list(zip(info["output_name"], info["output"], strict=True))
        size = self._size(info, kind) if tall is None else (WIDTH, tall)
        node = Node(len(self._nodes) + 2, kind, outputs, values, links, size, title, control, above)
        self._nodes.append(node)
        self._groups[-1].columns[-1].nodes.append(node)
        return node

    def _size(self, info: dict, kind: str) -> tuple[int, int]:
        specs = input_specs(info)
        sockets = sum(not is_widget(spec) for _, spec in specs)
        widgets = [(name, spec) for name, spec in specs if is_widget(spec)]
        height = 26 + SLOT * max(sockets, len(info["output"]))
        for name, spec in widgets:
            height += TEXT if options(spec).get("multiline") else WIDGET * (1 + has_control(name, spec))
        if kind in ("SaveImage", "PreviewImage", "SaveWEBM", "OTCompare"):
            height += PICTURE
        if kind in ("PreviewAny", "OTSaveSchedule"):
            height += TEXT
        return WIDTH, height + STRIPS.get(kind, 0)

    def graph(self) -> dict:
        """The whole file as a dict."""
        boxes = lay_out(self._groups, self._row + 1, self._start)
        size = [self._note_width, note_height(self._note, self._note_line, self._note_width)]
        note = {
            "id": 1, "type": "MarkdownNote", "pos": self._note_corner, "size": size, "flags": {}, "order": 0, "mode": 0,
            "inputs": [], "outputs": [], "title": "Read me", "properties": {}, "widgets_values": [self._note], **NOTE_COLOURS,
        }  # fmt: skip
        links = self._links()
        nodes = [note, *(self._node(order, node, links) for order, node in enumerate(self._nodes, 1))]
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"otcache/{self.name}")), "revision": 0,
            "last_node_id": len(nodes), "last_link_id": len(links), "nodes": nodes, "links": links, "groups": boxes,
            "config": {}, "extra": {"ds": {"scale": 0.6, "offset": [60, 100]}}, "version": 0.4,
        }  # fmt: skip

    def _links(self) -> list[list]:
        """[number, source node, its output, target node, its input, type] of every link."""
        links = []
        for node in self._nodes:
            for name, source in node.links.items():
                kind = source.node.outputs[source.slot][1]
                slot = [entry["name"] for entry in self._inputs(node)].index(name)
                links.append([len(links) + 1, source.node.id, source.slot, node.id, slot, kind])
        return links

    def _inputs(self, node: Node) -> list[dict]:
        specs = input_specs(self._info[node.kind])
        # The frontend writes sockets first, then the sockets that belong to widgets.
        sockets = [{"name": name, "type": spec[0], "link": None} for name, spec in specs if not is_widget(spec)]
        widgets = [
            {"name": name, "type": kind_of(spec), "widget": {"name": name}, "link": None}
            for name, spec in specs
            if is_widget(spec)
        ]
        return sockets + widgets

    def _node(self, order: int, node: Node, links: list[list]) -> dict:
        inputs = self._inputs(node)
        for number, _, _, target, slot, _ in links:
            if target == node.id:
                inputs[slot]["link"] = number
        outputs = [
            {"name": name, "type": kind, "links": [link[0] for link in links if link[1:3] == [node.id, slot]]}
            for slot, (name, kind) in enumerate(node.outputs)
        ]
        values = []
        for name, spec in input_specs(self._info[node.kind]):
            if is_widget(spec):
                value = node.links[name].value if name in node.links else node.values[name]
                values.append(default(spec) if value is None else value)
                if has_control(name, spec):
                    values.append(node.control)
        properties = {"Node name for S&R": node.kind}
        if models := [{"name": value, **self._files[value]} for value in values if value in self._files]:
            properties["models"] = models
        written = {
            "id": node.id, "type": node.kind, "pos": list(node.pos), "size": list(node.size), "flags": {}, "order": order,
            "mode": 0, "inputs": inputs, "outputs": outputs, "properties": properties, "widgets_values": values,
        }  # fmt: skip
        return written | ({"title": node.title} if node.title else {})


def input_specs(info: dict) -> list[tuple[str, list]]:
    """(name, specification) of a node's inputs in the order of its widgets, without those that only show something."""
    kinds = [info["input"].get(part, {}) for part in ("required", "optional")]
    return [(name, spec) for part in kinds for name, spec in part.items() if not options(spec).get("socketless")]


def options(spec: list) -> dict:
    """The second half of a specification."""
    return spec[1] if len(spec) > 1 else {}


def kind_of(spec: list) -> str:
    """The input's type; older nodes give a combo's values instead of its name."""
    return "COMBO" if isinstance(spec[0], list) else spec[0]


def is_widget(spec: list) -> bool:
    """Whether the frontend makes a widget of it."""
    return kind_of(spec) in WIDGETS and not options(spec).get("forceInput")


def has_control(name: str, spec: list) -> bool:
    """Whether the frontend puts a "control after generate" widget behind it."""
    chosen = options(spec).get("control_after_generate")
    return kind_of(spec) == "INT" and bool(name in ("seed", "noise_seed") if chosen is None else chosen)


def default(spec: list):
    """What the widget holds in a new node."""
    choices = spec[0] if isinstance(spec[0], list) else options(spec).get("options")
    if "default" in options(spec):
        return options(spec)["default"]
    if kind_of(spec) == "COMBO":
        return choices[0] if choices else ""
    return {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}[kind_of(spec)]
