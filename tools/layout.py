"""Where nodes, groups and the note of a workflow stand, in pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

TITLE = 30  # a node's title stands above its place
WIDTH, GAP, PADDING, HEADER, NOTE_WIDTH = 320, 40, 30, 50, 460
GROUP_COLOUR = "#3f789e"


@dataclass
class Node:
    """A placed node; `node["name"]` or `node[0]` is one of its outputs, to be given to another's input."""

    id: int
    kind: str
    outputs: list[tuple[str, str]]
    values: dict
    links: dict
    size: tuple[int, int]
    title: str | None = None
    control: str = "fixed"
    pos: tuple[int, int] = (0, 0)

    def __getitem__(self, output: str | int) -> Output:
        if isinstance(output, str):
            output = [name for name, _ in self.outputs].index(output)
        return Output(self, output)


@dataclass(frozen=True)
class Output:
    """One output of a node. value: what a widget that it is linked to holds; None: the widget's default."""

    node: Node
    slot: int
    value: object = None


@dataclass
class Column:
    """Nodes below each other. drop: how much lower than the group's others it begins."""

    drop: int = 0
    nodes: list[Node] = field(default_factory=list)


@dataclass
class Group:
    """A box with a title around columns of nodes. below: it stands below the group before, not beside it."""

    title: str
    row: int
    below: bool = False
    columns: list[Column] = field(default_factory=lambda: [Column()])


def lay_out(groups: list[Group], rows: int) -> list[dict]:
    """Give every node its place; the groups' boxes as the file has them."""
    placed, top = [], 0
    for row in range(rows):
        left, bottom = NOTE_WIDTH + GAP, top
        for stack in _stacks(group for group in groups if group.row == row):
            y, boxes = top, []
            for group in stack:
                width, height = _place(group, left, y)
                boxes.append([left, y, width, height])
                y += height + GAP
            widest = max(box[2] for box in boxes)
            placed += [(group.title, [*box[:2], widest, box[3]]) for group, box in zip(stack, boxes, strict=True)]
            left, bottom = left + widest + GAP, max(bottom, y - GAP)
        top = bottom + GAP
    return [
        {"id": number, "title": title, "bounding": box, "color": GROUP_COLOUR, "font_size": 24, "flags": {}}
        for number, (title, box) in enumerate(placed, 1)
    ]


def _stacks(groups) -> list[list[Group]]:
    """Groups that stand below each other, together."""
    stacks = []
    for group in groups:
        if group.below and stacks:
            stacks[-1].append(group)
        else:
            stacks.append([group])
    return stacks


def _place(group: Group, left: int, top: int) -> tuple[int, int]:
    """Places of the nodes of a group whose corner is given; its width and height."""
    x, lowest = left + PADDING, top
    for column in group.columns:
        y = top + HEADER + TITLE + column.drop
        for node in column.nodes:
            node.pos = (x, y)
            y += node.size[1] + TITLE + GAP
        lowest = max(lowest, y - TITLE - GAP + PADDING)
        x += WIDTH + GAP
    return x - GAP + PADDING - left, lowest - top


def note_height(text: str) -> int:
    """Pixels that a note of `NOTE_WIDTH` needs, about."""
    return 60 + sum(24 * max(math.ceil(len(line) / 64), 1) for line in text.splitlines())
