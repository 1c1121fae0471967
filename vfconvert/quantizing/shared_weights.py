"""Filters that are cut out of one bank, stored in eight bits as that bank.

A converted layer that is computed as an ordinary convolution has the weight `W_o = b_o M_o ∘ F_p`: output `o` is
primary `p(o)` under a mask, by a factor in which its scale and the norm that follows are. With `F_p = S_p Q_p`, one
scale a primary, `q_o = ±M_o ∘ Q_p` are whole numbers again and `|b_o| S_p` is the scale of the output: so the file
holds `Q` once, and the runtime makes the weight of it when it loads the file, which then runs as if it were stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from vfconvert.exporting.onnx_compact import fresh_names, names_written
from vfconvert.nn import VersatileConv2d
from vfconvert.ops.expand import expand

if TYPE_CHECKING:
    import onnx

_LARGEST = 64  # of a whole number, as of all weights: see `vfconvert.quantizing.eight_bits`
_EXACT = 1e-4  # of the largest weight of an output, by which it may differ from its share of the bank

Array = NDArray[Any]


def share_(quantized: onnx.ModelProto, folded: onnx.ModelProto, layers: Sequence[VersatileConv2d]) -> None:
    """Store the weights of these layers in `quantized` as their banks, where that takes fewer bytes; in place.

    `folded` is the file in float32 that was quantized, with every weight one tensor. A weight that is none of the
    layers' stays as it is.
    """
    from onnx import numpy_helper

    floats = {tensor.name: tensor for tensor in folded.graph.initializer}
    for name in dict.fromkeys(node.input[1] for node in folded.graph.node if node.op_type == "Conv"):
        if name not in floats:
            continue
        weight = numpy_helper.to_array(floats[name])
        found = next((one for layer in layers if (one := _Shared.of(weight, layer)) is not None), None)
        if found is not None:
            _store_(quantized.graph, name, found)


@dataclass(frozen=True, eq=False)
class _Shared:
    """A weight as its bank in eight bits, `whole` `(P, C, kh, kw)`.

    Of every output `(N,)`: its scale, the row that it is, and whether it is the negative of that.
    """

    layer: VersatileConv2d
    whole: Array
    scales: Array
    rows: Array
    negative: Array

    @classmethod
    def of(cls, weight: Array, layer: VersatileConv2d) -> _Shared | None:
        """The weight `(N, C, kh, kw)` by the layer whose it is; None where it is not this one's."""
        filters = layer.weight.detach().cpu()
        if weight.shape != (layer.geometry.out_channels, *filters.shape[1:]):
            return None
        rows = layer.rows.cpu()
        cut = expand(filters, layer.spec, rows).double()
        given = torch.from_numpy(weight.astype(np.float64))
        if layer.order is not None:
            given = given.index_select(1, layer.order.cpu())
        factor = (given * cut).sum((1, 2, 3)) / cut.square().sum((1, 2, 3)).clamp_min(1e-30)
        off = (given - factor.view(-1, 1, 1, 1) * cut).abs().amax((1, 2, 3))
        if bool((off > _EXACT * given.abs().amax((1, 2, 3))).any()):
            return None
        largest = filters.double().abs().amax((1, 2, 3))
        step = torch.where(largest > 0, largest, 1) / _LARGEST
        scales = factor.abs() * step[rows % len(filters)]
        return cls(
            layer,
            (filters / step.view(-1, 1, 1, 1)).round().to(torch.int8).numpy(),
            scales.clamp_min(torch.finfo(torch.float32).tiny).float().numpy(),
            rows.numpy(),
            (factor < 0).numpy(),
        )


def _store_(graph: onnx.GraphProto, name: str, shared: _Shared) -> None:
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    made = {output: node for node in graph.node for output in node.output}
    readers = (node for node in graph.node if node.op_type == "DequantizeLinear")
    reader = next((node for node in readers if node.input[0] == f"{name}_quantized"), None)
    if reader is None or not {reader.input[0], reader.input[1]} <= tensors.keys():
        return
    stored, scale = tensors[reader.input[0]], tensors[reader.input[1]]
    (prefix,) = fresh_names("b", 1, {known.partition(".")[0] for known in names_written(graph)})
    nodes, held = _expansion(shared, stored.name, prefix)
    if sum(node.ByteSize() for node in nodes) + sum(tensor.ByteSize() for tensor in held) >= stored.ByteSize():
        return
    before = numpy_helper.to_array(scale)
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] == reader.output[0] and len(node.input) > 2:
            _rescale_bias_(made[node.input[2]], tensors, shared.scales / before)
    scale.CopyFrom(numpy_helper.from_array(shared.scales, scale.name))
    graph.initializer.remove(stored)
    graph.initializer.extend(held)
    for index, node in enumerate(nodes):
        graph.node.insert(index, node)


def _rescale_bias_(reader: onnx.NodeProto, tensors: dict[str, onnx.TensorProto], ratio: Array) -> None:
    """A bias in whole numbers has the scale of the input times that of the weight."""
    from onnx import numpy_helper

    whole, scale = (tensors[name] for name in reader.input[:2])
    bias = numpy_helper.to_array(whole) * numpy_helper.to_array(scale).astype(np.float64)
    scales = numpy_helper.to_array(scale).astype(np.float64) * ratio
    limits = np.iinfo(np.int32)
    whole.CopyFrom(
        numpy_helper.from_array(np.clip(np.rint(bias / scales), limits.min, limits.max).astype(np.int32), whole.name)
    )
    scale.CopyFrom(numpy_helper.from_array(scales.astype(np.float32), scale.name))


def _expansion(shared: _Shared, name: str, prefix: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes that make the tensor `name` of the bank, and the tensors that they read, of short names of their own."""
    from onnx import helper, numpy_helper

    nodes: list[onnx.NodeProto] = []
    held: list[onnx.TensorProto] = []

    def hold(part: str, values: Array) -> str:
        held.append(numpy_helper.from_array(values, f"{prefix}.{part}"))
        return f"{prefix}.{part}"

    def run(kind: str, part: str, *inputs: str, axis: int | None = None) -> str:
        output = f"{prefix}.{part}" if part else name
        nodes.append(helper.make_node(kind, inputs, [output]))
        if axis is not None:
            nodes[-1].attribute.append(helper.make_attribute("axis", axis))
        return output

    bank = hold("q", shared.whole)
    count, signs = len(shared.whole), 1
    if shared.negative.any():
        bank, signs = run("Concat", "s", bank, run("Neg", "n", bank), axis=0), 2
    used, places = np.unique(shared.rows // count, return_inverse=True)  # the masks that some output has
    axes, copies = hold("d", np.array([1, 2, 3])), []
    for mask, (begin, end, around) in enumerate(_cuts(shared.layer)):
        if mask in used and around.any():
            bounds = hold(f"b{mask}", begin), hold(f"e{mask}", end)
            cut = run("Slice", f"c{mask}", bank, *bounds, axes)
            copies.append(run("Pad", f"m{mask}", cut, hold(f"p{mask}", around)))
        elif mask in used:
            copies.append(bank)
    stack = run("Concat", "a", *copies, axis=0) if len(copies) > 1 else copies[0]
    index = places * signs * count + shared.negative * count + shared.rows % count
    order = shared.layer.order
    chosen = run("Gather", "" if order is None else "f", stack, hold("r", index.astype(np.int32)), axis=0)
    if order is not None:
        run("Gather", "", chosen, hold("o", order.cpu().argsort().numpy().astype(np.int32)), axis=1)
    return nodes, held


def _cuts(layer: VersatileConv2d) -> Iterator[tuple[Array, Array, Array]]:
    """For every mask where a slice of channels, rows and columns begins and ends, and the zeros around it."""
    _, channels, height, width = layer.weight.shape
    for crop in layer.spec.crops:
        for window in layer.spec.channel_windows(channels):
            begin = np.array([window.start, crop.top, crop.left])
            end = np.array([window.stop, crop.bottom, crop.right])
            yield begin, end, np.array([0, *begin, 0, *(np.array([channels, height, width]) - end)])
