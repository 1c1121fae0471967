"""What ONNX's operators are in torch: a table from their names to functions of a call, which return its outputs.

Semantics: the operators' definitions in the ONNX standard, opsets 7 and later.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vfconvert.loading.exported_graph import UnknownGraphError
from vfconvert.loading.onnx_reductions import REDUCTIONS
from vfconvert.loading.onnx_resizing import RESIZING
from vfconvert.loading.onnx_shapes import SHAPING
from vfconvert.loading.onnx_values import DTYPES, Call, Sizes, Value, is_number, scalar, sizes_of


def _unary(function: Callable[..., Any], whole: Callable[..., Any] | None = None) -> Callable[[Call], Value]:
    def apply(call: Call) -> Value:
        value = call.inputs[0]
        if isinstance(value, Sizes) and whole is not None:
            return Sizes(tuple(map(whole, value.values)), value.scalar, value.floating)
        return function(value)

    return apply


def _binary(function: Callable[..., Any], whole: Callable[..., Any] | None = None) -> Callable[[Call], Value]:
    def apply(call: Call) -> Value:
        first, second = (_number_of(value) if _meets_image(call) else value for value in call.inputs)
        if isinstance(first, Sizes) or isinstance(second, Sizes):
            if whole is None:
                raise UnknownGraphError(f"{call.kind} of the sizes of a tensor is not known here")
            return _of_sizes(whole, first, second)
        if isinstance(first, Tensor):
            return function(first, second)
        return function(first, scalar(second))

    return apply


def _meets_image(call: Call) -> bool:
    """Whether a value that is known when the network runs is among the inputs."""
    return not all(isinstance(value, (Sizes, Tensor)) for value in call.inputs)


def _number_of(value: Value) -> Value:
    """One size as the number that it is."""
    return value.values[0] if isinstance(value, Sizes) and len(value.values) == 1 else value


def _of_sizes(function: Callable[..., Any], first: Value, second: Value) -> Sizes:
    one, two = sizes_of(first), sizes_of(second)
    if len(one.values) != len(two.values) and 1 not in (len(one.values), len(two.values)):
        raise UnknownGraphError("sizes of tensors of different rank are combined")
    count = max(len(one.values), len(two.values))
    left, right = one.values * (count // len(one.values)), two.values * (count // len(two.values))
    if one.floating or two.floating:
        function = {operator.floordiv: operator.truediv}.get(function, function)
    found = tuple(function(_whole(a), _whole(b)) for a, b in zip(left, right, strict=True))
    if any(isinstance(size, int) and abs(size) > 2**63 for size in found):
        raise UnknownGraphError("a size that no tensor has")
    return Sizes(found, one.scalar and two.scalar, one.floating or two.floating)


def _whole(number: Any) -> Any:
    """A number without a fraction as an integer, so that sizes stay sizes."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _divide(first: Any, second: Any) -> Any:
    if isinstance(first, Tensor) and not first.is_floating_point():
        return torch.div(first, second, rounding_mode="trunc")
    return first / second


def _cast(call: Call) -> Value:
    value, to = call.inputs[0], call.attributes["to"]
    if to not in DTYPES:
        raise UnknownGraphError(f"Cast: to type {to} of ONNX")
    kind = DTYPES[to]
    if isinstance(value, Sizes):
        whole = value.values if kind.is_floating_point or not value.floating else map(torch.sym_int, value.values)
        return Sizes(tuple(whole), value.scalar, kind.is_floating_point)
    return value.to(kind)


def _clip(call: Call) -> Value:
    given = (call.get(1), call.get(2))
    names = ("min", "max")
    low, high = (scalar(v) if v is not None else call.attributes.get(n) for v, n in zip(given, names, strict=True))
    value: Value = call.inputs[0]
    if low is None and high is None:
        return value
    if is_number(low, 0) and is_number(high, 6):
        return F.relu6(value)
    return torch.clamp(value, low, high)


def _softmax(function: Callable[..., Any]) -> Callable[[Call], Value]:
    def apply(call: Call) -> Value:
        value = call.inputs[0]
        if call.opset >= 13:
            return function(value, dim=call.attributes.get("axis", -1))
        axis, rank = call.attributes.get("axis", 1), call.rank
        if axis in (-1, rank - 1):
            return function(value, dim=-1)
        # Until opset 13 all axes from this one on were one.
        return torch.reshape(function(torch.flatten(value, axis), dim=-1), value.shape)

    return apply


def _dropout(call: Call) -> Value:
    training = call.get(2)
    if training is not None and (not isinstance(training, Tensor) or bool(training.any())):
        raise UnknownGraphError("Dropout: as in training; export for inference")
    return [call.inputs[0], torch.ones_like(call.inputs[0], dtype=torch.bool)] if call.outputs > 1 else call.inputs[0]


def _gelu(call: Call) -> Value:
    return F.gelu(call.inputs[0], approximate=call.expect("approximate", "none", "none", "tanh"))


def _hard_sigmoid(call: Call) -> Value:
    slope, shift = call.attributes.get("alpha", 0.2), call.attributes.get("beta", 0.5)
    if abs(slope - 1 / 6) < 1e-6 and shift == 0.5:
        return F.hardsigmoid(call.inputs[0])
    return torch.clamp(call.inputs[0] * slope + shift, 0, 1)


def _selu(call: Call) -> Value:
    scale, alpha = call.attributes.get("gamma", 1.0507009873554805), call.attributes.get("alpha", 1.6732632423543772)
    if abs(scale - 1.0507009873554805) < 1e-6 and abs(alpha - 1.6732632423543772) < 1e-6:
        return F.selu(call.inputs[0])
    return scale * F.elu(call.inputs[0], alpha)


def _thresholded(call: Call) -> Value:
    value, threshold = call.inputs[0], call.attributes.get("alpha", 1.0)
    return torch.where(value > threshold, value, value * 0)


def _shrink(call: Call) -> Value:
    value, bias, edge = call.inputs[0], call.attributes.get("bias", 0.0), call.attributes.get("lambd", 0.5)
    return torch.where(value > edge, value - bias, torch.where(value < -edge, value + bias, value * 0))


def _swish(call: Call) -> Value:
    value, alpha = call.inputs[0], call.attributes.get("alpha", 1.0)
    return F.silu(value) if alpha == 1 else value * torch.sigmoid(value * alpha)


def _normalised(call: Call) -> Value:
    value, power, axis = call.inputs[0], call.attributes.get("p", 2), call.attributes.get("axis", -1)
    length = torch.linalg.vector_norm(value, power, axis, True)
    return value / torch.clamp(length, torch.finfo(torch.float32).tiny)


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


FUNCTIONS: dict[str, Callable[[Call], Value]] = {
    **SHAPING,
    **RESIZING,
    **REDUCTIONS,
    "Identity": lambda call: call.inputs[0],
    "Dropout": _dropout,
    "Relu": _unary(torch.relu),
    "LeakyRelu": lambda call: F.leaky_relu(call.inputs[0], call.attributes.get("alpha", 0.01)),
    "Elu": lambda call: F.elu(call.inputs[0], call.attributes.get("alpha", 1.0)),
    "Celu": lambda call: F.celu(call.inputs[0], call.attributes.get("alpha", 1.0)),
    "ThresholdedRelu": _thresholded,
    "Shrink": _shrink,
    "Sigmoid": _unary(torch.sigmoid),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(F.hardswish),
    "Swish": _swish,
    "Tanh": _unary(torch.tanh),
    "Softplus": _unary(F.softplus),
    "Softsign": _unary(F.softsign),
    "Mish": _unary(F.mish),
    "Selu": _selu,
    "Gelu": _gelu,
    "Softmax": _softmax(F.softmax),
    "LogSoftmax": _softmax(F.log_softmax),
    "LpNormalization": _normalised,
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Log": _unary(torch.log),
    "Sqrt": _unary(torch.sqrt),
    "Abs": _unary(torch.abs),
    "Neg": _unary(torch.neg),
    "Sign": _unary(torch.sign),
    "Floor": _unary(torch.floor, lambda number: torch.sym_int(number // 1)),
    "Ceil": _unary(torch.ceil, lambda number: -torch.sym_int(-number // 1)),
    "Round": _unary(torch.round),
    "Reciprocal": _unary(torch.reciprocal),
    **{
        kind: _unary(getattr(torch, kind.lower()))
        for kind in ["Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"]
    },
    "Not": _unary(torch.logical_not),
    "And": _binary(torch.logical_and),
    "Or": _binary(torch.logical_or),
    "Xor": _binary(torch.logical_xor),
    "Clip": _clip,
    "Add": _binary(torch.add, operator.add),
    "Sub": _binary(torch.sub, operator.sub),
    "Mul": _binary(torch.mul, operator.mul),
    "Div": _binary(_divide, operator.floordiv),
    "Pow": _binary(torch.pow),
    "Min": _fold(torch.minimum),
    "Max": _fold(torch.maximum),
    "Sum": _fold(torch.add),
    "Mean": lambda call: _fold(torch.add)(call) / len(call.inputs),
    "Equal": _binary(torch.eq),
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Cast": _cast,
    "Mod": _modulo,
    "Einsum": lambda call: torch.einsum(call.attributes["equation"], *call.inputs),
}
