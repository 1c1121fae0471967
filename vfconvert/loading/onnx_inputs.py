"""The one input of an ONNX graph: the image, its axes, and what the file says of its shape."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vfconvert.loading.exported_graph import UnknownGraphError

if TYPE_CHECKING:
    import onnx

Shape = tuple[int | None, ...]
_TO_CHANNELS_FIRST = (0, 3, 1, 2)
_CHANNELS = (1, 3, 4)
_FLOATING = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}


@dataclass(frozen=True)
class StatedInput:
    """The name of the input, its shape as `(C, H, W)` (None: any size), and whether the file has channels last.

    `batch` is the number of images, None for any; `dtype` is by NumPy's name.
    """

    name: str
    shape: Shape
    batch: int | None
    channels_last: bool
    dtype: str


def stated_input(graph: onnx.GraphProto, constants: Container[str]) -> StatedInput:
    """What the graph says of its input. Raises `UnknownGraphError` unless that is one batch of images."""
    import onnx

    given = [value for value in graph.input if value.name not in constants]
    if len(given) != 1:
        names = f" ({', '.join(repr(value.name) for value in given[:4])})" if given else ""
        raise UnknownGraphError(f"it takes {len(given)} inputs{names}, expected one image")
    kind = given[0].type.tensor_type
    if kind.elem_type not in _FLOATING:
        name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        raise UnknownGraphError(f"its input {given[0].name!r} is of type {name}, expected floating point")
    shape = shape_of(given[0]) or (None,) * 4
    if len(shape) != 4:
        raise UnknownGraphError(
            f"its input {given[0].name!r} has {len(shape)} axes, expected 4: images, channels, height, width"
        )
    last = _channels_last(graph, given[0].name, shape)
    _, *places = (shape[0], shape[3], shape[1], shape[2]) if last else shape
    return StatedInput(given[0].name, tuple(places), shape[0], last, _FLOATING[kind.elem_type])


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
