"""ONNX's operators on shapes and places: what moves, cuts, joins and repeats numbers, and what computes sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vfconvert.loading.exported_graph import UnknownGraphError
from vfconvert.loading.onnx_values import MOST_LISTED, Call, Sizes, Value, is_number, listed, scalar, sizes_of


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
        # a list: a constant of the graph, on whatever device the value is
        return torch.index_select(value, axis, index) if isinstance(value, Tensor) else _taken(value, axis, index)
    raise UnknownGraphError("Gather: indices of more than one axis, or computed")


def _taken(value: Any, axis: int, index: Tensor) -> Any:
    return value[(*([slice(None)] * axis), listed(index))]


def _shape(call: Call) -> Value:
    value = call.inputs[0]
    if isinstance(value, Tensor):
        return torch.tensor(value.shape)
    sizes = tuple(size if size is not None else value.shape[axis] for axis, size in enumerate(call.shapes[0] or ()))
    if call.shapes[0] is None:
        raise UnknownGraphError("Shape: the rank of its input is not known")
    if call.batch is not None and sizes and sizes[0] == call.batch:
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
    order = call.attributes.get("perm") or tuple(reversed(range(call.rank)))
    return torch.permute(call.inputs[0], tuple(order))


def _squeeze(call: Call) -> Value:
    value, axes = call.inputs[0], call.numbers(1, "axes")
    if isinstance(value, Sizes):
        return Sizes(value.values, scalar=True)
    return torch.squeeze(value) if axes is None else torch.squeeze(value, tuple(axes))


def _unsqueeze(call: Call) -> Value:
    value, axes = call.inputs[0], call.numbers(1, "axes") or []
    if isinstance(value, Sizes):
        return Sizes(value.values)
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
    return torch.cat(list(call.inputs), call.attributes["axis"])


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
        return Sizes(value.values[starts[0] : ends[0] : steps[0]])
    rank = value.dim() if isinstance(value, Tensor) else call.rank
    where = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if isinstance(step, int) and step < 0:
            raise UnknownGraphError("Slice: backwards")
        open_end = isinstance(end, int) and end > 2**30
        where[axis] = slice(start, None if open_end else end, step)
    return value[tuple(where)]


def _expand(call: Call) -> Value:
    shape = call.numbers(1) or []
    rank = call.rank
    before = len(shape) - rank
    kept = [
        call.inputs[0].shape[i - before] if is_number(size, 1) and i >= before else size for i, size in enumerate(shape)
    ]
    return call.inputs[0].expand(*kept)


def _filled(call: Call) -> Value:
    fill, sizes = call.attributes.get("value"), call.numbers(0) or []
    value = fill if fill is not None else torch.zeros(1)
    if not all(isinstance(size, int) for size in sizes):
        raise UnknownGraphError("ConstantOfShape: of a shape that is computed")
    return value.reshape(()).expand(sizes).clone()


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


def _pad(call: Call) -> Value:
    mode = call.expect("mode", "constant", "constant", "reflect", "edge")
    pads, axes = call.numbers(1, "pads") or [], call.numbers(3)
    fill = call.get(2)
    value = float(scalar(fill)) if fill is not None else float(call.attributes.get("value", 0.0))
    rank, half = call.rank, len(pads) // 2
    places = [axis % rank for axis in axes] if axes is not None else list(range(rank))
    both = {axis: (pads[i], pads[i + half]) for i, axis in enumerate(places)}
    given = [both.get(axis, (0, 0)) for axis in reversed(range(rank))]
    while given and given[-1] == (0, 0):
        given.pop()
    flat = [size for pair in given for size in pair]
    if not flat:
        return call.inputs[0]
    torch_mode = {"edge": "replicate"}.get(mode, mode)
    return F.pad(call.inputs[0], flat, torch_mode, value if torch_mode == "constant" else None)


def _resize(call: Call) -> Value:
    mode = call.expect("mode", "nearest", "nearest", "linear", "cubic")
    place = call.attributes.get("coordinate_transformation_mode", "half_pixel")
    if call.attributes.get("antialias") or call.attributes.get("axes"):
        raise UnknownGraphError("Resize: antialias or axes")
    last = len(call.inputs) - 1
    upsample = call.kind == "Upsample"
    scales = call.numbers(1 if upsample or last == 1 else 2, "scales") if last >= 1 else call.numbers(9, "scales")
    sizes = call.numbers(3) if last >= 3 else None
    how = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}[mode]
    aligned = None if mode == "nearest" else place == "align_corners"
    if sizes is not None:
        return F.interpolate(call.inputs[0], size=sizes[2:], mode=how, align_corners=aligned)
    if not scales or scales[:2] != [1.0, 1.0]:
        raise UnknownGraphError("Resize: of other axes than height and width")
    return F.interpolate(call.inputs[0], scale_factor=scales[2:], mode=how, align_corners=aligned)


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
    "Resize": _resize,
    "Upsample": _resize,
    "DepthToSpace": _depth_to_space,
    "Where": _where,
}
