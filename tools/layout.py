"""Where nodes, groups and the note of a workflow stand, in pixels."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

TITLE = 30  # a node's title stands above its place
WIDTH, GAP, PADDING, HEADER, NOTE_WIDTH = 250, 40, 27, 44, 370
GROUP_COLOUR = "#3f789e"


@dataclass
class Node:
    """A placed node; `node["name"]` or `node[0]` is one of its outputs, to be given to another's input.

    above: pixels that are left free above it, beside the usual ones.
    """

    id: int
    kind: str
    outputs: list[tuple[str, str]]
    values: dict
    links: dict
    size: tuple[int, int]
    title: str | None = None
    control: str = "fixed"
    above: int = 0
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
    """Nodes below each other. drop: how much lower than the group's others it begins. width: of its nodes."""

    drop: int = 0
    width: int = WIDTH
    nodes: list[Node] = field(default_factory=list)


@dataclass
class Group:
    """A box with a title around columns of nodes.

    below: it stands below the group before, not beside it. drop: how much lower it begins. left: how much room for wires is
    left before it, beside the usual one.
    """

    title: str
    row: int
    below: bool = False
    drop: int = 0
    left: int = 0
    columns: list[Column] = field(default_factory=lambda: [Column()])


def lay_out(groups: list[Group], rows: int, start: int = NOTE_WIDTH + GAP) -> list[dict]:
    """Give every node its place, the first ones from `start` on; the groups' boxes as the file has them."""
    boxes, top = [], 0
    for row in range(rows):
        left, bottom = start, top
        for stack in _stacks(group for group in groups if group.row == row):
            widest, y = max(map(_width, stack)), top
            left += stack[0].left
            for group in stack:
                x = left + widest - _width(group)  # to the right, from where the wires go on
                y += group.drop
                height = _place(group, x, y)
                boxes.append((group.title, [x, y, _width(group), height]))
                y += height + GAP
            left, bottom = left + widest + GAP, max(bottom, y - GAP)
        top = bottom + GAP
    return [
        {"id": number, "title": title, "bounding": box, "color": GROUP_COLOUR, "font_size": 24, "flags": {}}
        for number, (title, box) in enumerate(boxes, 1)
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


def _width(group: Group) -> int:
    return sum(column.width + GAP for column in group.columns) - GAP + 2 * PADDING


def _place(group: Group, left: int, top: int) -> int:
    """Places of the nodes of a group whose corner is given; its height."""
    x, lowest = left + PADDING, top
    for column in group.columns:
        y = top + HEADER + TITLE + column.drop
        for node in column.nodes:
            y += node.above
            node.pos, node.size = (x, y), (column.width, node.size[1])
            y += node.size[1] + TITLE + GAP
        lowest = max(lowest, y - TITLE - GAP + PADDING)
        x += column.width + GAP
    return lowest - top


def note_height(text: str, line_height: int, width: int) -> int:
    """Pixels that a note of that width needs, about; links show their text only."""
    lines = re.sub(r"\]\([^)]*\)", "", text).splitlines()
    return 60 + sum(line_height * max(math.ceil(len(line) * 7.2 / width), 1) for line in lines)
