"""Filters that are cut out of one bank, stored in eight bits as that bank.

A converted layer that is computed as an ordinary convolution has the weight `W_o = b_o M_o ∘ F_p`: output `o` is
primary `p(o)` under a mask, by a factor in which its scale and the norm that follows are. With `F_p = S_p Q_p`, one
scale a primary, `q_o = ±M_o ∘ Q_p` are whole numbers again and `|b_o| S_p` is the scale of the output: so the file
holds `Q` once, and the runtime makes the weight of it when it loads the file, which then runs as if it were stored.

A scale of a whole primary is coarse for what a mask leaves of it where that is small. Where a layer would lose more
than 1.5 times what scales of its outputs lose, masks have banks of their own, `M ∘ F_p = S_mp Q_mp`, of as many
numbers as they leave: those first that gain the most for their bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vfconvert.exporting.onnx_compact import fresh_names, names_written
from vfconvert.nn import VersatileConv2d
from vfconvert.ops.expand import expand

if TYPE_CHECKING:
    import onnx

_LARGEST = 64  # of a whole number, as of all weights: see `vfconvert.quantizing.eight_bits`
_TINY = float(np.finfo(np.float32).tiny)
_EXACT = 1e-4  # of the largest weight of an output, by which it may differ from its share of the bank
_COARSER = 1.5  # times the error that a layer has with scales of its outputs, which scales of primaries may bring
_AT_ONCE = 2**20  # numbers that are compared at a time

Array = NDArray[Any]


def share_(quantized: onnx.ModelProto, folded: onnx.ModelProto, layers: Sequence[VersatileConv2d]) -> None:
    """Store the weights of these layers in `quantized` as their banks, where that takes fewer bytes; in place.

    `folded` is the file in float32 that was quantized, with every weight one tensor. A weight that is none of the
    layers' stays as it is.
    """
    from onnx import numpy_helper

    floats = {tensor.name: tensor for tensor in folded.graph.initializer}
    waiting, found = list(layers), list[VersatileConv2d]()
    for name in dict.fromkeys(node.input[1] for node in folded.graph.node if node.op_type == "Conv"):
        if name not in floats:
            continue
        weight = numpy_helper.to_array(floats[name])
        for layer in (*waiting, *found):  # one that is called several times may have several weights
            factors = _factors(weight, layer)
            if factors is not None:
                _store_(quantized.graph, name, _Shared.of(layer, factors))
                waiting = [other for other in waiting if other is not layer]
                found = [layer, *(other for other in found if other is not layer)]
                break


def _factors(weight: Array, layer: VersatileConv2d) -> Tensor | None:
    """By what every output `(N,)` of a weight `(N, C, kh, kw)` is its cut of the layer's bank; None where it is not."""
    filters, (masks, primaries) = layer.weight.detach().cpu(), _masks_and_primaries(layer)
    if weight.shape != (len(masks), *filters.shape[1:]):
        return None
    count, numbers = len(filters), filters[0].numel()
    order = slice(None) if layer.order is None else layer.order.cpu().numpy()
    factors = torch.zeros(len(masks), dtype=torch.float64)
    size = max(1, _AT_ONCE // (numbers * len(list(_cuts(layer)))))
    for first in (0, *range(1, count, size)):  # one alone to begin with: that tells most other layers' weights
        some = filters[first : first + (size if first else 1)].double()
        own = ((primaries >= first) & (primaries < first + len(some))).nonzero().flatten()
        given = torch.from_numpy(weight[own.numpy()][:, order].astype(np.float64)).flatten(1)
        cut = expand(some, layer.spec, masks[own] * len(some) + primaries[own] - first).flatten(1)
        factor = (given * cut).sum(1) / cut.square().sum(1).clamp_min(1e-30)
        off = (given - factor.unsqueeze(1) * cut).abs().amax(1)
        if bool((off > _EXACT * given.abs().amax(1)).any()):
            return None
        factors[own] = factor
    return factors


def _masks_and_primaries(layer: VersatileConv2d) -> tuple[Tensor, Tensor]:
    """Of every output, `(N,)` each: see `vfconvert.ops.expand`."""
    rows, count = layer.rows.cpu(), len(layer.weight)
    return torch.div(rows, count, rounding_mode="floor"), rows % count


@dataclass(frozen=True, eq=False)
class _Shared:
    """A weight as a layer's, by its `factors` `(N,)`, and the steps `(M, P)` of the bank under every mask.

    Under the masks of `own` the bank has steps of its own, under all others those of whole primaries.
    """

    layer: VersatileConv2d
    factors: Array
    masks: Array
    primaries: Array
    steps: Array
    own: frozenset[int]

    @classmethod
    def of(cls, layer: VersatileConv2d, factors: Tensor) -> _Shared:
        """That of a layer whose weight this is."""
        filters, (masks, primaries) = layer.weight.detach().cpu(), _masks_and_primaries(layer)
        cuts, common, own = list(_cuts(layer)), _step(filters), set[int]()
        steps = common.expand(len(cuts), -1).clone()
        whole, gains = [0.0, 0.0], list[tuple[float, float, int, Tensor]]()
        for mask, (begin, end, _) in enumerate(cuts):
            mine = masks == mask
            energy = torch.zeros(len(filters), dtype=torch.float64)
            energy.index_add_(0, primaries[mine], factors[mine].square())
            if not bool(energy.any()):
                continue
            cut = _cut(filters, begin, end)
            finer = _step(cut)
            lost, least = (float((energy * _lost(cut, step)).sum()) for step in (common, finer))
            whole = [whole[0] + lost, whole[1] + least]
            gains.append(((lost - least) / cut[0].numel(), lost - least, mask, finer))
        for _, gain, mask, finer in sorted(gains, key=lambda each: -each[0]):  # the most for its bytes first
            if gain <= 0 or whole[0] <= _COARSER**2 * whole[1]:
                break
            steps[mask], whole[0] = finer, whole[0] - gain
            own.add(mask)
        return cls(layer, factors.numpy(), masks.numpy(), primaries.numpy(), steps.double().numpy(), frozenset(own))

    @property
    def scales(self) -> Array:
        """Of every output; 0 where its weight is 0."""
        scales = np.abs(self.factors) * self.steps[self.masks, self.primaries]
        return np.where(self.factors != 0, np.maximum(scales, _TINY), 0)

    def bank(self, mask: int | None = None) -> Array:
        """In whole numbers, `(P, C, kh, kw)`; for a mask with steps of its own what that leaves of it."""
        filters = self.layer.weight.detach().cpu()
        if mask is not None:
            begin, end, _ = list(_cuts(self.layer))[mask]
            filters = _cut(filters, begin, end)
        return _whole(filters, _step(filters)).to(torch.int8).numpy()


def _cut(filters: Tensor, begin: Array, end: Array) -> Tensor:
    """Of every filter of `(P, C, kh, kw)` what lies between two corners (see `_cuts`)."""
    return filters[(slice(None), *map(slice, begin, end))]


def _step(filters: Tensor) -> Tensor:
    """Of every filter `(P,)` of `(P, C, kh, kw)`: what a whole number of one stands for."""
    highest = filters.abs().amax((1, 2, 3))
    return torch.where(highest > 0, highest, 1) / _LARGEST


def _whole(filters: Tensor, step: Tensor) -> Tensor:
    return (filters / step.view(-1, 1, 1, 1)).round()


def _lost(filters: Tensor, step: Tensor) -> Tensor:
    """The squared error of every filter `(P,)` in such steps."""
    return (_whole(filters, step) * step.view(-1, 1, 1, 1) - filters).square().sum((1, 2, 3), dtype=torch.float64)


def _store_(graph: onnx.GraphProto, name: str, shared: _Shared) -> None:
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    readers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    reader = next((node for node in readers.values() if node.input[0] == f"{name}_quantized"), None)
    if reader is None or not {*reader.input[:2]} <= tensors.keys():
        return
    stored, scale = (tensors[part] for part in reader.input[:2])
    whole, before = numpy_helper.to_array(stored), numpy_helper.to_array(scale).astype(np.float64)
    used = [node for node in graph.node if node.op_type == "Conv" and node.input[1] == reader.output[0]]
    read = dict.fromkeys(node.input[2] for node in used if len(node.input) > 2)
    biases = [readers[bias].input[:2] for bias in read if bias in readers]
    if before.shape != whole.shape[:1] or not all({*bias} <= tensors.keys() for bias in biases):
        return
    # The scale of a bias is that of the input times that of the weight, so that a large one has no room at a small one.
    numbers = [numpy_helper.to_array(tensors[bias]).astype(np.float64) for bias, _ in biases]
    finer, odd = shared.scales / before, shared.scales == 0
    for each in numbers:
        odd |= np.abs(each) > np.iinfo(np.int32).max * finer
    (prefix,) = fresh_names("b", 1, {known.partition(".")[0] for known in names_written(graph)})
    nodes, held = _expansion(shared, odd, whole, stored.name, prefix)
    if sum(node.ByteSize() for node in nodes) + sum(tensor.ByteSize() for tensor in held) >= stored.ByteSize():
        return
    finer = np.where(odd, 1, finer)
    changed = {scale.name: before * finer}
    for (bias, of_bias), each in zip(biases, numbers, strict=True):
        changed[bias] = np.rint(each / finer)
        changed[of_bias] = numpy_helper.to_array(tensors[of_bias]) * finer
    for one, values in changed.items():
        kept = numpy_helper.to_array(tensors[one]).dtype
        tensors[one].CopyFrom(numpy_helper.from_array(values.astype(kept), one))
    graph.initializer.remove(stored)
    graph.initializer.extend(held)
    for index, node in enumerate(nodes):
        graph.node.insert(index, node)


def _expansion(
    shared: _Shared, odd: Array, whole: Array, name: str, prefix: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes that make the tensor `name` of the bank, and the tensors that they read, of short names of their own.

    Of outputs that are `odd` `(N,)` the filters of `whole` `(N, C, kh, kw)` are stored as they are, equal ones once.
    """
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

    used, places = np.unique(np.where(odd, -1, shared.masks), return_inverse=True)
    places = places - int((used == -1).any())
    bank, axes, copies = "", "", list[str]()
    for mask, (begin, end, around) in enumerate(_cuts(shared.layer)):
        if mask not in used:
            continue
        cut = hold(f"q{mask}", shared.bank(mask)) if mask in shared.own else ""
        bank = bank if cut or bank else hold("q", shared.bank())
        if around.any() and not cut:
            axes = axes or hold("d", np.array([1, 2, 3], np.int64))
            cut = run("Slice", f"c{mask}", bank, hold(f"b{mask}", begin), hold(f"e{mask}", end), axes)
        copies.append(run("Pad", f"m{mask}", cut, hold(f"p{mask}", around)) if cut else bank)
    count, index = len(shared.layer.weight), places * len(shared.layer.weight) + shared.primaries
    negative, rows = (shared.factors < 0) & ~odd, len(copies) * count
    stack = _joined(run, "a", copies)
    if negative.any():
        stack = run("Concat", "s", stack, run("Neg", "n", stack), axis=0)
        index, rows = index + negative * rows, 2 * rows
    if odd.any():
        order = slice(None) if shared.layer.order is None else shared.layer.order.cpu().numpy()
        filters, which = np.unique(whole[odd][:, order], axis=0, return_inverse=True)
        index[odd] = rows + which.reshape(-1)
        stack = _joined(run, "t", [*([stack] if stack else []), hold("z", filters)])
    if shared.layer.order is None:
        run("Gather", "", stack, hold("r", index.astype(np.int32)), axis=0)
    else:
        chosen = run("Gather", "f", stack, hold("r", index.astype(np.int32)), axis=0)
        run("Gather", "", chosen, hold("o", shared.layer.order.cpu().argsort().numpy().astype(np.int32)), axis=1)
    return nodes, held


def _joined(run: Callable[..., str], part: str, names: list[str]) -> str:
    """Tensors one behind the other; of none an empty name."""
    return run("Concat", part, *names, axis=0) if len(names) > 1 else "".join(names)


def _cuts(layer: VersatileConv2d) -> Iterator[tuple[Array, Array, Array]]:
    """For every mask where a slice of channels, rows and columns begins and ends, and the zeros around it."""
    _, channels, height, width = layer.weight.shape
    for crop in layer.spec.crops:
        for window in layer.spec.channel_windows(channels):
            begin = np.array([window.start, crop.top, crop.left], np.int64)
            end = np.array([window.stop, crop.bottom, crop.right], np.int64)
            around = np.array([channels, height, width], np.int64) - end
            yield begin, end, np.array([0, *begin, 0, *around], np.int64)
