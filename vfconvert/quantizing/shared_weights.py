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
_TINY = torch.finfo(torch.float32).tiny
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
    """A weight as its bank in eight bits, `whole` `(P, C, kh, kw)`, to which a filter of zeros is added where need be.

    Of every output `(N,)`: its scale, 0 where its weight is 0, its mask, its primary, and whether it is the negative.
    """

    layer: VersatileConv2d
    whole: Array
    scales: Array
    masks: Array
    primaries: Array
    negative: Array

    @classmethod
    def of(cls, weight: Array, layer: VersatileConv2d) -> _Shared | None:
        """The weight `(N, C, kh, kw)` by the layer whose it is; None where it is not this one's."""
        filters, rows = layer.weight.detach().cpu().double(), layer.rows.cpu()
        if weight.shape != (len(rows), *filters.shape[1:]):
            return None
        cut = expand(filters, layer.spec, rows)
        given = torch.from_numpy(weight.astype(np.float64))
        if layer.order is not None:
            given = given.index_select(1, layer.order.cpu())
        factor = (given * cut).sum((1, 2, 3)) / cut.square().sum((1, 2, 3)).clamp_min(1e-30)
        off = (given - factor.view(-1, 1, 1, 1) * cut).abs().amax((1, 2, 3))
        largest = given.abs().amax((1, 2, 3))
        if bool((off > _EXACT * largest).any()):
            return None
        highest = filters.abs().amax((1, 2, 3))
        step = torch.where(highest > 0, highest, 1) / _LARGEST
        primaries, silent = rows % len(filters), largest == 0
        whole = (filters / step.view(-1, 1, 1, 1)).round()
        scales = torch.where(silent, 0, (factor.abs() * step[primaries]).clamp_min(_TINY))
        if bool(silent.any()):
            whole = torch.cat([whole, torch.zeros_like(whole[:1])])
        return cls(
            layer=layer,
            whole=whole.to(torch.int8).numpy(),
            scales=scales.float().numpy(),
            masks=torch.div(rows, len(filters), rounding_mode="floor").numpy(),
            primaries=torch.where(silent, len(filters), primaries).numpy(),
            negative=(factor < 0).numpy(),
        )


def _store_(graph: onnx.GraphProto, name: str, shared: _Shared) -> None:
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    readers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    reader = next((node for node in readers.values() if node.input[0] == f"{name}_quantized"), None)
    if reader is None or not {*reader.input[:2]} <= tensors.keys():
        return
    stored, scale = (tensors[part] for part in reader.input[:2])
    (prefix,) = fresh_names("b", 1, {known.partition(".")[0] for known in names_written(graph)})
    nodes, held = _expansion(shared, stored.name, prefix)
    if sum(node.ByteSize() for node in nodes) + sum(tensor.ByteSize() for tensor in held) >= stored.ByteSize():
        return
    before = numpy_helper.to_array(scale)
    scales = np.where(shared.scales > 0, shared.scales, before)
    used = [node for node in graph.node if node.op_type == "Conv" and node.input[1] == reader.output[0]]
    added = [
        readers[bias]
        for bias in dict.fromkeys(node.input[2] for node in used if len(node.input) > 2)
        if bias in readers
    ]
    biases = [_rescaled(each, tensors, scales / before) for each in added]
    if any(bias is None for bias in biases):
        return
    for one in (numpy_helper.from_array(scales, scale.name), *(part for bias in biases for part in bias or ())):
        tensors[one.name].CopyFrom(one)
    graph.initializer.remove(stored)
    graph.initializer.extend(held)
    for index, node in enumerate(nodes):
        graph.node.insert(index, node)


def _rescaled(
    reader: onnx.NodeProto, tensors: dict[str, onnx.TensorProto], ratio: Array
) -> tuple[onnx.TensorProto, ...] | None:
    """A bias in whole numbers and its scale, that of the input times that of the weight; None where it has no room."""
    from onnx import numpy_helper

    if not {*reader.input[:2]} <= tensors.keys():
        return None
    whole, scale = (numpy_helper.to_array(tensors[name]).astype(np.float64) for name in reader.input[:2])
    scales = scale * ratio
    numbers = np.rint(whole * scale / scales)
    if np.abs(numbers).max(initial=0) > np.iinfo(np.int32).max:
        return None
    made = numbers.astype(np.int32), scales.astype(np.float32)
    return tuple(numpy_helper.from_array(part, name) for part, name in zip(made, reader.input[:2], strict=True))


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
    used, places = np.unique(shared.masks, return_inverse=True)  # the masks that some output has
    axes, copies = hold("d", np.array([1, 2, 3])), []
    for mask, (begin, end, around) in enumerate(_cuts(shared.layer)):
        if mask in used and around.any():
            bounds = hold(f"b{mask}", begin), hold(f"e{mask}", end)
            cut = run("Slice", f"c{mask}", bank, *bounds, axes)
            copies.append(run("Pad", f"m{mask}", cut, hold(f"p{mask}", around)))
        elif mask in used:
            copies.append(bank)
    stack = run("Concat", "a", *copies, axis=0) if len(copies) > 1 else copies[0]
    index = places * signs * count + shared.negative * count + shared.primaries
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
