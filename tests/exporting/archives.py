"""What the tests of torch's own archives share: an example, a network of any output, and looks at what is stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vfconvert.nn import VersatileConv2d

IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
METADATA = {"producer": "vfconvert", "plan": 'é "quoted"'}
LAYERS = 7  # of the network that is exported


class Returning(nn.Module):
    """One convolution, and whatever is made of its output; it writes into its input."""

    def __init__(self, make: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.conv, self.make = nn.Conv2d(3, 4, 3), make

    def forward(self, x: Tensor) -> object:
        return self.make(self.conv(x.mul_(0.5)))


def state_of(model: nn.Module) -> list[tuple]:
    """Modes, attributes and tensors, each with whether it wants gradients."""
    modes = [(name, module.training, sorted(vars(module))) for name, module in model.named_modules()]
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return modes + [(name, id(t), t.requires_grad, t.tolist()) for name, t in tensors]


def bytes_of(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


def assert_stored_once(path: Path, stored: Sequence[bytes], lowered: nn.Module, original: nn.Module) -> None:
    """The archive at `path` holds every tensor of `lowered` once, the bank of each layer and no expanded weight."""
    tensors = (*lowered.parameters(), *lowered.buffers())
    weights = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
    assert sum(map(len, stored)) <= weights + 256, "more than the weights and the numbers of the graph"
    assert path.stat().st_size <= weights + LAYERS * 24 * 1024, "too large a file"
    for layer in original.modules():
        if isinstance(layer, VersatileConv2d):
            assert len(bytes_of(layer.weight)) in map(len, stored), "a bank is missing"
            assert bytes_of(layer.expanded_weight()) not in stored, "an expanded weight"


def assert_banks_kept(stored: Sequence[bytes], model: nn.Module) -> None:
    """The bank of each layer is stored once, as it is, and no expanded weight."""
    for layer in model.modules():
        if isinstance(layer, VersatileConv2d):
            assert stored.count(bytes_of(layer.weight)) == 1, "a bank is missing or stored again"
            assert bytes_of(layer.expanded_weight()) not in stored, "an expanded weight"
