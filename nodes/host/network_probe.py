"""Whether the network really ran in an evaluation: what wrappers, guiders and other caches make of a call is not told.

Counted are the latents that reach the model (those of both prompts of guidance) and the transformer blocks that they go
through. Another cache leaves out all blocks or some of them, a guider may leave out the call, and guidance with a range of
its own hands over more latents in one evaluation than in the next.
"""

from collections.abc import Iterator

from torch import nn


class NetworkProbe:
    """Counts what reaches a network in each evaluation, which `begin` announces.

    rows: latents handed to the model, over all its passes, 0 where it was not called. work: the blocks that these went
    through, a sum over rows; None where blocks cannot be counted (none was ever seen to run, or they are compiled). Neither
    depends on how ComfyUI splits an evaluation into passes. The hooks that count lie on the shared network until `close`.
    """

    def __init__(self):
        self.rows = 0
        self._work = 0
        self._batch = 0  # of the pass under way
        self._counts = False
        self._handles: list = []

    def watch(self, network: nn.Module) -> None:
        """Count the blocks of `network`, unless hooks would be compiled with it."""
        if not any(compiled(module) for module in network.modules()):
            self._handles = [block.register_forward_pre_hook(self._enter) for block in blocks_of(network)]

    def begin(self) -> None:
        """The next evaluation begins."""
        self.rows = self._work = 0

    @property
    def ran(self) -> bool:
        """Whether the network ran in this evaluation, if only a part of it."""
        return self.rows > 0 and self.work != 0

    @property
    def work(self) -> int | None:
        """See the class."""
        return self._work if self._counts else None

    def apply_model(self, executor, x, *args, **kwargs):
        """One pass of the model over `x` [b, ...]: an APPLY_MODEL wrapper."""
        self.rows += len(x)
        self._batch = len(x)
        return executor(x, *args, **kwargs)

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _enter(self, *_) -> None:
        self._counts = True
        self._work += self._batch


def blocks_of(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost members of the lists that `module` holds; those of a UNet are sequences, which it does not call."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from members(child)
        else:
            yield from blocks_of(child)


def members(container: nn.Module) -> Iterator[nn.Module]:
    """What `container` holds, sequences and lists within it opened."""
    for child in container.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            yield from members(child)
        else:
            yield child


def compiled(module: nn.Module) -> bool:
    """Whether torch.compile stands for `module`, or for its calls."""
    return "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None
