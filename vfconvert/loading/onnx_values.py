"""Values of a graph under construction, and a call of an ONNX operator on them.

A value is a proxy of `torch.fx` (a tensor known when the network runs), a tensor (a constant) or `Sizes` (integers,
some of them known when the network runs: what ONNX computes of shapes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vfconvert.loading.exported_graph import UnknownGraphError

MOST_LISTED = 10_000
Value = Any  # torch.fx.Proxy | Tensor | Sizes | None


@dataclass(frozen=True)
class Sizes:
    """Integers of a shape, ints or proxies; `scalar`: one by itself."""

    values: tuple[Any, ...]
    scalar: bool = False


@dataclass(frozen=True, eq=False)
class Call:
    """One node: its inputs (None where left out), attributes, and the known shapes of inputs (None: not known)."""

    kind: str
    inputs: tuple[Value, ...]
    attributes: Mapping[str, Any]
    shapes: tuple[tuple[int | None, ...] | None, ...]
    outputs: int
    batch: int | None = None  # of the network's input, where it is fixed

    def get(self, position: int) -> Value:
        """The input, None where it was left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def numbers(self, position: int, name: str = "") -> list[Any] | None:
        """Integers or floats of an input, or of an attribute of older opsets; None where neither is there."""
        value = self.get(position)
        if value is None:
            found = self.attributes.get(name)
            return [found] if isinstance(found, int) else found
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
