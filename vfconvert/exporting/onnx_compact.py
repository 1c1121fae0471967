"""Taking out of an ONNX graph everything that its computation does not need. All functions edit in place."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def strip_(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes (stack traces, scopes, node names), inferred shapes and unread initializers.

    It writes several hundred bytes of them per node, more than the weights of a small layer. Node names are
    optional in ONNX; a node is known by its outputs.
    """
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        holder.ClearField("metadata_props")
        holder.ClearField("doc_string")
    graph.ClearField("value_info")
    for node in graph.node:
        node.ClearField("name")
    read = names_read(graph)
    unread = [index for index, tensor in enumerate(graph.initializer) if tensor.name not in read]
    for index in reversed(unread):
        del graph.initializer[index]


def names_read(graph: onnx.GraphProto) -> set[str]:
    """Every name that a node, a node of a subgraph, or the graph's own output reads."""
    read = {value.name for value in graph.output}
    for node in graph.node:
        read.update(node.input)
        for subgraph in _subgraphs(node):
            read |= names_read(subgraph)
    return read


def names_written(graph: onnx.GraphProto) -> set[str]:
    """Every name that stands for a value in the graph or in one of its subgraphs."""
    written = {value.name for value in (*graph.input, *graph.initializer)}
    for node in graph.node:
        written.update(node.output)
        for subgraph in _subgraphs(node):
            written |= names_written(subgraph)
    return written


def rename_(graph: onnx.GraphProto, input_names: Sequence[str], output_names: Sequence[str], prefix: str) -> None:
    """Name the inputs and the outputs in order, take `prefix` off the parameters' names, number all other values.

    All names given differ from each other.
    """
    names = dict(zip((value.name for value in graph.input), input_names, strict=True))
    names.update(zip((value.name for value in graph.output), output_names, strict=True))
    taken = {*input_names, *output_names} | names_read(graph)  # which may be of values that are yet to be written
    for name in (tensor.name for tensor in graph.initializer):
        short = name.removeprefix(prefix)
        if short != name and name not in names and short not in taken:
            names[name] = short
            taken.add(short)
    values = [tensor.name for tensor in graph.initializer] + [name for node in graph.node for name in node.output]
    values += sorted(names_written(graph) & {*input_names, *output_names})  # within subgraphs
    rest = dict.fromkeys(name for name in values if name and name not in names)
    names.update(zip(rest, fresh_names("v", len(rest), names_written(graph) | taken), strict=True))
    _rename_values_(graph, names)


def rename_apart_(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename what there is of these; another value that has one of the new names is numbered. New names all differ."""
    written = names_written(graph)
    names = {name: new for name, new in names.items() if name in written}
    others = sorted(name for name in written if name in names.values() and name not in names)
    taken = written | names_read(graph) | set(names.values())
    _rename_values_(graph, {**names, **dict(zip(others, fresh_names("v", len(others), taken), strict=True))})


def fresh_names(prefix: str, count: int, taken: Collection[str]) -> list[str]:
    """`count` numbered names, none of them in `taken`."""
    free = (name for number in itertools.count() if (name := f"{prefix}{number}") not in taken)
    return list(itertools.islice(free, count))


def name_dimensions_(graph: onnx.GraphProto) -> None:
    """Call the symbols of the inputs' dimensions "batch", "height" and "width", in every output's too.

    What a further input does not share with those before it is called "height_1" and so on, by its place.
    """
    names = {0: "batch", 2: "height", 3: "width"}
    symbols: dict[str, str] = {}
    for place, given in enumerate(graph.input):
        for index, dim in enumerate(given.type.tensor_type.shape.dim):
            if dim.dim_param and dim.dim_param not in symbols:
                name = names.get(index, "")
                symbols[dim.dim_param] = f"{name}_{place}" if name and place else name
    for value in (*graph.input, *graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            for symbol, name in symbols.items():
                if name and dimension.dim_param:
                    dimension.dim_param = re.sub(rf"\b{re.escape(symbol)}\b", name, dimension.dim_param)


def _rename_values_(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
        for subgraph in _subgraphs(node):
            _rename_values_(subgraph, names)


def _subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    single = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return single + [graph for attribute in node.attribute for graph in attribute.graphs]
