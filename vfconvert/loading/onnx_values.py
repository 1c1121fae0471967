"""Values of a graph under construction, and a call of an ONNX operator on them.

A value is a proxy of `torch.fx` (a tensor known when the network runs), a tensor (a constant) or `Sizes` (integers,
some of them known when the network runs: what ONNX computes of shapes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.loading.exported_graph import UnknownGraphError

MOST_LISTED = 10_000
Value = Any  # torch.fx.Proxy | Tensor | Sizes | None
Place = Callable[[nn.Module, Value], Value]  # calls a module, new in the graph, of a value

# By their numbers in ONNX. A network is computed in float32, whatever it was saved in.
DTYPES = {
    **dict.fromkeys((1, 10, 11, 16), torch.float32),
    **{2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool},
}


@dataclass(frozen=True)
class Sizes:
    """Integers of a shape, ints or proxies; `scalar`: one by itself; `floating`: they were cast to a floating type."""

    values: tuple[Any, ...]
    scalar: bool = False
    floating: bool = False


@dataclass(frozen=True, eq=False)
class Call:
    """One node: its inputs (None where left out), attributes, and the known shapes of inputs (None: not known).

    `constant` makes a tensor an attribute of the module, as a value of the graph, and leaves other values.
    """

    kind: str
    inputs: tuple[Value, ...]
    attributes: Mapping[str, Any]
    shapes: tuple[tuple[int | None, ...] | None, ...]
    outputs: int
    batch: int | None = None  # of the network's input, where it is fixed
    opset: int = 18
    constant: Callable[[Value], Value] = lambda value: value

    def get(self, position: int) -> Value:
        """The input, None where it was left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def numbers(self, position: int, name: str = "") -> list[Any] | None:
        """Integers or floats of an input, or of an attribute of older opsets; None where neither is there."""
        value = self.get(position)
        if value is None:
            found = self.attributes.get(name)
            return [found] if isinstance(found, (int, float)) else found
        if isinstance(value, Sizes):
            return list(value.values)
        if isinstance(value, Tensor):
            return listed(value)
        raise UnknownGraphError(f"{self.kind}: its {name or f'input {position}'} is computed from the image")

    def expect(self, name: str, default: Any, *known: Any) -> Any:
        """An attribute that must be one of the known values."""
        value = self.attributes.get(name, default)
        if value not in known:
            raise UnknownGraphError(f"{self.kind}: {name} of {value!r} is not known here")
        return value

    @property
    def rank(self) -> int:
        """Of the first input."""
        shape = self.shapes[0]
        if shape is None:
            raise UnknownGraphError(f"{self.kind}: the shape of its input is not known")
        return len(shape)


def size_of(call: Call, axis: int) -> int:
    """The size of the first input along an axis, where it is known."""
    shape = call.shapes[0]
    size = shape[axis] if shape is not None else None
    if size is None:
        raise UnknownGraphError(f"{call.kind}: the size of its input along axis {axis} is not known")
    return size


def is_number(value: Value, number: float) -> bool:
    """Whether a value is this very number; one that is known when the network runs is not."""
    return isinstance(value, (int, float)) and value == number


def listed(value: Tensor) -> list[Any]:
    """The numbers of a constant: sizes, places, a few of them. Raises `UnknownGraphError` for more."""
    if value.numel() > MOST_LISTED:
        raise UnknownGraphError(f"sizes or places in a list of {value.numel():,}")
    return list(value.flatten().tolist())


def scalar(value: Value) -> Value:
    """A constant of one number as that number, which broadcasts alike."""
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def sizes_of(value: Value) -> Sizes:
    """The integers of a value that is computed with those of shapes."""
    if isinstance(value, Sizes):
        return value
    if isinstance(value, Tensor):
        return Sizes(tuple(listed(value)), value.dim() == 0)
    raise UnknownGraphError("sizes are computed from the image")
