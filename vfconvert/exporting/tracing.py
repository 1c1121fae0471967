"""A network as a `torch.export` graph that takes its versatile weights as inputs instead of making them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.exporting.attention import FourDimensionalAttention
from vfconvert.exporting.outputs import named_outputs
from vfconvert.nn import VersatileConv2d
from vfconvert.nn.several_inputs import opened

NETWORK_PREFIX = "network."  # of every name in the traced graph: the attribute that holds the network


@dataclass(frozen=True, kw_only=True, slots=True)
class Traced:
    """The graph; its inputs are the images (as many as `inputs`), then the weight of each of `layers` in order.

    The modules in `layers` are those of the traced network itself, by name; a shared one stands once.
    """

    program: torch.export.ExportedProgram
    layers: tuple[tuple[str, VersatileConv2d], ...]
    inputs: int
    output_names: tuple[str, ...]


def trace(model: nn.Module, example: Tensor, *, dynamic_batch: bool, dynamic_size: bool = False) -> Traced:
    """Trace `model` in eval mode on `example` `(B, C, H, W)`; the model itself is neither changed nor copied.

    One of several inputs is traced with each of them by itself.

    Raises whatever `torch.export` raises, for one where `dynamic_batch` is wanted of a network that computes with the
    very number of images.
    """
    layers = versatile_layers(model)
    names: list[str] = []

    def note_names(found: list[str]) -> None:  # kept out here, since torch.export restores a module's own attributes
        names[:] = found

    if dynamic_batch and example.shape[0] == 1:
        example = example.repeat(2, 1, 1, 1)  # a size of one is never traced as a variable
    twin, images = opened(twin_of(model), example)
    open_network = OpenNetwork(twin, note_names)
    weights = [_placeholder(layer) for _, layer in layers]
    sizes: dict[int, Any] = {0: torch.export.Dim("batch")} if dynamic_batch else {}
    if dynamic_size:  # a network may ask for multiples of something; then the symbols are torch's own
        sizes |= {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    shapes: Any = ([sizes] * len(images), [None] * len(weights)) if sizes else None
    with torch.no_grad():
        program = torch.export.export(open_network, (list(images), weights), dynamic_shapes=shapes, strict=False)
    return Traced(program=program, layers=layers, inputs=len(images), output_names=tuple(names))


def versatile_layers(model: nn.Module) -> tuple[tuple[str, VersatileConv2d], ...]:
    """Every versatile layer by its name; a shared one stands once."""
    return tuple((name, layer) for name, layer in model.named_modules() if isinstance(layer, VersatileConv2d))


def twin_of(model: nn.Module) -> nn.Module:
    """The network in eval mode as new modules on the same tensors."""
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).eval()


class OpenNetwork(nn.Module):
    """The network with its versatile weights as arguments and its outputs as a flat tuple."""

    def __init__(self, network: nn.Module, note_names: Callable[[list[str]], None]) -> None:
        super().__init__()
        self.network = network
        self._note_names = note_names
        self._slots = [_Slot(layer) for layer in network.modules() if isinstance(layer, VersatileConv2d)]

    def forward(self, images: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Each input `(B, C, H, W)`, and one weight `(N, C/G, kh, kw)` for each versatile layer."""
        return self._tensors(self._run(images, weights))

    def _run(self, images: Sequence[Tensor], weights: Sequence[Tensor]) -> Any:
        for slot, weight in zip(self._slots, weights, strict=True):
            slot.weight = weight
        with FourDimensionalAttention():
            return self.network(*images)

    def _tensors(self, output: Any) -> tuple[Tensor, ...]:
        outputs = named_outputs(output)
        self._note_names([name for name, _ in outputs])
        return tuple(tensor for _, tensor in outputs)


class _Slot:
    """Where a layer of the twin finds the weight that was handed in."""

    def __init__(self, layer: VersatileConv2d) -> None:
        self.weight: Tensor = layer.weight
        vars(layer)["expanded_weight"] = lambda: self.weight


def _placeholder(layer: VersatileConv2d) -> Tensor:
    """A tensor of the expanded weight's shape that takes no memory."""
    return layer.weight.new_zeros(()).expand(layer.geometry.out_channels, *layer.weight.shape[1:])
