"""Subgraph blueprints as ComfyUI's frontend writes them: one node whose definition holds the graph inside.

    s = Subgraph("name", info, description, category)
    with s.group("Describe"):
        text = s.add("CLIPTextEncode", clip=s.input("clip", "CLIP"), text=s.input("prompt", "STRING", "a red house"))
    s.output("conditioning", text["CONDITIONING"])

An input that goes to a widget becomes a widget of the node, an input that goes to a socket a socket. What happens to a seed
after a run is a widget where the frontend can show that of an inner node.
"""

from __future__ import annotations

import uuid

from .layout import WIDTH, Node, Output, lay_out
from .litegraph import SLOT, STRIPS, TEXT, Workflow, has_control, input_specs, is_widget

INSIDE, OUTSIDE = -10, -20  # the ids that the frontend gives to a subgraph's own inputs and outputs
EDGE = 160  # pixels
REPORTS = ("OTCachedSampler", "OTApplyCache", "OTAutoCache")


class Subgraph(Workflow):
    """`Workflow` with inputs and outputs; see the module."""

    def __init__(self, name: str, info: dict, description: str, category: str):
        super().__init__(name, info, note="")
        self._description, self._category = description, category
        self._entry = Node(INSIDE, "", [], {}, {}, (EDGE, 0))
        self._exits: list[tuple[str, Output]] = []

    def input(self, name: str, kind: str, value: object = None) -> Output:
        """A new input of a link type; value: what its widget holds at first."""
        self._entry.outputs.append((name, kind))
        return Output(self._entry, len(self._entry.outputs) - 1, value)

    def output(self, name: str, source: Output) -> None:
        """A new output that gives what `source` gives."""
        self._exits.append((name, source))

    def graph(self) -> dict:
        """The whole file as a dict."""
        links = self._links()
        sockets, widgets = self._promoted(links)
        outputs = [{"name": name, "type": source.node.outputs[source.slot][1]} for name, source in self._exits]
        links += [[len(links) + slot + 1, source.node.id, source.slot, OUTSIDE, slot, outputs[slot]["type"]]
                  for slot, (_, source) in enumerate(self._exits)]  # fmt: skip
        definition = self._definition(links, outputs)
        outer = {
            "id": 1, "type": definition["id"], "pos": [0, 0], "size": [WIDTH + 80, self._height(sockets)],
            "flags": {}, "order": 0, "mode": 0, "inputs": [entry | {"link": None} for entry in sockets],
            "outputs": [entry | {"links": []} for entry in outputs], "title": self.name,
            "properties": {"proxyWidgets": widgets}, "widgets_values": [],
        }  # fmt: skip
        return {
            "revision": 0, "last_node_id": 1, "last_link_id": 0, "nodes": [outer], "links": [], "version": 0.4,
            "definitions": {"subgraphs": [definition]}, "extra": {},
        }  # fmt: skip

    def _definition(self, links: list[list], outputs: list[dict]) -> dict:
        """The inside: its own inputs on the left, the nodes in their groups, its own outputs on the right."""
        boxes = lay_out(self._groups, self._row + 1)
        nodes = [self._node(order, node, links) for order, node in enumerate(self._nodes)]
        inputs = [{"name": name, "type": kind} for name, kind in self._entry.outputs]
        left = min(box["bounding"][0] for box in boxes)
        right = max(box["bounding"][0] + box["bounding"][2] for box in boxes)
        return {
            "id": self._uuid("definition"), "version": 1, "revision": 0, "config": {}, "name": self.name,
            "state": {"lastGroupId": len(boxes), "lastNodeId": len(nodes) + 1, "lastLinkId": len(links), "lastRerouteId": 0},
            "inputNode": {"id": INSIDE, "bounding": [left - 2 * EDGE, 0, EDGE, 20 * len(inputs) + 40]},
            "outputNode": {"id": OUTSIDE, "bounding": [right + EDGE, 0, EDGE, 20 * len(outputs) + 40]},
            "inputs": [{"id": self._uuid(f"input {entry['name']}"), **entry,
                        "linkIds": [link[0] for link in links if link[1:3] == [INSIDE, slot]]}
                       for slot, entry in enumerate(inputs)],
            "outputs": [{"id": self._uuid(f"output {entry['name']}"), **entry,
                         "linkIds": [link[0] for link in links if link[3:5] == [OUTSIDE, slot]]}
                        for slot, entry in enumerate(outputs)],
            "widgets": [], "nodes": nodes, "groups": boxes,
            "links": [dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"), link, strict=True))
                      for link in links],
            "extra": {}, "category": self._category, "description": self._description,
        }  # fmt: skip

    def _promoted(self, links: list[list]) -> tuple[list[dict], list[list[str]]]:
        """The node's sockets, one for each input, and [inner node, widget] of those that are widgets."""
        sockets, widgets = [], []
        nodes = {node.id: node for node in self._nodes}
        for slot, (name, kind) in enumerate(self._entry.outputs):
            sockets.append({"name": name, "type": kind})
            for _, _, _, target, target_slot, _ in (link for link in links if link[1:3] == [INSIDE, slot]):
                node = nodes[target]
                inner = self._inputs(node)[target_slot]["name"]
                spec = dict(input_specs(self._info[node.kind]))[inner]
                if is_widget(spec):
                    sockets[-1]["widget"] = {"name": name}
                    widgets.append([str(target), inner])
                    if has_control(inner, spec):
                        widgets.append([str(target), "control_after_generate"])
        return sockets, widgets

    def _height(self, sockets: list[dict]) -> int:
        """The outer node's: its inputs, and the report of each run inside."""
        return 26 + sum(map(_height, sockets)) + sum(STRIPS[node.kind] for node in self._nodes if node.kind in REPORTS)

    def _uuid(self, part: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"otcache/{self.name}/{part}"))


def _height(socket: dict) -> int:
    return TEXT if "widget" in socket and socket["type"] == "STRING" else SLOT
