"""ONNX's operators that are modules in torch: layers with weights, norms and what is learned besides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.loading.exported_graph import UnknownGraphError
from vfconvert.loading.onnx_padding import padded
from vfconvert.loading.onnx_pooling import POOLING
from vfconvert.loading.onnx_values import Call, Place, Value, size_of


def _weight(value: Value, call: Call) -> Tensor:
    if not isinstance(value, Tensor):
        raise UnknownGraphError(f"{call.kind}: its weights are computed")
    return value


def _bias(call: Call, position: int) -> Tensor | None:
    return None if call.get(position) is None else _weight(call.inputs[position], call)


def _filled(layer: nn.Module, **tensors: Tensor | None) -> nn.Module:
    for name, value in tensors.items():
        if name in layer._buffers:
            layer._buffers[name] = value
        elif value is not None:
            layer._parameters[name] = nn.Parameter(value.contiguous(), value.is_floating_point())
    return layer.eval()


def _convolution(call: Call, place: Place) -> Value:
    weight, bias = _weight(call.inputs[1], call), _bias(call, 2)
    axes, groups = weight.dim() - 2, call.attributes.get("group", 1)
    kinds: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    value, padding = padded(call, weight.shape[2:])
    layer = kinds[axes](
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=tuple(call.attributes.get("strides") or [1] * axes),
        padding=padding,
        dilation=tuple(call.attributes.get("dilations") or [1] * axes),
        groups=groups,
        bias=bias is not None,
        device="meta",
    )
    return place(_filled(layer, weight=weight, bias=bias), value)


def _transposed(call: Call, place: Place) -> Value:
    weight, bias = _weight(call.inputs[1], call), _bias(call, 2)
    axes, groups = weight.dim() - 2, call.attributes.get("group", 1)
    kinds: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
    strides, dilations = (list(call.attributes.get(key) or [1] * axes) for key in ("strides", "dilations"))
    extra = list(call.attributes.get("output_padding") or [0] * axes)
    begins, ends = _cut(call, weight.shape[2:], strides, dilations, extra)
    even = begins == ends
    layer = kinds[axes](
        weight.shape[0],
        weight.shape[1] * groups,
        tuple(weight.shape[2:]),
        stride=tuple(strides),
        padding=tuple(begins) if even else 0,
        output_padding=tuple(extra),
        groups=groups,
        bias=bias is not None,
        dilation=tuple(dilations),
        device="meta",
    )
    whole = place(_filled(layer, weight=weight, bias=bias), call.inputs[0])
    if even:
        return whole
    cut = (slice(begin, -end or None) for begin, end in zip(begins, ends, strict=True))
    return whole[(slice(None), slice(None), *cut)]


def _cut(
    call: Call, kernel: Sequence[int], strides: list[int], dilations: list[int], extra: list[int]
) -> tuple[list[int], list[int]]:
    """What a transposed convolution takes off at the begin and the end of each axis."""
    axes, auto = len(kernel), call.expect("auto_pad", "NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    wanted = call.attributes.get("output_shape")
    if not wanted and not auto.startswith("SAME"):
        pads = list(call.attributes.get("pads") or [0] * (2 * axes)) if auto == "NOTSET" else [0] * (2 * axes)
        return pads[:axes], pads[axes:]
    begins, ends = list[int](), list[int]()
    for axis, (width, stride, dilation, more) in enumerate(zip(kernel, strides, dilations, extra, strict=True)):
        total = dilation * (width - 1) + 1 + more - stride  # for an output of the input's size times the stride
        if wanted:
            total += stride * size_of(call, axis + 2) - wanted[axis]
        if total < 0:
            raise UnknownGraphError("ConvTranspose: an output larger than what it computes")
        small, large = total // 2, total - total // 2
        begins.append(small if auto == "SAME_UPPER" else large)
        ends.append(large if auto == "SAME_UPPER" else small)
    return begins, ends


def _batch_norm(call: Call, place: Place) -> Value:
    weight, bias, mean, variance = (_weight(value, call) for value in call.inputs[1:5])
    if call.attributes.get("training_mode") or call.outputs > 1 or call.attributes.get("spatial", 1) != 1:
        raise UnknownGraphError("BatchNormalization: as in training, or of each place by itself; export for inference")
    kinds: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    layer = kinds[call.rank](len(mean), eps=call.attributes.get("epsilon", 1e-5), device="meta")
    count = torch.tensor(0)
    filled = _filled(
        layer, weight=weight, bias=bias, running_mean=mean, running_var=variance, num_batches_tracked=count
    )
    return place(filled, call.inputs[0])


def _gemm(call: Call, place: Place) -> Value:
    value, weight, bias = call.inputs[0], call.inputs[1], call.get(2)
    alpha, beta = call.attributes.get("alpha", 1.0), call.attributes.get("beta", 1.0)
    flat = bias is None or (isinstance(bias, Tensor) and bias.shape[:-1].numel() == 1)
    if not isinstance(weight, Tensor) or not flat or call.attributes.get("transA"):
        raise UnknownGraphError("Gemm: other than a linear map of constant weights")
    weight = (weight if call.attributes.get("transB") else weight.T) * alpha
    if bias is not None:
        bias = (bias * beta).reshape(-1).expand(len(weight))
    return _linear(weight, bias, value, place)


def _linear(weight: Tensor, bias: Tensor | None, value: Value, place: Place) -> Value:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return place(_filled(layer, weight=weight, bias=bias), value)


def _product(call: Call, place: Place) -> Value:
    first, second = call.inputs
    if isinstance(second, Tensor) and second.dim() == 2 and not isinstance(first, Tensor):
        return _linear(second.T, None, first, place)
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.matmul(first, second)  # once, and within bounds
    return torch.matmul(call.constant(first), call.constant(second))


def _layer_norm(call: Call, place: Place) -> Value:
    weight, bias = _weight(call.inputs[1], call), _bias(call, 2)
    axis = call.attributes.get("axis", -1)
    if (axis + call.rank if axis < 0 else axis) != call.rank - weight.dim() or call.outputs > 1:
        raise UnknownGraphError("LayerNormalization: with weights of other axes, or with statistics as outputs")
    layer = nn.LayerNorm(
        tuple(weight.shape), call.attributes.get("epsilon", 1e-5), bias=bias is not None, device="meta"
    )
    return place(_filled(layer, weight=weight, bias=bias), call.inputs[0])


def _instance_norm(call: Call, place: Place) -> Value:
    weight, bias = _weight(call.inputs[1], call), _weight(call.inputs[2], call)
    kinds: dict[int, Any] = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}
    layer = kinds[call.rank](len(weight), eps=call.attributes.get("epsilon", 1e-5), affine=True, device="meta")
    return place(_filled(layer, weight=weight, bias=bias), call.inputs[0])


def _group_norm(call: Call, place: Place) -> Value:
    weight, bias = _weight(call.inputs[1], call), _weight(call.inputs[2], call)
    groups, channels = call.attributes["num_groups"], size_of(call, 1)
    if call.opset < 21:  # then one scale and bias for each group, not for each channel
        weight, bias = (value.repeat_interleave(channels // groups) for value in (weight, bias))
    layer = nn.GroupNorm(groups, channels, call.attributes.get("epsilon", 1e-5), device="meta")
    return place(_filled(layer, weight=weight, bias=bias), call.inputs[0])


def _prelu(call: Call, place: Place) -> Value:
    value, slope = call.inputs
    known = call.shapes[0]
    alone = isinstance(slope, Tensor) and slope.numel() == 1
    by_channel = isinstance(slope, Tensor) and known is not None and slope.numel() == slope.shape[0] == known[1]
    if alone or (by_channel and known is not None and slope.dim() == len(known) - 1):
        return place(_filled(nn.PReLU(slope.numel(), device="meta"), weight=slope.reshape(-1)), value)
    slope = call.constant(slope)
    return torch.where(value > 0, value, value * slope)


def _local_norm(call: Call, place: Place) -> Value:
    size = call.attributes["size"]
    if size % 2 == 0:
        raise UnknownGraphError("LRN: over an even number of channels")
    attributes = call.attributes
    layer = nn.LocalResponseNorm(
        size, attributes.get("alpha", 1e-4), attributes.get("beta", 0.75), attributes.get("bias", 1.0)
    )
    return place(layer, call.inputs[0])


LAYERS: dict[str, Callable[[Call, Place], Value]] = POOLING | {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "BatchNormalization": _batch_norm,
    "Gemm": _gemm,
    "MatMul": _product,
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "PRelu": _prelu,
    "LRN": _local_norm,
}
