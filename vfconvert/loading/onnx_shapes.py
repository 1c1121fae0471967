"""ONNX's operators on shapes and places: what moves, cuts, joins and repeats numbers, and what computes sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from vfconvert.loading.exported_graph import LARGEST_SIZE, UnknownGraphError
from vfconvert.loading.onnx_values import MOST_LISTED, Call, Sizes, Value, is_number, listed, scalar, size_of, sizes_of


def _gather(call: Call) -> Value:
    value, index = call.inputs
    axis = call.attributes.get("axis", 0)
    if isinstance(value, Sizes):
        if not isinstance(index, Tensor):
            raise UnknownGraphError("Gather: an index that is computed")
        chosen = tuple(value.values[int(i)] for i in listed(index))
        return Sizes(chosen, index.dim() == 0)
    if isinstance(index, Tensor) and index.dim() == 0:
        return torch.select(value, axis, int(index))
    if isinstance(index, Tensor) and index.dim() == 1:
        return _taken(value, axis % call.rank, index)
    raise UnknownGraphError("Gather: indices of more than one axis, or computed")


def _taken(value: Any, axis: int, index: Tensor) -> Any:
    """By a list, a constant of the graph on whatever device the value is; negative numbers count from the end."""
    return value[(*([slice(None)] * axis), listed(index))]


def _shape(call: Call) -> Value:
    value = call.inputs[0]
    if isinstance(value, Tensor):
        return torch.tensor(value.shape)
    if call.shapes[0] is None:
        raise UnknownGraphError("Shape: the rank of its input is not known")
    sizes = tuple(size if size is not None else value.shape[axis] for axis, size in enumerate(call.shapes[0]))
    if call.batch is not None and sizes and is_number(sizes[0], call.batch):
        sizes = (value.shape[0], *sizes[1:])
    return Sizes(sizes[call.attributes.get("start", 0) : call.attributes.get("end")])


def _reshape(call: Call) -> Value:
    value, shape = call.inputs[0], call.numbers(1, "shape")
    if shape is None:
        raise UnknownGraphError("Reshape: without a shape")
    if isinstance(value, Sizes):
        return Sizes(value.values, scalar=not shape)
    known = call.shapes[0] or ()
    if not call.attributes.get("allowzero"):
        shape = [value.shape[axis] if is_number(size, 0) else size for axis, size in enumerate(shape)]
    fixed = call.batch is not None and shape and is_number(shape[0], call.batch) and known[:1] in ((), (call.batch,))
    if fixed and not any(is_number(size, -1) for size in shape):
        shape = [-1, *shape[1:]]
    elif fixed:
        shape = [value.shape[0], *shape[1:]]
    return torch.reshape(value, shape)


def _flatten(call: Call) -> Value:
    axis = call.attributes.get("axis", 1)
    axis = axis + call.rank if axis < 0 else axis
    if axis == 1:
        return torch.flatten(call.inputs[0], 1)
    shape = call.inputs[0].shape
    return torch.reshape(call.inputs[0], (math.prod(shape[i] for i in range(axis)), -1))


def _transpose(call: Call) -> Value:
    value = call.inputs[0]
    order = tuple(call.attributes.get("perm") or reversed(range(call.rank)))
    if isinstance(value, fx.Proxy) and value.node.target is torch.permute:  # two in a row are one, or none
        source, before = (cast(Any, part) for part in value.node.args)
        value, order = fx.Proxy(source, value.tracer), tuple(before[axis] for axis in order)
        if order == tuple(range(len(order))):
            return value
    return torch.permute(value, order)


def _squeeze(call: Call) -> Value:
    value, axes = call.inputs[0], call.numbers(1, "axes")
    if isinstance(value, Sizes):
        return Sizes(value.values, True, value.floating)
    if isinstance(value, Tensor):
        return torch.squeeze(value) if axes is None else torch.squeeze(value, tuple(axes))
    if axes is None:
        known = call.shapes[0]
        if known is None or None in known[1:] or known[0] == 1:
            raise UnknownGraphError("Squeeze: of all axes of one, where the number of images may be among them")
        axes = [axis for axis, size in enumerate(known) if size == 1]
    return torch.squeeze(value, tuple(axes))


def _unsqueeze(call: Call) -> Value:
    value, axes = call.inputs[0], call.numbers(1, "axes") or []
    if isinstance(value, Sizes):
        return Sizes(value.values, False, value.floating)
    rank = (value.dim() if isinstance(value, Tensor) else call.rank) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        value = torch.unsqueeze(value, axis)
    return value


def _concat(call: Call) -> Value:
    if any(isinstance(value, Sizes) for value in call.inputs):
        parts = [sizes_of(value).values for value in call.inputs]
        if sum(map(len, parts)) > MOST_LISTED:
            raise UnknownGraphError("Concat: of more sizes than any tensor has")
        return Sizes(tuple(size for part in parts for size in part))
    return torch.cat(list(call.inputs), call.attributes.get("axis", 1))


def _split(call: Call) -> Value:
    axis, sizes = call.attributes.get("axis", 0), call.numbers(1, "split")
    if sizes is None:
        shape = call.shapes[0]
        length = shape[axis] if shape is not None else None
        if length is None:
            raise UnknownGraphError("Split: into equal parts of a length that is not known")
        sizes = [math.ceil(length / call.outputs)] * call.outputs
        sizes[-1] = length - sum(sizes[:-1])
    found = torch.split(call.inputs[0], sizes, axis)
    return [found[i] for i in range(call.outputs)]


def _slice(call: Call) -> Value:
    value = call.inputs[0]
    starts, ends = call.numbers(1, "starts") or [], call.numbers(2, "ends") or []
    axes = call.numbers(3, "axes") or list(range(len(starts)))
    steps = call.numbers(4, "steps") or [1] * len(starts)
    if isinstance(value, Sizes):
        return Sizes(value.values[starts[0] : ends[0] : steps[0]], False, value.floating)
    rank = value.dim() if isinstance(value, Tensor) else call.rank
    where = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if isinstance(step, int) and step < 0:
            if step != -1 or not isinstance(end, int) or end > -(2**30) or start not in (-1, *_to_the_end(call, axis)):
                raise UnknownGraphError("Slice: backwards over a part of an axis")
            value = torch.flip(value, (axis,))
            continue
        open_end = isinstance(end, int) and end > 2**30
        where[axis] = slice(start, None if open_end else end, step)
    return value[tuple(where)]


def _to_the_end(call: Call, axis: int) -> tuple[int, ...]:
    """Numbers that stand for the last place of an axis."""
    size = (call.shapes[0] or ())[axis] if call.shapes[0] else None
    return (2**31 - 1, 2**63 - 1, *((size - 1,) if size is not None else ()))


def _expand(call: Call) -> Value:
    rank = call.rank
    shape = call.numbers(1) or []
    shape = [1] * (rank - len(shape)) + shape
    before = len(shape) - rank
    kept = [
        call.inputs[0].shape[i - before] if is_number(size, 1) and i >= before else size for i, size in enumerate(shape)
    ]
    return call.inputs[0].expand(*kept)


def _filled(call: Call) -> Value:
    fill, sizes = call.attributes.get("value"), call.numbers(0) or []
    value = fill.reshape(()) if fill is not None else torch.zeros(())
    unknown = next((size for size in sizes if not isinstance(size, int)), None)
    if unknown is None:
        return value.expand(sizes).clone()
    filled = (tuple(sizes), value.item())
    return unknown.tracer.create_proxy("call_function", torch.full, filled, {"dtype": value.dtype})


def _range(call: Call) -> Value:
    if all(isinstance(value, Tensor) for value in call.inputs):
        return torch.arange(*(value.item() for value in call.inputs))
    parts = [sizes_of(value) for value in call.inputs]
    numbers = [part.values[0] for part in parts]
    kind = torch.float32 if any(part.floating for part in parts) else torch.int64
    unknown = next((number for number in numbers if not isinstance(number, (int, float))), None)
    if unknown is None:
        return torch.arange(*numbers, dtype=kind)
    return unknown.tracer.create_proxy("call_function", torch.arange, tuple(numbers), {"dtype": kind})


def _tile(call: Call) -> Value:
    value, times = call.inputs[0], call.numbers(1) or []
    if isinstance(value, Sizes):
        return Sizes(value.values * times[0])
    return value.repeat(*times)


def _cumulative(call: Call) -> Value:
    axis = call.numbers(1)
    if call.attributes.get("exclusive") or call.attributes.get("reverse") or not axis:
        raise UnknownGraphError("CumSum: exclusive or reverse")
    return torch.cumsum(call.inputs[0], axis[0])


def _size(call: Call) -> Value:
    known = _shape(call)
    return Sizes((math.prod(known.values),), True) if isinstance(known, Sizes) else torch.tensor(call.inputs[0].numel())


def _where(call: Call) -> Value:
    chosen, first, second = call.inputs
    if isinstance(chosen, Tensor) and (isinstance(first, Sizes) or isinstance(second, Sizes)):
        one, two = sizes_of(first).values, sizes_of(second).values
        picks = listed(chosen)
        return Sizes(tuple(a if pick else b for pick, a, b in zip(picks, one, two, strict=True)))
    return torch.where(chosen, first, second)


def _depth_to_space(call: Call) -> Value:
    if call.attributes.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(call.inputs[0], call.attributes["blocksize"])
    block, shape = call.attributes["blocksize"], call.shapes[0]
    if shape is None or shape[1] is None:
        raise UnknownGraphError("DepthToSpace: the number of channels is not known")
    value, depth = call.inputs[0], shape[1] // block**2
    height, width = value.shape[2], value.shape[3]
    parts = torch.permute(torch.reshape(value, (-1, block, block, depth, height, width)), (0, 3, 4, 1, 5, 2))
    return torch.reshape(parts, (-1, depth, height * block, width * block))


def _space_to_depth(call: Call) -> Value:
    block, value = call.attributes["blocksize"], call.inputs[0]
    channels = size_of(call, 1)
    height, width = value.shape[2] // block, value.shape[3] // block
    parts = torch.reshape(value, (-1, channels, height, block, width, block))
    return torch.reshape(torch.permute(parts, (0, 3, 5, 1, 2, 4)), (-1, channels * block**2, height, width))


def _pad(call: Call) -> Value:
    mode = call.expect("mode", "constant", "constant", "reflect", "edge", "wrap")
    pads, axes = call.numbers(1, "pads") or [], call.numbers(3)
    fill = call.get(2)
    if any(abs(size) > LARGEST_SIZE for size in pads):
        raise UnknownGraphError(f"'Pad' pads by {max(pads, key=abs)}")
    value = float(scalar(fill)) if fill is not None else float(call.attributes.get("value", 0.0))
    rank, half = call.rank, len(pads) // 2
    places = [axis % rank for axis in axes] if axes is not None else list(range(rank))
    both = {axis: (pads[i], pads[i + half]) for i, axis in enumerate(places)}
    given = [both.get(axis, (0, 0)) for axis in reversed(range(rank))]
    fewest = 0 if mode == "constant" else rank - 2  # the other modes pad all places
    while len(given) > fewest and given[-1] == (0, 0):
        given.pop()
    flat = [size for pair in given for size in pair]
    if not any(pair != (0, 0) for pair in given):
        return call.inputs[0]
    torch_mode = {"edge": "replicate", "wrap": "circular"}.get(mode, mode)
    return F.pad(call.inputs[0], flat, torch_mode, value if torch_mode == "constant" else None)


SHAPING: dict[str, Callable[[Call], Value]] = {
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Shape": _shape,
    "ConstantOfShape": _filled,
    "Expand": _expand,
    "Pad": _pad,
    "Range": _range,
    "Tile": _tile,
    "CumSum": _cumulative,
    "Size": _size,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Where": _where,
}
