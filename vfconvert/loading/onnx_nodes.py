"""What the nodes of an ONNX file are, told before onnx infers their shapes: that trusts the numbers in some of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from vfconvert.loading.exported_graph import LARGEST_SIZE, UnknownGraphError
from vfconvert.loading.onnx_graph import check_known

if TYPE_CHECKING:
    import onnx

_MOST_AXES = 64
_AXES = ("axis", "axes")
_BELOW_ZERO = (*_AXES, "pads", "start", "end", "shape")
_ANY = ("Slice", "Constant")  # a slice to the end has the largest number there is


def check_nodes(model: onnx.ModelProto) -> None:
    """Raise `UnknownGraphError` for operators that are not read, graphs in graphs, and numbers that no network has."""
    functions = {(one.domain, one.name) for one in model.functions}
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in nodes:
            if any(entry.HasField("g") or entry.graphs for entry in node.attribute):
                raise UnknownGraphError("it has a graph within the graph (If, Loop or Scan)")
            if (node.domain, node.op_type) not in functions and node.op_type != "Constant":
                check_known(node.op_type, node.domain)
            if node.op_type not in _ANY:
                _check_numbers(node.op_type, node.attribute)


def _check_numbers(kind: str, attributes: Iterable[onnx.AttributeProto]) -> None:
    for entry in attributes:
        most = _MOST_AXES if entry.name in _AXES else LARGEST_SIZE
        least = -most if entry.name in _BELOW_ZERO else 0
        for number in (entry.i, *entry.ints):
            if not least <= number <= most:
                raise UnknownGraphError(f"{kind!r} has {number} as {entry.name!r}")
