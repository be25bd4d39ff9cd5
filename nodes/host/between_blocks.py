"""What runs between a model's transformer blocks: a replay of the blocks would run it all the same.

Such are the networks that ride along with a model (VACE, Uni3C, blockwise ControlNets of Qwen-Image): each block is followed
by one of theirs. A skipped step replays the blocks once for each evaluation that it weights, so that it would run them
several times.
"""

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

OF_A_BLOCK = 12  # multiplications of a transformer block, in squares of its width a token: 4 by its attention, 8 by its MLP
LITTLE = 0.05  # of the blocks' own work
PROBLEM = "networks between its blocks (VACE, a ControlNet, ...) would have to run on every skipped step"


class BetweenBlocks:
    """Counts multiplications by matrices of what runs after one block and before another, in one forward pass.

    Every module of the process is listened to in between, never within a block: what is compiled there knows nothing of it.
    """

    def __init__(self):
        self._blocks = self._between = self._since = 0
        self._hook = None

    def enter(self) -> None:
        """A block begins."""
        self.close()
        self._between += self._since

    def leave(self, outputs: list[torch.Tensor]) -> None:
        """A block has ended. outputs: [..., width], of the tensors that it moves."""
        self._blocks += sum(OF_A_BLOCK * tensor.numel() * tensor.shape[-1] for tensor in outputs)
        self._since = 0
        self._hook = register_module_forward_pre_hook(self._count)

    def close(self) -> None:
        """Stop listening: what comes after the last block is no matter."""
        if self._hook:
            self._hook.remove()
        self._hook = None

    @property
    def problem(self) -> str:
        """Why the blocks had better not be replayed, or ""."""
        return PROBLEM if self._between > LITTLE * self._blocks else ""

    def _count(self, module, inputs) -> None:
        width = getattr(module, "out_features", None)
        if isinstance(width, int) and inputs and torch.is_tensor(inputs[0]):
            self._since += inputs[0].numel() * width
