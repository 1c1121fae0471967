"""ONNX's operators that take many numbers to one, over axes in an attribute or (from opset 13 and 18) in an input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from vfconvert.loading.exported_graph import UnknownGraphError
from vfconvert.loading.onnx_values import Call, Sizes, Value


def _reduce(function: Callable[..., Any]) -> Callable[[Call], Value]:
    def apply(call: Call) -> Value:
        axes, value = call.numbers(1, "axes"), call.inputs[0]
        if not axes and call.attributes.get("noop_with_empty_axes"):
            return value
        if isinstance(value, Sizes) and call.kind == "ReduceProd":
            return Sizes((math.prod(value.values),), not call.attributes.get("keepdims", 1), value.floating)
        every = axes or list(range(call.rank))
        return function(value, every, bool(call.attributes.get("keepdims", 1)))

    return apply


def _one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """A reduction that torch has for one axis at a time."""

    def apply(value: Any, axes: list[int], keep: bool) -> Any:
        for axis in sorted(axes, reverse=True):
            value = function(value, axis, keep)
        return value

    return apply


def _norm(power: int) -> Callable[..., Any]:
    return lambda value, axes, keep: torch.linalg.vector_norm(value, power, axes, keep)


def _place_of(function: Callable[..., Any]) -> Callable[[Call], Value]:
    def apply(call: Call) -> Value:
        if call.attributes.get("select_last_index"):
            raise UnknownGraphError(f"{call.kind}: of equal numbers the last")
        return function(call.inputs[0], call.attributes.get("axis", 0), bool(call.attributes.get("keepdims", 1)))

    return apply


def _over_places(images: Callable[..., Any], others: Callable[..., Any]) -> Callable[[Call], Value]:
    """Over all axes but the first two; `images` of those that are (B, C, H, W)."""

    def apply(call: Call) -> Value:
        if call.shapes[0] is None or call.rank == 4:
            return images(call.inputs[0])
        return others(call.inputs[0], list(range(2, call.rank)), True)

    return apply


def _power_of_places(call: Call) -> Value:
    return _norm(call.attributes.get("p", 2))(call.inputs[0], list(range(2, call.rank)), True)


REDUCTIONS: dict[str, Callable[[Call], Value]] = {
    "GlobalAveragePool": _over_places(lambda value: F.adaptive_avg_pool2d(value, 1), torch.mean),
    "GlobalMaxPool": _over_places(lambda value: F.adaptive_max_pool2d(value, 1), torch.amax),
    "GlobalLpPool": _power_of_places,
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMin": _reduce(torch.amin),
    "ReduceProd": _reduce(_one_by_one(torch.prod)),
    "ReduceL1": _reduce(_norm(1)),
    "ReduceL2": _reduce(_norm(2)),
    "ReduceSumSquare": _reduce(lambda value, axes, keep: torch.sum(value * value, axes, keep)),
    "ReduceLogSum": _reduce(lambda value, axes, keep: torch.log(torch.sum(value, axes, keep))),
    "ReduceLogSumExp": _reduce(torch.logsumexp),
    "ArgMax": _place_of(torch.argmax),
    "ArgMin": _place_of(torch.argmin),
}
