"""ONNX's operators that are modules in torch: layers with weights, norms and pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vfconvert.loading.exported_graph import UnknownGraphError
from vfconvert.loading.onnx_values import Call, Value

Place = Callable[[nn.Module, Value], Value]  # calls a module, new in the graph, of a value


def _weight(value: Value, call: Call) -> Tensor:
    if not isinstance(value, Tensor):
        raise UnknownGraphError(f"{call.kind}: its weights are computed")
    return value


def _filled(layer: nn.Module, **tensors: Tensor | None) -> nn.Module:
    for name, value in tensors.items():
        if name in layer._buffers:
            layer._buffers[name] = value
        elif value is not None:
            layer._parameters[name] = nn.Parameter(value.contiguous(), value.is_floating_point())
    return layer.eval()


def _padded(call: Call, value: Value, kernel: Sequence[int], fill: float = 0.0) -> tuple[Value, tuple[int, ...]]:
    """The value, padded where no layer pads so, and the padding that is left to the layer."""
    axes = len(kernel)
    pads = list(call.attributes.get("pads") or [0] * (2 * axes))
    strides, dilations = (list(call.attributes.get(key) or [1] * axes) for key in ("strides", "dilations"))
    auto = call.expect("auto_pad", "NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    if auto.startswith("SAME"):
        shape = call.shapes[0]
        sizes = shape[2:] if shape is not None else (None,) * axes
        begins, ends = list[int](), list[int]()
        for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
            if size is None and stride > 1:
                raise UnknownGraphError(f"{call.kind}: auto_pad {auto} of an image of any size")
            reach = dilation * (width - 1) + 1
            total = reach - 1 if size is None else max((-(-size // stride) - 1) * stride + reach - size, 0)
            small, large = total // 2, total - total // 2
            begins.append(small if auto == "SAME_UPPER" else large)
            ends.append(large if auto == "SAME_UPPER" else small)
        pads = begins + ends
    begins, ends = pads[:axes], pads[axes:]
    if begins == ends:
        return value, tuple(begins)
    flat = [size for pair in zip(reversed(begins), reversed(ends), strict=True) for size in pair]
    return F.pad(value, flat, "constant", fill), (0,) * axes


def _convolution(call: Call, place: Place) -> Value:
    weight, bias = _weight(call.inputs[1], call), call.get(2)
    axes, groups = weight.dim() - 2, call.attributes.get("group", 1)
    kinds: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    value, padding = _padded(call, call.inputs[0], weight.shape[2:])
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
    weight, bias = _weight(call.inputs[1], call), call.get(2)
    if (
        weight.dim() != 4
        or call.attributes.get("output_shape")
        or call.attributes.get("auto_pad", "NOTSET") != "NOTSET"
    ):
        raise UnknownGraphError("ConvTranspose: other than of two axes and stated padding")
    pads, groups = list(call.attributes.get("pads") or [0] * 4), call.attributes.get("group", 1)
    if pads[:2] != pads[2:]:
        raise UnknownGraphError("ConvTranspose: of uneven padding")
    layer = nn.ConvTranspose2d(
        weight.shape[0],
        weight.shape[1] * groups,
        (weight.shape[2], weight.shape[3]),
        stride=tuple(call.attributes.get("strides") or [1, 1]),
        padding=(pads[0], pads[1]),
        output_padding=tuple(call.attributes.get("output_padding") or [0, 0]),
        groups=groups,
        bias=bias is not None,
        dilation=tuple(call.attributes.get("dilations") or [1, 1]),
        device="meta",
    )
    return place(_filled(layer, weight=weight, bias=bias), call.inputs[0])


def _norm(call: Call, place: Place) -> Value:
    weight, bias, mean, variance = (_weight(value, call) for value in call.inputs[1:5])
    kinds: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    layer = kinds[call.rank](len(mean), eps=call.attributes.get("epsilon", 1e-5), device="meta")
    count = torch.tensor(0)
    filled = _filled(
        layer, weight=weight, bias=bias, running_mean=mean, running_var=variance, num_batches_tracked=count
    )
    return place(filled, call.inputs[0])


def _linear(call: Call, place: Place) -> Value:
    value, weight, bias = call.inputs[0], call.inputs[1], call.get(2)
    alpha, beta = call.attributes.get("alpha", 1.0), call.attributes.get("beta", 1.0)
    plain = isinstance(weight, Tensor) and (bias is None or (isinstance(bias, Tensor) and bias.dim() == 1))
    if not plain or call.attributes.get("transA") or (alpha, beta) != (1.0, 1.0):
        raise UnknownGraphError("Gemm: other than a linear map of constant weights")
    weight = weight if call.attributes.get("transB") else weight.T
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return place(_filled(layer, weight=weight, bias=bias), value)


def _layer_norm(call: Call, place: Place) -> Value:
    weight, bias = _weight(call.inputs[1], call), call.get(2)
    if call.attributes.get("axis", -1) not in (-1, call.rank - 1) or call.outputs > 1:
        raise UnknownGraphError("LayerNormalization: over other than the last axis")
    layer = nn.LayerNorm(weight.shape[0], call.attributes.get("epsilon", 1e-5), bias=bias is not None, device="meta")
    return place(_filled(layer, weight=weight, bias=bias), call.inputs[0])


def _instance_norm(call: Call, place: Place) -> Value:
    weight, bias = _weight(call.inputs[1], call), _weight(call.inputs[2], call)
    if call.rank != 4:
        raise UnknownGraphError("InstanceNormalization: of other than images")
    layer = nn.InstanceNorm2d(len(weight), eps=call.attributes.get("epsilon", 1e-5), affine=True, device="meta")
    return place(_filled(layer, weight=weight, bias=bias), call.inputs[0])


def _max_pool(call: Call, place: Place) -> Value:
    kernel = call.attributes["kernel_shape"]
    value, padding = _padded(call, call.inputs[0], kernel, float("-inf"))
    if len(kernel) != 2 or call.outputs > 1 or call.attributes.get("storage_order"):
        raise UnknownGraphError("MaxPool: of other than images, or with indices")
    layer = nn.MaxPool2d(
        tuple(kernel),
        tuple(call.attributes.get("strides") or [1, 1]),
        padding,
        tuple(call.attributes.get("dilations") or [1, 1]),
        ceil_mode=bool(call.attributes.get("ceil_mode")),
    )
    return place(layer, value)


def _average_pool(call: Call, place: Place) -> Value:
    kernel, counted = call.attributes["kernel_shape"], bool(call.attributes.get("count_include_pad"))
    value, padding = _padded(call, call.inputs[0], kernel)
    uneven = value is not call.inputs[0]
    dilated = any(one != 1 for one in call.attributes.get("dilations") or [1])
    if len(kernel) != 2 or dilated or (uneven and not counted):
        raise UnknownGraphError("AveragePool: of other than images, dilated, or unevenly padded and not counting that")
    layer = nn.AvgPool2d(
        tuple(kernel),
        tuple(call.attributes.get("strides") or [1, 1]),
        (padding[0], padding[1]),
        ceil_mode=bool(call.attributes.get("ceil_mode")),
        count_include_pad=counted,
    )
    return place(layer, value)


LAYERS: dict[str, Callable[[Call, Place], Value]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "BatchNormalization": _norm,
    "Gemm": _linear,
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _instance_norm,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
}
