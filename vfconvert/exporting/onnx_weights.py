"""The weight of a versatile convolution as ONNX nodes over one stored bank.

The same computation as `vfconvert.ops.expand.expand`: every masked copy of the bank is a Slice and a zero Pad, the
copies are concatenated (of windows first, then the crops of those), and output `o` gathers its row, times its scale.
All inputs are constants, so that a runtime folds the nodes away when it loads the file, while the file holds
the bank once and no mask.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vfconvert.exporting.onnx_compact import names_read, names_written
from vfconvert.nn import VersatileConv2d

if TYPE_CHECKING:
    import onnx

_Mask = dict[int, tuple[int, int, int]]  # axis of the bank -> start and stop of what is kept, size of the axis


def insert_weights_(graph: onnx.GraphProto, layers: Mapping[str, tuple[str, VersatileConv2d]]) -> None:
    """Compute every value in `layers` that the graph reads from the bank of its layer; in place.

    `layers` are the versatile layers, with their names, by the names of the values that stand for their weights.
    """
    weights = WeightGraph(taken=names_written(graph) | set(layers))
    read = names_read(graph)
    for value, (name, layer) in layers.items():
        if value in read:
            weights.add(name, layer, value)
    nodes = [*weights.nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights.initializers)


@dataclass(kw_only=True)
class WeightGraph:
    """Nodes and initializers under construction; constants and banks that are equal are stored once.

    `taken` holds every name that the graph has already, and grows.
    """

    taken: set[str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _constants: dict[tuple[int, ...], str] = field(default_factory=dict)
    _tensors: dict[int, str] = field(default_factory=dict)
    _held: list[Tensor] = field(default_factory=list)  # so that no other tensor takes the identity of one stored

    def add(self, layer: str, module: VersatileConv2d, output: str) -> None:
        """Compute the `(N, C/G, kh, kw)` weight of `module` as the value `output`; `layer` names its tensors."""
        spec = module.spec
        _, channels, kh, kw = module.weight.shape
        prefix = f"{layer}." if layer else ""
        bank = self._tensor(f"{prefix}weight", module.weight)
        windows = [{1: (window.start, window.stop, channels)} for window in spec.channel_windows(channels)]
        crops = [{2: (crop.top, crop.bottom, kh), 3: (crop.left, crop.right, kw)} for crop in spec.crops]
        # Crops of all windows at once: the rows lie crop after crop, window after window within.
        stack = self._copies(self._copies(bank, windows), crops)
        # int32, not int64: the rows are N numbers of every layer, and the file should shrink as the parameters do.
        rows = self._tensor(f"{prefix}rows", module.rows, dtype=torch.int32)
        steps: list[tuple[str, str, int | None]] = [("Gather", rows, 0)]
        if module.order is not None:
            steps.append(("Gather", self._tensor(f"{prefix}order", module.order.argsort(), dtype=torch.int32), 1))
        if module.scale is not None:
            steps.append(("Mul", self._tensor(f"{prefix}scale", module.scale, shape=(-1, 1, 1, 1)), None))
        value = stack
        for index, (kind, constant, axis) in enumerate(steps):
            last = output if index == len(steps) - 1 else None
            value = self._node(kind, [value, constant], last, axis=axis)

    def _copies(self, bank: str, masks: list[_Mask]) -> str:
        """The masked copies of a bank, one after the other: `(P, …) -> (len(masks) * P, …)`."""
        copies = [self._masked(bank, mask) for mask in masks]
        return copies[0] if len(copies) == 1 else self._node("Concat", copies, axis=0)

    def _masked(self, bank: str, mask: _Mask) -> str:
        """`M ∘ F` for every primary: cut the axes that the mask cuts, and pad them with zeros."""
        cut = {axis: ends for axis, ends in mask.items() if ends[:2] != (0, ends[2])}
        if not cut:
            return bank
        axes = self._constant(*cut)
        starts = [start for start, _, _ in cut.values()]
        stops = self._constant(*(stop for _, stop, _ in cut.values()))
        after = [size - stop for _, stop, size in cut.values()]
        piece = self._node("Slice", [bank, self._constant(*starts), stops, axes])
        return self._node("Pad", [piece, self._constant(*starts, *after), "", axes])

    def _node(self, kind: str, inputs: list[str], output: str | None = None, *, axis: int | None = None) -> str:
        from onnx import helper

        output = output or self._fresh("e")
        self.nodes.append(helper.make_node(kind, inputs, [output], axis=axis))  # None: no such attribute
        return output

    def _constant(self, *numbers: int) -> str:
        """The name of an int64 vector; equal vectors of all layers are one initializer."""
        if numbers not in self._constants:
            self._constants[numbers] = self._store(self._fresh("c"), np.array(numbers, dtype=np.int64))
        return self._constants[numbers]

    def _tensor(
        self, name: str, tensor: Tensor, *, shape: tuple[int, ...] | None = None, dtype: torch.dtype | None = None
    ) -> str:
        """The name of a stored tensor, in this shape and type; a tensor that two layers share is stored once."""
        if id(tensor) not in self._tensors:
            stored = tensor.detach().to("cpu", dtype).reshape(shape or tensor.shape).contiguous()
            if name in self.taken:
                name = self._fresh(f"{name}_")
            self.taken.add(name)
            self._tensors[id(tensor)] = self._store(name, stored.numpy())
            self._held.append(tensor)
        return self._tensors[id(tensor)]

    def _store(self, name: str, array: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def _fresh(self, prefix: str) -> str:
        name = next(name for number in self._numbers if (name := f"{prefix}{number}") not in self.taken)
        self.taken.add(name)
        return name
