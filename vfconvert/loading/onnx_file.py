"""ONNX files into networks: what the file says is checked before any weight is read, then its graph is imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vfconvert.errors import TruncatedModelError, UnsupportedModelError, UntrustedModelError, first_line
from vfconvert.loading.exported_graph import UnknownGraphError
from vfconvert.loading.onnx_folding import Folding
from vfconvert.loading.onnx_graph import Importer, Shape
from vfconvert.loading.onnx_outside import EXPORT_AGAIN, check_outside, check_size, mapped
from vfconvert.silence import silenced

if TYPE_CHECKING:
    import onnx

_LARGEST = 2**31  # bytes
_RELATIVE, _ABSOLUTE = 1e-3, 1e-6  # of the largest output: sums in another order, no more


def read_onnx(path: Path) -> nn.Module:
    """The network in an ONNX file, its convolutions as `Conv2d`, in evaluation.

    Weights may be in other files of the same folder. Raises `TruncatedModelError`, `UntrustedModelError` (weights
    elsewhere) and `UnsupportedModelError` (operators that are not known here).
    """
    import onnx

    try:
        if path.stat().st_size > _LARGEST:
            raise UnknownGraphError("it is larger than 2 GiB, which no ONNX file is: weights beyond stand beside it")
        model = onnx.load(path, load_external_data=False)
        check_size(model)
        check_outside(model, path)
        module = _imported(_simplified(model), path.parent)
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
    return module


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """Functions inlined, constants as initializers, shapes inferred.

    Without the values of constants: that inference copies them through every Concat, which can double them each time.
    """
    import onnx_ir as ir
    from onnx_ir.passes import common

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


def _imported(model: onnx.ModelProto, folder: Path) -> nn.Module:
    import onnx

    graph = model.graph
    if graph.sparse_initializer:
        raise UnknownGraphError("it has sparse weights")
    constants = {tensor.name: _tensor(tensor, folder) for tensor in graph.initializer}
    shapes = {value.name: _shape(value) for value in (*graph.input, *graph.output, *graph.value_info)}
    given = [value.name for value in graph.input if value.name not in constants]
    if len(given) != 1:
        raise UnknownGraphError(f"it takes {len(given)} inputs, expected one image")
    importer = Importer(constants, {name: shape for name, shape in shapes.items() if shape is not None}, given)
    with Folding(sum(constant.numel() for constant in constants.values())):
        for node in graph.node:
            attributes = {e.name: _attribute(onnx.helper.get_attribute_value(e), folder) for e in node.attribute}
            importer.add(node.op_type, node.domain, node.name, node.input, node.output, attributes)
    return importer.finish([value.name for value in graph.output])


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

    if uses_external_data(tensor):
        return torch.from_numpy(mapped(tensor, folder))
    found = numpy_helper.to_array(tensor)
    return torch.from_numpy(np.array(found))  # a copy of its own, writable


def _shape(value: onnx.ValueInfoProto) -> Shape | None:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    sizes = (size.dim_value if size.HasField("dim_value") else 0 for size in kind.shape.dim)
    return tuple(size if size > 0 else None for size in sizes)


def check_onnx(path: Path, network: nn.Module, images: Tensor, run: Callable[[Any], list[Any]]) -> None:
    """Raise `UnsupportedModelError` unless the network computes for `images` what the file does for each by itself.

    `run` gives the file's outputs, as arrays, for an array of one image.
    """
    with torch.no_grad():
        got = network(images.clone())
    got = got if isinstance(got, tuple) else (got,)
    for number in range(len(images)):
        for ours, theirs in zip(got, run(images[number : number + 1].cpu().numpy()), strict=True):
            _compare(ours[number : number + 1], torch.from_numpy(np.asarray(theirs)).to(ours), path)


def _compare(ours: Tensor, wanted: Tensor, path: Path) -> None:
    same = ours.shape == wanted.shape
    scale = float(wanted.abs().max()) if wanted.numel() else 0.0
    error = float((ours - wanted).abs().max()) if same and wanted.numel() else 0.0
    if not same or not error <= _RELATIVE * scale + _ABSOLUTE:
        said = f"error {error:.2g} of outputs up to {scale:.2g}" if same else "outputs of another shape"
        raise UnsupportedModelError(
            f"{path}: the imported network does not compute what the file does ({said}); save the nn.Module that it "
            "was made from"
        )
