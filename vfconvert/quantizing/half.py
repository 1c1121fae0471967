"""Sixteen bits: weights and computation in float16, inputs and outputs in float32.

The converter is the one that comes with ONNX Runtime. What computes weights from a stored bank reads the bank in
float16 and computes in float32: processors have no float16 kernels for it, and a runtime that finds none would
compute the weights anew at every call instead of once, when it loads the file.

ONNX Runtime on such a processor computes all of such a file in float32 and drops the roundings between operators, so
that a number too large for float16 shows on other processors only. So all values that the float32 file computes on
given images are looked at.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vfconvert.errors import ExportError
from vfconvert.exporting.onnx_compact import rename_apart_
from vfconvert.quantizing.files import MOST_CHECKED, check_source, plain_names, quietly, read_onnx, write_like
from vfconvert.quantizing.sessions import open_session

if TYPE_CHECKING:
    import onnx

LARGEST_HALF = 65504.0


def to_fp16(source: Path, target: Path, images: Tensor | None = None) -> None:
    """Write the float32 ONNX file `source` in float16; a bank stays stored once, in half the bytes.

    Inputs, outputs, their names, the metadata and a varying batch size are kept. With `images` `(N, C, H, W)` all
    that the network computes on the first of them has to be in the range of float16, too.

    Raises `ExportError` where a number is beyond that range or the file cannot be converted,
    `ParityError` where the result does not run or its outputs are not finite, and `UnwritableOutputError`; then
    nothing is left at `target`.
    """
    model = read_onnx(source)
    _check_stored(model)
    if images is not None and len(images):
        check_source(source, images)
        _check_computed(model, images[:MOST_CHECKED])
    rename_apart_(model.graph, plain_names(model))
    with quietly("converting to float16"):
        half = _converted(model)
    write_like(source, half, target, images)


def _check_stored(model: onnx.ModelProto) -> None:
    from onnx import TensorProto, numpy_helper

    constants = [
        (node.output[0], attribute.t)
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.HasField("t")
    ]
    for name, tensor in [*((tensor.name, tensor) for tensor in model.graph.initializer), *constants]:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        _check_magnitude(name, float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0)))


def _check_computed(model: onnx.ModelProto, images: Tensor) -> None:
    """Raise `ExportError` where a value of the float32 network leaves the range of float16; image by image."""
    import onnx

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {value.name for value in watched.graph.output}
    values = [name for node in watched.graph.node for name in node.output if name and name not in known]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in values)
    session = open_session(watched.SerializeToString(), threads=torch.get_num_threads())
    for image in torch.split(images, session.batch or 1):
        found = session.run_all(image)
        for node in model.graph.node:
            for name in node.output:
                if name in found and found[name].is_floating_point() and found[name].numel():
                    _check_magnitude(f"{name} (of {node.op_type})", float(found[name].abs().max()))


def _check_magnitude(name: str, largest: float) -> None:
    if not largest <= LARGEST_HALF:
        raise ExportError(
            f"{name} holds a number of magnitude {largest:.6g}, and float16 ends at {LARGEST_HALF:.0f}; "
            "use the float32 file, or eight bits"
        )


def _converted(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    half = convert_float_to_float16(
        model,
        keep_io_types=True,
        force_fp16_initializers=True,
        node_block_list=_constant_nodes(model.graph),
    )
    ordered = ONNXModel(half)
    ordered.topological_sort()
    result: onnx.ModelProto = ordered.model
    return result


def _constant_nodes(graph: onnx.GraphProto) -> list[str]:
    """The nodes that compute from constants alone."""
    constant = {"", *(tensor.name for tensor in graph.initializer)}
    found = []
    for node in graph.node:
        if constant.issuperset(node.input) and not any(attribute.HasField("g") for attribute in node.attribute):
            constant.update(node.output)
            found.append(node.name)
    return found
