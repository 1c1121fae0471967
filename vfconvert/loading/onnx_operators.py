"""What ONNX's operators are in torch: a table from their names to functions of a call, which return its outputs.

Semantics: the operators' definitions in the ONNX standard, opsets 7 to 25.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vfconvert.loading.exported_graph import UnknownGraphError
from vfconvert.loading.onnx_shapes import SHAPING
from vfconvert.loading.onnx_values import Call, Sizes, Value, is_number, scalar, sizes_of


def _unary(function: Callable[..., Any]) -> Callable[[Call], Value]:
    return lambda call: function(call.inputs[0])


def _binary(function: Callable[..., Any], whole: Callable[..., Any] | None = None) -> Callable[[Call], Value]:
    def apply(call: Call) -> Value:
        first, second = call.inputs
        if isinstance(first, Sizes) or isinstance(second, Sizes):
            if whole is None:
                raise UnknownGraphError(f"{call.kind} of the sizes of a tensor is not known here")
            return _of_sizes(whole, first, second)
        if isinstance(first, Tensor) and isinstance(second, Tensor):
            return function(first, second)
        if isinstance(first, Tensor) and first.dim() > 0 and first.numel() > 1:
            return function(first, second)
        return function(scalar(first) if not isinstance(second, Tensor) else first, scalar(second))

    return apply


def _of_sizes(function: Callable[..., Any], first: Value, second: Value) -> Sizes:
    one, two = sizes_of(first), sizes_of(second)
    if len(one.values) != len(two.values) and 1 not in (len(one.values), len(two.values)):
        raise UnknownGraphError("sizes of tensors of different rank are combined")
    count = max(len(one.values), len(two.values))
    left, right = one.values * (count // len(one.values)), two.values * (count // len(two.values))
    found = tuple(function(a, b) for a, b in zip(left, right, strict=True))
    if any(isinstance(size, int) and abs(size) > 2**63 for size in found):
        raise UnknownGraphError("a size that no tensor has")
    return Sizes(found, one.scalar and two.scalar)


def _divide(first: Any, second: Any) -> Any:
    if isinstance(first, Tensor) and not first.is_floating_point():
        return torch.div(first, second, rounding_mode="trunc")
    return first / second


def _reduce(function: Callable[..., Any]) -> Callable[[Call], Value]:
    def apply(call: Call) -> Value:
        axes = call.numbers(1, "axes")
        if not axes and call.attributes.get("noop_with_empty_axes"):
            return call.inputs[0]
        every = axes or list(range(call.rank))
        return function(call.inputs[0], every, bool(call.attributes.get("keepdims", 1)))

    return apply


def _one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """A reduction that torch has for one axis at a time."""

    def apply(value: Any, axes: list[int], keep: bool) -> Any:
        for axis in sorted(axes, reverse=True):
            value = function(value, axis, keep)
        return value

    return apply


def _cast(call: Call) -> Value:
    value, kind = call.inputs[0], _DTYPES.get(call.attributes["to"])
    if kind is None:
        raise UnknownGraphError(f"Cast: to type {call.attributes['to']} of ONNX")
    return value if isinstance(value, Sizes) else value.to(kind)


def _clip(call: Call) -> Value:
    given = (call.get(1), call.get(2))
    names = ("min", "max")
    low, high = (scalar(v) if v is not None else call.attributes.get(n) for v, n in zip(given, names, strict=True))
    value: Value = call.inputs[0]
    if is_number(low, 0) and is_number(high, 6):
        return F.relu6(value)
    return torch.clamp(value, low, high)


def _softmax(function: Callable[..., Any]) -> Callable[[Call], Value]:
    return lambda call: function(call.inputs[0], dim=call.attributes.get("axis", -1))


def _gelu(call: Call) -> Value:
    return F.gelu(call.inputs[0], approximate=call.expect("approximate", "none", "none", "tanh"))


def _hard_sigmoid(call: Call) -> Value:
    slope, shift = call.attributes.get("alpha", 0.2), call.attributes.get("beta", 0.5)
    if abs(slope - 1 / 6) < 1e-6 and shift == 0.5:
        return F.hardsigmoid(call.inputs[0])
    return torch.clamp(call.inputs[0] * slope + shift, 0, 1)


def _modulo(call: Call) -> Value:
    function = torch.fmod if call.attributes.get("fmod") else torch.remainder
    return _binary(function, operator.mod)(call)


def _fold(function: Callable[..., Any]) -> Callable[[Call], Value]:
    def apply(call: Call) -> Value:
        found = call.inputs[0]
        for value in call.inputs[1:]:
            found = function(found, value)
        return found

    return apply


_DTYPES = {
    **{1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64},
    **{9: torch.bool, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16},
}

FUNCTIONS: dict[str, Callable[[Call], Value]] = SHAPING | {
    "Identity": lambda call: call.inputs[0],
    "Dropout": lambda call: call.inputs[0],
    "Relu": _unary(torch.relu),
    "LeakyRelu": lambda call: F.leaky_relu(call.inputs[0], call.attributes.get("alpha", 0.01)),
    "Elu": lambda call: F.elu(call.inputs[0], call.attributes.get("alpha", 1.0)),
    "Sigmoid": _unary(torch.sigmoid),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(F.hardswish),
    "Tanh": _unary(torch.tanh),
    "Softplus": _unary(F.softplus),
    "Softsign": _unary(F.softsign),
    "Mish": _unary(F.mish),
    "Selu": _unary(F.selu),
    "Gelu": _gelu,
    "Softmax": _softmax(F.softmax),
    "LogSoftmax": _softmax(F.log_softmax),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Log": _unary(torch.log),
    "Sqrt": _unary(torch.sqrt),
    "Abs": _unary(torch.abs),
    "Neg": _unary(torch.neg),
    "Floor": _unary(torch.floor),
    "Ceil": _unary(torch.ceil),
    "Round": _unary(torch.round),
    "Reciprocal": _unary(torch.reciprocal),
    "Sin": _unary(torch.sin),
    "Cos": _unary(torch.cos),
    "Not": _unary(torch.logical_not),
    "PRelu": lambda call: torch.where(call.inputs[0] > 0, call.inputs[0], call.inputs[0] * call.inputs[1]),
    "Clip": _clip,
    "Add": _binary(torch.add, operator.add),
    "Sub": _binary(torch.sub, operator.sub),
    "Mul": _binary(torch.mul, operator.mul),
    "Div": _binary(_divide, operator.floordiv),
    "Pow": _binary(torch.pow),
    "Min": _fold(torch.minimum),
    "Max": _fold(torch.maximum),
    "Sum": _fold(torch.add),
    "Equal": _binary(torch.eq),
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Cast": _cast,
    "MatMul": _binary(torch.matmul),
    "Mod": _modulo,
    "GlobalAveragePool": lambda call: F.adaptive_avg_pool2d(call.inputs[0], 1),
    "GlobalMaxPool": lambda call: F.adaptive_max_pool2d(call.inputs[0], 1),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMin": _reduce(torch.amin),
    "ReduceProd": _reduce(_one_by_one(torch.prod)),
    "ReduceL2": _reduce(lambda value, axes, keep: torch.linalg.vector_norm(value, 2, axes, keep)),
}
