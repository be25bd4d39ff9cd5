"""One forward pass through a model's transformer blocks: measured, or replaced by what was measured.

Works through ComfyUI's block replacements (transformer_options["patches_replace"]["dit"]) without knowing any model: a
model calls the replacement of ("double_block", i) or ("single_block", i) with the block's inputs by name and takes its
outputs by name. The blocks of one name form a group. The group's residual is the output of its last block minus the input
of its first, for every tensor that both have. Embedders and output head still run, at the present noise level.

A replayed group ends in its own first input + residual, not in what reached its last block + residual: what a model adds
between its blocks (ControlNet, VACE) is part of the residual already.
"""

from functools import partial
from typing import NamedTuple

import torch

from .between_blocks import BetweenBlocks

NAMES = ("double_block", "single_block")
MOST_BLOCKS = 200  # of one name

Residuals = dict[tuple[str, str], torch.Tensor]  # by group and tensor, in the model's dtype, on its device


def with_blocks(transformer_options: dict, blocks: "Capture | Replay") -> dict:
    """A copy of `transformer_options` in which `blocks` stands for every block, other nodes' replacements within it."""
    replace = transformer_options.get("patches_replace", {})
    others = replace.get("dit", {})
    keys = ((name, i) for name in NAMES for i in range(MOST_BLOCKS))
    offered = {key: partial(blocks.block, key, others.get(key)) for key in keys}
    return transformer_options | {"patches_replace": replace | {"dit": others | offered}}


class Group(NamedTuple):
    """The blocks of one name: the last one's key, its outputs' names, and those of them that have a residual."""

    last: tuple[str, int] | None = None
    outputs: tuple[str, ...] = ()
    moving: tuple[str, ...] = ()


class Capture:
    """A forward pass in full that measures the residual of every group; a context manager around it.

    known: the groups of an earlier pass of this model, or {}. batch: size of dimension 0 that block tensors must have, for
    residuals to be parted by conditioning; None where there is one only.
    """

    def __init__(self, known: dict[str, Group], batch: int | None):
        self.groups: dict[str, Group] = {}
        self.residuals: Residuals = {}
        self._known, self._batch = known, batch
        self._first: dict[str, torch.Tensor] = {}
        self._called = []
        self._problem = ""
        self._between = BetweenBlocks()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._between.close()

    def block(self, key, other, args, extra):
        """Stands for the block `key`, which another node's replacement `other` may stand for as well."""
        name = key[0]
        known = self._known.get(name)
        if name not in self.groups:
            self.groups[name] = Group()
            # A copy, because models write into it. Which tensors come out again is known from the second pass on.
            names = known.outputs if known else [n for n, v in args.items() if torch.is_tensor(v)]
            self._first = {n: args[n].clone() for n in names if torch.is_tensor(args.get(n))}
        self._between.enter()
        out = other(args, extra) if other else extra["original_block"](args)
        self._called.append(key)
        if not known or key == known.last:
            self._measure(key, args, out)
        self._between.leave([out[n] for n in (known or self.groups[name]).moving])
        return out

    def finish(self) -> str:
        """Why the residuals cannot be used, or ""; to be asked for when the pass is over."""
        self.residuals = {(name, n): self.residuals[name, n] for name, group in self.groups.items() for n in group.moving}
        names = [name for name, _ in self._called]
        if not self._called:
            return "this model offers no replaceable transformer blocks"
        if len(set(self._called)) < len(self._called) or names != sorted(names, key=list(self.groups).index):
            return "this model calls its blocks in an order that cannot be replayed"
        if self._known and {n: g.last for n, g in self.groups.items()} != {n: g.last for n, g in self._known.items()}:
            return "this model does not call the same blocks every time"
        for name, group in self.groups.items():
            if not group.moving and not self._problem:  # what comes out may be what went in, written over
                return f'nothing that the "{name}" give out is like what they take'
        return self._problem or self._between.problem

    def _measure(self, key, args, out) -> None:
        moving = []
        for n, v in out.items():
            first = self._first.get(n)
            parted = self._batch is None or torch.is_tensor(v) and len(v) == self._batch
            if torch.is_tensor(v) and first is not None and v.shape == first.shape and parted:
                moving.append(n)
            elif v is not None and v is not args.get(n):  # SD3's last block has no text; replacements return other inputs
                self._problem = f'the blocks\' output "{n}" has no input like it'
        self.groups[key[0]] = Group(key, tuple(out), tuple(moving))
        # On a first pass any block may be the last: its residual replaces the one before.
        self.residuals |= {(key[0], n): out[n] - self._first[n] for n in moving}


class Replay:
    """A forward pass without blocks: each group's last gives first input + residual, the others hand their inputs on.

    kept: the residuals for each conditioning of the batch.
    """

    def __init__(self, groups: dict[str, Group], kept: list[Residuals]):
        self._groups, self._kept = groups, kept
        self._ends: dict[str, dict[str, torch.Tensor]] = {}

    def block(self, key, other, args, extra):
        """Stands for the block `key`; another node's replacement is part of the residual."""
        group = self._groups[key[0]]
        if key[0] not in self._ends:  # now, since what is handed on may be written to
            self._ends[key[0]] = {n: self._moved((key[0], n), args[n]) for n in group.moving}
        ends = self._ends[key[0]] if key == group.last else {}
        return {n: ends.get(n, args.get(n)) for n in group.outputs}

    @property
    def reached(self) -> bool:
        """Whether the pass came to the blocks at all."""
        return bool(self._ends)

    def _moved(self, place, tensor):
        moved = tensor.clone()
        for chunk, residuals in zip(moved.chunk(len(self._kept)), self._kept, strict=True):
            chunk += residuals[place].to(chunk.device)  # with several GPUs a conditioning may change places
        return moved
