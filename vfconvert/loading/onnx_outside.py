"""Where the weights of an ONNX file are, and how many nodes it comes to: told before any is read or copied."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vfconvert.errors import TruncatedModelError, UntrustedModelError
from vfconvert.loading.exported_graph import UnknownGraphError

if TYPE_CHECKING:
    import onnx

EXPORT_AGAIN = "download or export it again"
MOST_NODES = 20_000
_SMALL = 4096  # bytes: what may be a shape, which is to be known before weights are read


def check_size(model: onnx.ModelProto) -> None:
    """Raise `UnknownGraphError` where functions within functions come to more nodes than any network has."""
    functions = {(one.domain, one.name): one.node for one in model.functions}
    known = dict[tuple[str, str], int]()

    def count(nodes: Iterable[onnx.NodeProto], above: frozenset[tuple[str, str]]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in above or len(above) > 100:
                raise UnknownGraphError("a function of it calls itself")
            if key in functions and key not in known:
                known[key] = count(functions[key], above | {key})
            total += known.get(key, 1) + sum(count(graph.node, above) for graph in _graphs(node))
        return total

    if (total := count(model.graph.node, frozenset())) > MOST_NODES:
        raise UnknownGraphError(f"it comes to {min(total, 10**12):,} nodes, more than {MOST_NODES:,}")


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor in the file: of the graph, of graphs in it, of attributes and functions, sparse ones too."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)
    for training in model.training_info:
        yield from _of_graph(training.initialization)
        yield from _of_graph(training.algorithm)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for entry in node.attribute:
            yield from (entry.t, *entry.tensors)
            for sparse in (entry.sparse_tensor, *entry.sparse_tensors):
                yield from (sparse.values, sparse.indices)
        for graph in _graphs(node):
            yield from _of_graph(graph)


def _graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for entry in node.attribute:
        if entry.HasField("g"):
            yield entry.g
        yield from entry.graphs


def check_outside(model: onnx.ModelProto, path: Path) -> tuple[Path, ...]:
    """The other files that hold weights: in the folder of this one, regular files that are long enough.

    Small weights are read in.

    Raises `UntrustedModelError` and `TruncatedModelError`.
    """
    from onnx import TensorProto
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    folder, files = Path(os.path.realpath(path.parent)), set[Path]()
    for tensor in tensors_of(model):
        if min(tensor.dims, default=0) < 0:
            raise UnknownGraphError(f"a tensor of sizes {list(tensor.dims)[:8]}")
        if not uses_external_data(tensor):
            continue
        info = ExternalDataInfo(tensor)
        real = _inside(str(info.location), folder, path)
        files.add(real)
        begin, size = int(info.offset or 0), byte_size(tensor)
        if begin < 0 or size != (size if info.length is None else info.length) or begin + size > real.stat().st_size:
            raise TruncatedModelError(f"{path}: its weights in {info.location!r} are cut off; {EXPORT_AGAIN}")
        if size <= _SMALL:
            with real.open("rb") as file:
                file.seek(begin)
                tensor.raw_data = file.read(size)
            tensor.ClearField("external_data")
            tensor.data_location = TensorProto.DEFAULT
    own = os.path.realpath(path)  # a file may say that its weights are in itself, by any spelling of its name
    return tuple(sorted(file for file in files if os.path.realpath(file) != own))


def _inside(location: str, folder: Path, path: Path) -> Path:
    if location == path.name:
        return path
    place = folder / location
    real = Path(os.path.realpath(place))
    if _is_link(location, folder):
        raise UntrustedModelError(
            f"{path}: its weights in {location!r} are a symbolic link, which is not followed; copy the files that the "
            "links lead to into one folder (cp -L) and give that copy"
        )
    if os.path.isabs(location) or not real.is_relative_to(folder) or real != place:
        raise UntrustedModelError(
            f"{path}: its weights are to be read from {location!r}, outside its folder; {EXPORT_AGAIN}"
        )
    if not real.is_file():
        raise TruncatedModelError(f"{path}: its weights in {location!r} are missing; {EXPORT_AGAIN}")
    return real


def _is_link(location: str, folder: Path) -> bool:
    """Whether a name is one within the folder, and a link or in one: what caches of downloads hold are links."""
    parts = Path(location).parts
    if os.path.isabs(location) or ".." in parts:
        return False
    return any(folder.joinpath(*parts[: count + 1]).is_symlink() for count in range(len(parts)))


def byte_size(tensor: onnx.TensorProto) -> int:
    """Bytes of a tensor's numbers as a file holds them. Raises `UnknownGraphError` for types that are none."""
    return int(math.prod(tensor.dims) * _item(tensor).itemsize)


def _item(tensor: onnx.TensorProto) -> np.dtype[np.generic]:
    from onnx import helper

    if min(tensor.dims, default=0) < 0 or tensor.data_type not in _NUMBERS:
        raise UnknownGraphError(f"a tensor of type {tensor.data_type} and sizes {list(tensor.dims)[:8]}")
    return helper.tensor_dtype_to_np_dtype(tensor.data_type)


_NUMBERS = frozenset([1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16])  # of ONNX: whole bytes, no text, no complex numbers


def mapped(tensor: onnx.TensorProto, folder: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """The numbers of a tensor outside the file, checked before, as memory that is mapped to them; changes stay here.

    Those that lie at no multiple of their size are read, since kernels may count on it.
    """
    from onnx.external_data_helper import ExternalDataInfo

    info, shape, item = ExternalDataInfo(tensor), tuple(tensor.dims), _item(tensor)
    place, begin = folder / info.location, int(info.offset or 0)
    if begin % item.itemsize:
        return np.fromfile(place, item, math.prod(shape), offset=begin).reshape(shape)
    return np.memmap(place, item, "c", begin, shape)
