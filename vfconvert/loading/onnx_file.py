"""ONNX files into networks: what the file says is checked before any weight is read, then its graph is imported."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
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
from vfconvert.loading.onnx_graph import Importer
from vfconvert.loading.onnx_inference import Inference
from vfconvert.loading.onnx_inputs import StatedInput, shape_of, stated_input
from vfconvert.loading.onnx_values import DTYPES
from vfconvert.silence import silenced

if TYPE_CHECKING:
    import onnx

_EXPORT_AGAIN = "download or export it again"
_OLDEST_OPSET = 7
_RELATIVE, _ABSOLUTE = 1e-3, 1e-6  # of the largest output: sums in another order, no more
_RELATIVE_HALF = 2e-2  # where the file computes in half precision


@dataclass(frozen=True, eq=False)
class ImportedNetwork:
    """The network, which takes images `(B, C, H, W)`, and what the file says of its input."""

    module: nn.Module
    images: StatedInput


def read_onnx(path: Path) -> ImportedNetwork:
    """The network in an ONNX file, its convolutions as `Conv2d`, in evaluation.

    Weights may be in other files of the same folder. Raises `TruncatedModelError`, `UntrustedModelError` (weights
    elsewhere) and `UnsupportedModelError` (operators that are not known here).
    """
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
        _check_outside(model, path)
        onnx.load_external_data_for_model(model, str(path.parent))
        return _imported(_simplified(model))
    except UnknownGraphError as error:
        raise UnsupportedModelError(
            f"{path}: an ONNX file that is not read here: {error}; save the nn.Module that it was made from"
        ) from error
    except (UntrustedModelError, TruncatedModelError):
        raise
    except Exception as error:  # any type, from damaged bytes
        raise TruncatedModelError(
            f"{path}: no ONNX model, cut off or damaged ({type(error).__name__}: {first_line(error)}); {_EXPORT_AGAIN}"
        ) from error


def _check_outside(model: onnx.ModelProto, path: Path) -> None:
    """Weights outside the file lie in its folder, in regular files that are long enough."""
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    folder = Path(os.path.realpath(path.parent))
    for tensor in model.graph.initializer:
        if not uses_external_data(tensor):
            continue
        info = ExternalDataInfo(tensor)
        place = folder / info.location
        real = Path(os.path.realpath(place))
        if os.path.isabs(info.location) or not real.is_relative_to(folder) or real != place:
            raise UntrustedModelError(
                f"{path}: its weights are to be read from {info.location!r}, outside its folder; {_EXPORT_AGAIN}"
            )
        if not real.is_file():
            raise TruncatedModelError(f"{path}: its weights in {info.location!r} are missing; {_EXPORT_AGAIN}")
        end = (info.offset or 0) + (info.length or 0)
        if end > real.stat().st_size:
            raise TruncatedModelError(f"{path}: its weights in {info.location!r} are cut off; {_EXPORT_AGAIN}")


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """Functions inlined, constants as initializers, shapes inferred."""
    import onnx_ir as ir
    from onnx_ir.passes import common

    passes = ir.passes.Sequential(
        common.InlinePass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveInitializersFromInputsPass(),
        common.IdentityEliminationPass(),
        common.TopologicalSortPass(),
        common.ShapeInferencePass(),
    )
    with silenced():  # what cannot be inferred is logged at length; the import says what it misses
        return ir.to_proto(passes(ir.from_proto(model)).model)


def _imported(model: onnx.ModelProto) -> ImportedNetwork:
    import onnx

    graph = model.graph
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < _OLDEST_OPSET:
        raise UnknownGraphError(f"its opset is {opset}, expected {_OLDEST_OPSET} or later; raise it in the exporter")
    constants = {tensor.name: _tensor(tensor) for tensor in graph.initializer}
    images = stated_input(graph, constants)
    shapes = {value.name: found for value in _typed(graph) if (found := shape_of(value)) is not None}
    importer = Importer(constants, shapes, images.name, channels_last=images.channels_last, opset=opset)
    inference = Inference(model, shapes, importer)
    for node in graph.node:
        attributes = {entry.name: _attribute(onnx.helper.get_attribute_value(entry)) for entry in node.attribute}
        importer.add(node.op_type, node.domain, node.name, node.input, node.output, attributes)
        inference.complete(node)
    return ImportedNetwork(importer.finish([value.name for value in graph.output]), images)


def _attribute(value: Any) -> Any:
    import onnx

    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return _tensor(value)
    if isinstance(value, onnx.GraphProto):
        raise UnknownGraphError("it has a graph within the graph (If, Loop or Scan)")
    return list(value) if not isinstance(value, (int, float)) else value


def _tensor(tensor: onnx.TensorProto) -> Tensor:
    from onnx import numpy_helper

    found = np.array(numpy_helper.to_array(tensor))  # a copy of its own, writable
    if DTYPES.get(tensor.data_type) is torch.float32:
        found = found.astype(np.float32)
    return torch.from_numpy(found)


def _typed(graph: onnx.GraphProto) -> tuple[onnx.ValueInfoProto, ...]:
    return (*graph.input, *graph.output, *graph.value_info)


def refuse_shape(path: Path, images: StatedInput, shape: tuple[int, int, int]) -> None:
    """Raise `InputShapeError` where the file says that its input has another shape `(C, H, W)`."""
    if any(stated not in (None, size) for stated, size in zip(images.shape, shape, strict=True)):
        stated = "x".join(str(size) if size is not None else "any" for size in images.shape)
        raise InputShapeError(
            f"{path}: its input {images.name!r} is {stated}, got {'x'.join(map(str, shape))}; give that by --size or "
            "--input-shape, or export the file again with free sizes"
        )


def check_onnx(path: Path, network: ImportedNetwork, images: Tensor, run: Callable[[Any], list[Any]]) -> None:
    """Raise `UnsupportedModelError` unless the network computes for `images` what the file does.

    `images` are `(B, C, H, W)`; `run` gives the file's outputs, as arrays, for an array as its input has it.
    """
    with torch.no_grad():
        got = network.module(images.clone())
    got = got if isinstance(got, tuple) else (got,)
    stated, halved = network.images, network.images.dtype == "float16"
    arrays = (images.permute(0, 2, 3, 1) if stated.channels_last else images).contiguous().cpu().numpy()
    count = stated.batch or 1
    for begin in range(0, len(images) - count + 1, count):
        found = run(arrays[begin : begin + count].astype(stated.dtype))
        for ours, theirs in zip(got, found, strict=True):
            _compare(ours[begin : begin + count], torch.from_numpy(np.asarray(theirs)).to(ours), path, halved)


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
