"""ONNX files of converted networks, through torch's exporter (`torch.onnx.export(dynamo=True)`).

The exporter never sees how a versatile convolution makes its weight: the network is traced with those weights as
further inputs, and the nodes that compute them from the stored bank take the inputs' places afterwards. So no
optimizer can fold them into something larger, and tracing costs what the original network costs. An
inference runtime folds them when it loads the file and then runs plain convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vfconvert.errors import ExportError, VfconvertError
from vfconvert.exporting.cause import cause_line
from vfconvert.exporting.naming import FileNames, file_names
from vfconvert.exporting.onnx_compact import fresh_names
from vfconvert.exporting.onnx_finish import finish_
from vfconvert.exporting.onnx_optimise import optimise_
from vfconvert.exporting.onnx_traced import traced_proto
from vfconvert.exporting.sizes import check_other_sizes
from vfconvert.exporting.tracing import trace
from vfconvert.files import atomic_path
from vfconvert.options import OPSETS
from vfconvert.silence import silenced

if TYPE_CHECKING:
    import onnx

LARGEST_BYTES = 2**31 - 2**24  # a protobuf message ends at 2 GiB; some room for the graph


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedOnnx:
    """What was written: does the batch size vary, the opset in the file, its size on disk in bytes."""

    dynamic_batch: bool
    opset: int
    bytes: int


def export_onnx(
    model: nn.Module,
    example: Tensor,
    path: Path,
    *,
    metadata: Mapping[str, str],
    opset: int = OPSETS[0],
    dynamic_size: bool = False,
    varying: bool = False,
    names: FileNames | None = None,
) -> ExportedOnnx:
    """Write `model` in eval mode as one ONNX file with input "input" `(batch, C, H, W)`; the model is left as it is.

    A network of several inputs (`vfconvert.nn.several_inputs`) has each as an input of its own, by its own name.
    Outputs are named "output", "output_0", … or by their keys (see `named_outputs`). `names` are other names for both
    (see `file_names`). `example` `(B, C, H, W)` fixes all sizes but the batch (with `dynamic_size` neither height nor
    width); a network that computes with the very number of images is written for `B` images, and the result says so.
    `metadata` becomes the file's `metadata_props`. Parameters are stored once, in float32.

    With `varying` the outputs of the network vary in number with what it finds (`vfconvert.tasks.structure.varies`):
    then the file is that of `vfconvert.exporting.onnx_traced`, for one image of the size of `example`.

    Raises `ExportError` where the network is not float32, exceeds 2 GiB, or cannot be traced or translated to this
    opset, and `UnwritableOutputError`; then nothing is left at `path`.
    """
    _check(model, example, opset)
    if dynamic_size:
        check_other_sizes(model, example)
    with atomic_path(path) as temporary:
        with silenced():
            proto = (
                traced_proto(model, example, opset, dynamic_size=dynamic_size, own=names)
                if varying
                else _exported(model, example, opset, dynamic_size, names)
            )
        found = next(entry.version for entry in proto.opset_import if entry.domain == "")
        if found != opset:  # the exporter says so in a warning at most
            raise ExportError(
                f"--opset: got {opset}, and the torch and onnx that are installed can only write {found}; choose that, "
                "or install newer ones"
            )
        for key, value in metadata.items():
            proto.metadata_props.add(key=key, value=value)
        temporary.write_bytes(proto.SerializeToString())
        with silenced():
            _check_file(temporary)
        size = temporary.stat().st_size
    return ExportedOnnx(
        dynamic_batch=proto.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_param"),
        opset=found,
        bytes=size,
    )


def _check(model: nn.Module, example: Tensor, opset: int) -> None:
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise ExportError(f"--opset: got {opset}, expected {OPSETS[0]} to {OPSETS[1]}")
    named = [("the example input", example), *model.named_parameters()]
    for name, tensor in named:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ExportError(f"{name} is {kind}, and ONNX files are written in float32; convert with model.float()")
    size = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    if size > LARGEST_BYTES:
        raise ExportError(f"the network has {size} bytes of weights, and one ONNX file holds at most {LARGEST_BYTES}")


def _exported(
    model: nn.Module, example: Tensor, opset: int, dynamic_size: bool, own: FileNames | None
) -> onnx.ModelProto:
    """The model with a variable batch where that can be had, else with the batch of `example`."""
    try:
        try:
            return _translated(model, example, opset, own, dynamic_batch=True, dynamic_size=dynamic_size)
        except VfconvertError:
            raise
        except Exception:  # whatever it is, it need not hold for a fixed batch
            return _translated(model, example, opset, own, dynamic_batch=False, dynamic_size=dynamic_size)
    except VfconvertError:
        raise
    except Exception as error:
        what = "leave out --dynamic-size" if dynamic_size else "the network has to be rewritten there"
        raise ExportError(f"ONNX export failed: {cause_line(error)}; {what}") from error


def _translated(
    model: nn.Module, example: Tensor, opset: int, own: FileNames | None, *, dynamic_batch: bool, dynamic_size: bool
) -> onnx.ModelProto:
    traced = trace(model, example, dynamic_batch=dynamic_batch, dynamic_size=dynamic_size)
    names = file_names(model, traced.output_names, own)
    weight_names = fresh_names("w", len(traced.layers), (*names.inputs, *names.outputs))
    program = torch.onnx.export(
        traced.program,
        opset_version=opset,
        dynamo=True,
        verbose=False,
        optimize=False,  # its limit on what is folded is a megabyte
        input_names=[*fresh_names("x", traced.inputs, ()), *weight_names],  # none that the exporter gives itself
    )
    if program is None:
        raise ExportError("torch's exporter returned no program; install a torch release that setup.cfg allows")
    optimise_(program.model)
    proto = program.model_proto
    finish_(proto, names, dict(zip(weight_names, traced.layers, strict=True)))
    return proto


def _check_file(path: Path) -> None:
    from onnx import checker

    try:
        checker.check_model(str(path), full_check=True)
    except Exception as error:
        raise ExportError(f"the ONNX file is not valid: {cause_line(error)}; choose another opset") from error
