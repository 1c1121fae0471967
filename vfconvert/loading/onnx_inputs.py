"""The inputs of an ONNX graph: images, their axes, and what the file says of their shapes."""

from __future__ import annotations

import keyword
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vfconvert.loading.exported_graph import UnknownGraphError

if TYPE_CHECKING:
    import onnx

Shape = tuple[int | None, ...]
_TO_CHANNELS_FIRST = (0, 3, 1, 2)
_CHANNELS = (1, 3, 4)
_READ_BY_FX = ("self", "torch", "device", "slice", "inf", "nan")  # by the code that it makes of a graph
_FLOATING = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}


@dataclass(frozen=True)
class StatedInput:
    """The name of an input, its shape as `(C, H, W)` (None: any size), and whether the file has channels last.

    `batch` is the number of images, None for any; `dtype` is by NumPy's name. `argument` is what the network's forward
    calls it.
    """

    name: str
    argument: str
    shape: Shape
    batch: int | None
    channels_last: bool
    dtype: str


def stated_inputs(graph: onnx.GraphProto, constants: Container[str]) -> tuple[StatedInput, ...]:
    """What the graph says of its inputs. Raises `UnknownGraphError` unless each is a batch of images, of one number."""
    given = [value for value in graph.input if value.name not in constants]
    if not given:
        raise UnknownGraphError("it takes no input, expected images")
    arguments = ("images",) if len(given) == 1 else _arguments([value.name for value in given])
    found = tuple(_stated(graph, value, argument) for value, argument in zip(given, arguments, strict=True))
    if len(batches := sorted({one.batch for one in found if one.batch is not None})) > 1:
        raise UnknownGraphError(f"its inputs are {' and '.join(map(str, batches))} images, expected as many of each")
    return found


def _stated(graph: onnx.GraphProto, value: onnx.ValueInfoProto, argument: str) -> StatedInput:
    import onnx

    kind = value.type.tensor_type
    if kind.elem_type not in _FLOATING:
        name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        raise UnknownGraphError(f"its input {value.name!r} is of type {name}, expected floating point")
    shape = shape_of(value) or (None,) * 4
    if len(shape) != 4:
        raise UnknownGraphError(
            f"its input {value.name!r} has {len(shape)} axes, expected 4: images, channels, height, width"
        )
    last = _channels_last(graph, value.name, shape)
    _, *places = (shape[0], shape[3], shape[1], shape[2]) if last else shape
    return StatedInput(value.name, argument, tuple(places), shape[0], last, _FLOATING[kind.elem_type])


def _arguments(names: list[str]) -> tuple[str, ...]:
    """The names as Python's arguments ("left.1": "left_1"); by their number where that gives none, or one twice."""
    plain = ["_".join(re.findall(r"\w+", name, re.ASCII)) for name in names]
    usable = len(set(plain)) == len(plain) and all(map(_is_argument, plain))
    return tuple(plain) if usable else tuple(f"input_{index}" for index in range(len(names)))


def _is_argument(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and name not in _READ_BY_FX


def batch_of(inputs: Sequence[StatedInput]) -> int | None:
    """The number of images that the file is for, None for any."""
    return next((one.batch for one in inputs if one.batch is not None), None)


def shape_of(value: onnx.ValueInfoProto) -> Shape | None:
    """The sizes of a value, None where any; None where not even their number is known."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    sizes = (size.dim_value if size.HasField("dim_value") else 0 for size in kind.shape.dim)
    return tuple(size if size > 0 else None for size in sizes)


def _channels_last(graph: onnx.GraphProto, name: str, shape: Shape) -> bool:
    """As TensorFlow's are: seen by a transposition of the input, or by its sizes."""
    readers = [node for node in graph.node if name in node.input]
    orders = [tuple(entry.ints) for node in readers if node.op_type == "Transpose" for entry in node.attribute]
    if readers and len(orders) == len(readers) and set(orders) == {_TO_CHANNELS_FIRST}:
        return True
    return shape[3] in _CHANNELS and shape[1] not in _CHANNELS
