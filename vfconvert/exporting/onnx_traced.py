"""ONNX files of networks whose outputs vary in number with what they find, through torch's older, tracing exporter.

`torch.export` cannot follow shapes that depend on numbers; the older exporter writes down every operator that a run on
one image calls, and what selects boxes (NonZero, TopK, NonMaxSuppression) selects anew in the file. Branches of Python
are fixed as the example takes them: only a comparison on other images shows that the file still does what the network
does (`vfconvert.verification.verify_detections`).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vfconvert.errors import ExportError
from vfconvert.exporting.cause import cause_line
from vfconvert.exporting.naming import FileNames, file_names
from vfconvert.exporting.onnx_compact import fresh_names
from vfconvert.exporting.onnx_finish import finish_
from vfconvert.exporting.tracing import OpenNetwork, twin_of, versatile_layers
from vfconvert.options import OPSETS
from vfconvert.silence import stdout_closed
from vfconvert.tasks.structure import of_one_image

if TYPE_CHECKING:
    import onnx

NEWEST_OPSET = 20  # that this exporter knows
DETECTIONS = "detections"  # the name of the length that varies
_INSTEAD = "write --format safetensors"


def check_traced_opset(opset: int) -> None:
    """Raise `ExportError` where this exporter does not write an opset that the other one does."""
    if opset > NEWEST_OPSET:
        raise ExportError(
            f"--opset: got {opset}, and a network whose outputs vary in number is written in {OPSETS[0]} to "
            f"{NEWEST_OPSET}; choose one of these"
        )


def traced_proto(
    model: nn.Module, example: Tensor, opset: int, *, dynamic_size: bool = False, own: FileNames | None = None
) -> onnx.ModelProto:
    """`model` in eval mode for one image of the size of `example` `(B, C, H, W)`; the model is left as it is.

    The input is "input" `(1, C, H, W)`; outputs are what the network found in the image, by their keys ("boxes"
    `(detections, 4)`, "scores", "labels", …), both by other names where `own` has them. Weights of versatile
    layers are computed from their banks.

    Raises `ExportError` where this cannot be done, `MemoryError` as it comes.
    """
    if dynamic_size:
        raise ExportError("the outputs of the network vary in number, and its file takes one size; no --dynamic-size")
    check_traced_opset(opset)
    layers, names = versatile_layers(model), list[str]()
    weights = [layer.expanded_weight().detach() for _, layer in layers]
    network = _OneImage(twin_of(model), names.extend)
    try:
        with torch.no_grad():
            run = network(example[:1].clone(), *weights)  # for the names; the trace would note them twice
            found = tuple(names)
            file = file_names(model, found, own)
            weight_names = fresh_names("w", len(layers), (*found, *file.inputs, *file.outputs))
            proto = _written(
                network,
                [example[:1].clone(), *weights],
                ["input", *weight_names],
                dict(zip(found, run, strict=True)),
                opset,
            )
    except MemoryError:
        raise
    except Exception as error:  # what this exporter raises has no common type; it may be gone in a torch to come
        raise ExportError(
            f"ONNX export failed: {cause_line(error)}; the outputs of the network vary in number, "
            f"and torch {torch.__version__} cannot write it: {_INSTEAD}"
        ) from error
    finish_(proto, file, dict(zip(weight_names, layers, strict=True)))
    return proto


def _written(
    network: nn.Module, arguments: Sequence[Tensor], inputs: Sequence[str], outputs: Mapping[str, Tensor], opset: int
) -> onnx.ModelProto:
    import onnx

    held: Any = io.BytesIO()
    with stdout_closed():
        torch.onnx.export(
            network,
            tuple(arguments),
            held,
            dynamo=False,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: {0: DETECTIONS} for name, output in outputs.items() if output.dim()},
            training=torch.onnx.TrainingMode.PRESERVE,  # it is in eval mode; with EVAL norms would go into kept weights
            do_constant_folding=True,
        )
    return onnx.load_from_string(held.getvalue())


class _OneImage(OpenNetwork):
    """The open network on one image, its outputs what was found there."""

    def forward(self, images: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """`(1, C, H, W)` and one `(N, C/G, kh, kw)` for each versatile layer."""
        return self._tensors(of_one_image(self._run([images], weights)))
