"""ONNX's pooling as torch's modules, or as functions where no module pads or counts so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from vfconvert.loading.exported_graph import UnknownGraphError
from vfconvert.loading.onnx_padding import flat_padding, padded, stated_padding
from vfconvert.loading.onnx_values import Call, Place, Value


def _windows(call: Call) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], bool]:
    """Kernel, strides, dilations, and whether a window that is cut off at the end counts."""
    kernel = tuple(call.attributes["kernel_shape"])
    strides = tuple(call.attributes.get("strides") or [1] * len(kernel))
    dilations = tuple(call.attributes.get("dilations") or [1] * len(kernel))
    ceil = bool(call.attributes.get("ceil_mode"))
    if ceil and call.attributes.get("auto_pad", "NOTSET") == "NOTSET":
        begins, ends = stated_padding(call, kernel)
        if begins != ends:
            raise UnknownGraphError(f"{call.kind}: ceil_mode with uneven padding")
    return kernel, strides, dilations, ceil and call.attributes.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")


def _max_pool(call: Call, place: Place) -> Value:
    kernel, strides, dilations, ceil = _windows(call)
    most = [(dilation * (width - 1) + 1) // 2 for width, dilation in zip(kernel, dilations, strict=True)]
    value, padding = padded(call, kernel, float("-inf"), at_most=most)
    if call.outputs > 1 or call.attributes.get("storage_order"):
        raise UnknownGraphError("MaxPool: with indices")
    if ceil and value is not call.inputs[0]:
        raise UnknownGraphError("MaxPool: ceil_mode with padding of more than half a window")
    kinds: dict[int, Any] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
    return place(kinds[len(kernel)](kernel, strides, padding, dilations, ceil_mode=ceil), value)


def _average_pool(call: Call, place: Place) -> Value:
    kernel, strides, dilations, ceil = _windows(call)
    counted = bool(call.attributes.get("count_include_pad"))
    value, padding = padded(call, kernel, at_most=[width // 2 for width in kernel])
    by_hand = value is not call.inputs[0]
    if any(one != 1 for one in dilations) or (by_hand and ceil):
        raise UnknownGraphError("AveragePool: dilated, or ceil_mode with padding of more than half a window")
    kinds: dict[int, Any] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
    layer = kinds[len(kernel)](kernel, strides, padding, ceil, counted or by_hand)
    found = place(layer, value)
    if not by_hand or counted:
        return found
    ones = torch.ones_like(call.inputs[0])  # the share of each window that lies on the image
    ones = F.pad(ones, flat_padding(*stated_padding(call, kernel)))
    return found / _AVERAGES[len(kernel)](ones, kernel, strides)


_AVERAGES: dict[int, Callable[..., Any]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _power_pool(call: Call, place: Place) -> Value:
    kernel, strides, dilations, ceil = _windows(call)
    power, count = call.attributes.get("p", 2), torch.Size(kernel).numel()
    if any(one != 1 for one in dilations) or ceil or len(kernel) != 2:
        raise UnknownGraphError("LpPool: dilated, in ceil_mode, or of other than images")
    begins, ends = stated_padding(call, kernel)
    value = torch.pow(torch.abs(call.inputs[0]), power)
    value = F.pad(value, flat_padding(begins, ends)) if any((*begins, *ends)) else value
    return torch.pow(place(nn.AvgPool2d((kernel[0], kernel[1]), (strides[0], strides[1])), value) * count, 1 / power)


POOLING: dict[str, Callable[[Call, Place], Value]] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "LpPool": _power_pool,
}
