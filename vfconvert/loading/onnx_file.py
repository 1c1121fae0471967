"""ONNX files into networks: what the file says is checked before any weight is read, then its graph is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vfconvert.errors import (
    InputShapeError,
    TruncatedModelError,
    UnsupportedModelError,
    UntrustedModelError,
    first_line,
)
from vfconvert.loading.exported_graph import UnknownGraphError
from vfconvert.loading.onnx_folding import Folding
from vfconvert.loading.onnx_graph import Importer
from vfconvert.loading.onnx_inference import Inference
from vfconvert.loading.onnx_inputs import StatedInput, batch_of, shape_of, stated_inputs
from vfconvert.loading.onnx_inside import load_without_weights
from vfconvert.loading.onnx_nodes import check_nodes
from vfconvert.loading.onnx_outside import EXPORT_AGAIN, check_outside, check_size, mapped
from vfconvert.loading.onnx_values import DTYPES
from vfconvert.silence import silenced

if TYPE_CHECKING:
    import onnx

_LARGEST = 2**31  # bytes
_OLDEST_OPSET = 7
_RELATIVE, _ABSOLUTE = 1e-3, 1e-6  # of the largest output: sums in another order, no more
_RELATIVE_HALF = 2e-2  # where the file computes in half precision


@dataclass(frozen=True, eq=False)
class ImportedNetwork:
    """The network, whose inputs are images `(B, C, H, W)`, what the file says of them, and the files of its weights."""

    module: nn.Module
    inputs: tuple[StatedInput, ...]
    beside: tuple[Path, ...] = ()
    outputs: tuple[str, ...] = ()  # the names of them


def read_onnx(path: Path) -> ImportedNetwork:
    """The network in an ONNX file, its convolutions as `Conv2d`, in evaluation.

    Weights may be in other files of the same folder. Raises `TruncatedModelError`, `UntrustedModelError` (weights
    elsewhere) and `UnsupportedModelError` (operators that are not known here).
    """
    with _named(path):
        model, beside = _checked(path)
        outputs = tuple(value.name for value in model.graph.output)
        return replace(_imported(_simplified(model), path.parent), beside=beside, outputs=outputs)


def files_beside(path: Path) -> tuple[Path, ...]:
    """The other files that hold weights of an ONNX file. Raises as `read_onnx` does."""
    with _named(path):
        return _checked(path)[1]


def _checked(path: Path) -> tuple[onnx.ModelProto, tuple[Path, ...]]:
    if path.stat().st_size > _LARGEST:
        raise UnknownGraphError("it is larger than 2 GiB, which no ONNX file is: weights beyond stand beside it")
    model = load_without_weights(path)
    check_size(model)
    return model, check_outside(model, path)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever goes wrong within is raised as an error of ours that names the file."""
    try:
        yield
    except UnknownGraphError as error:
        raise UnsupportedModelError(
            f"{path}: an ONNX file that is not read here: {error}; save the nn.Module that it was made from"
        ) from error
    except (UntrustedModelError, TruncatedModelError):
        raise
    except Exception as error:  # any type, from damaged bytes
        raise TruncatedModelError(
            f"{path}: no ONNX model, cut off or damaged ({type(error).__name__}: {first_line(error)}); {EXPORT_AGAIN}"
        ) from error


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """Functions inlined, constants as initializers, shapes inferred.

    Without the values of constants: that inference copies them through every Concat, which can double them each time.
    """
    import onnx_ir as ir
    from onnx_ir.passes import common

    check_nodes(model)

    passes = ir.passes.Sequential(
        common.InlinePass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveInitializersFromInputsPass(),
        common.IdentityEliminationPass(),
        common.TopologicalSortPass(),
        common.ShapeInferencePass(data_prop=False),
    )
    with silenced():  # of what cannot be inferred a traceback would be logged
        return ir.to_proto(passes(ir.from_proto(model)).model)


def _imported(model: onnx.ModelProto, folder: Path) -> ImportedNetwork:
    import onnx

    graph = model.graph
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < _OLDEST_OPSET:
        raise UnknownGraphError(f"its opset is {opset}, expected {_OLDEST_OPSET} or later; raise it in the exporter")
    if graph.sparse_initializer:
        raise UnknownGraphError("it has sparse weights")
    constants = {tensor.name: _tensor(tensor, folder) for tensor in graph.initializer}
    inputs = stated_inputs(graph, constants)
    shapes = {value.name: found for value in _typed(graph) if (found := shape_of(value)) is not None}
    importer = Importer(constants, shapes, inputs, opset=opset)
    inference = Inference(model, shapes, importer)
    with Folding(sum(constant.numel() for constant in constants.values())):
        for node in graph.node:
            attributes = {e.name: _attribute(onnx.helper.get_attribute_value(e), folder) for e in node.attribute}
            importer.add(node.op_type, node.domain, node.name, node.input, node.output, attributes)
            inference.complete(node)
    return ImportedNetwork(importer.finish([value.name for value in graph.output]), inputs)


def _attribute(value: Any, folder: Path) -> Any:
    import onnx

    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return _tensor(value, folder)
    if isinstance(value, onnx.GraphProto):
        raise UnknownGraphError("it has a graph within the graph (If, Loop or Scan)")
    return list(value) if not isinstance(value, (int, float)) else value


def _tensor(tensor: onnx.TensorProto, folder: Path) -> Tensor:
    from onnx import numpy_helper
    from onnx.external_data_helper import uses_external_data

    # What is outside stays mapped; what is inside is copied, so that it is writable.
    outside = uses_external_data(tensor)
    found = mapped(tensor, folder) if outside else np.array(numpy_helper.to_array(tensor))
    if DTYPES.get(tensor.data_type) is torch.float32:
        found = found.astype(np.float32, copy=False)
    return torch.from_numpy(found)


def _typed(graph: onnx.GraphProto) -> tuple[onnx.ValueInfoProto, ...]:
    return (*graph.input, *graph.output, *graph.value_info)


def refuse_sizes(path: Path, inputs: Sequence[StatedInput]) -> None:
    """Raise `InputShapeError` where the file says that its inputs differ in height or width."""
    for axis, name in ((1, "height"), (2, "width")):
        known = {one.name: size for one in inputs if (size := one.shape[axis]) is not None}
        if len(set(known.values())) > 1:
            said = ", ".join(f"{given!r}: {size}" for given, size in known.items())
            raise InputShapeError(
                f"{path}: its inputs differ in {name} ({said}), expected one; export it with inputs of one size"
            )


def refuse_shape(path: Path, inputs: Sequence[StatedInput], shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise `InputShapeError` where the file says that one of its inputs has another shape `(C, H, W)`."""
    for images, shape in zip(inputs, shapes, strict=True):
        if any(stated not in (None, size) for stated, size in zip(images.shape, shape, strict=True)):
            stated = " x ".join(str(size) if size is not None else "any" for size in images.shape)
            raise InputShapeError(
                f"{path}: its input {images.name!r} is {stated}, got {' x '.join(map(str, shape))}; give that by "
                "--size or --input-shape, or export the file again with free sizes"
            )


def check_onnx(
    path: Path, network: ImportedNetwork, images: Sequence[Tensor], run: Callable[[dict[str, Any]], list[Any]]
) -> None:
    """Raise `UnsupportedModelError` unless the network computes for `images` what the file does.

    `images` are `(B, C, H, W)`, of each input; `run` gives the file's outputs, as arrays, for arrays as its inputs have
    them, by name.
    """
    with torch.no_grad():
        got = network.module(*(one.clone() for one in images))
    got = got if isinstance(got, tuple) else (got,)
    halved = any(stated.dtype == "float16" for stated in network.inputs)
    arrays = {stated.name: _array(stated, one) for stated, one in zip(network.inputs, images, strict=True)}
    count = batch_of(network.inputs) or 1
    for begin in range(0, len(images[0]) - count + 1, count):
        found = run({name: array[begin : begin + count] for name, array in arrays.items()})
        for ours, theirs in zip(got, found, strict=True):
            _compare(ours[begin : begin + count], torch.from_numpy(np.asarray(theirs)).to(ours), path, halved)


def _array(stated: StatedInput, images: Tensor) -> Any:
    axes = images.permute(0, 2, 3, 1) if stated.channels_last else images
    return axes.contiguous().cpu().numpy().astype(stated.dtype)


def _compare(ours: Tensor, wanted: Tensor, path: Path, halved: bool) -> None:
    same = ours.shape == wanted.shape
    scale = float(wanted.abs().max()) if wanted.numel() else 0.0
    error = float((ours - wanted).abs().max()) if same and wanted.numel() else 0.0
    if not same or not error <= (_RELATIVE_HALF if halved else _RELATIVE) * scale + _ABSOLUTE:
        said = f"error {error:.2g} of outputs up to {scale:.2g}" if same else "outputs of another shape"
        raise UnsupportedModelError(
            f"{path}: the imported network does not compute what the file does ({said}); save the nn.Module that it "
            "was made from"
        )
