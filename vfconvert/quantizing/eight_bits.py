"""Eight bits: weights in int8 and activations in uint8, with QuantizeLinear and DequantizeLinear around every layer.

The quantizer is ONNX Runtime's. It wants each weight as one stored tensor, so what is computed from constants (the
slices of a bank, and a norm that follows a convolution) is computed first. In the inference form, where every
convolution reads a slice of its bank, slices overlap little and the file is about a quarter as large; whole weights
that are expanded from a bank are put back into it afterwards (`shared_weights`).

Weights take 7 of the 8 bits: on processors without dot products of bytes (x86 before VNNI), pairs of products of full
range saturate at 16 bits, which costs more than the bit (relative error 0.148 against 0.038 on a trained ResNet-20).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vfconvert.errors import ExportError
from vfconvert.exporting.onnx_compact import rename_apart_
from vfconvert.nn import VersatileConv2d
from vfconvert.quantizing.files import check_source, plain_names, quietly, read_onnx, write_like
from vfconvert.quantizing.shared_weights import share_
from vfconvert.temporary import scratch

# Relu is not computed in eight bits: the range of the convolution before it ends at zero, and it falls away.
_QUANTIZED = ("Conv", "Gemm", "MatMul", "Relu")
_BATCH = 16


def quantize_int8(source: Path, target: Path, images: Tensor, layers: Sequence[VersatileConv2d] = ()) -> None:
    """Write the float32 ONNX file `source` with convolutions and linear layers in eight bits.

    Weights are symmetric with a scale for each output channel; the range of each activation is that between the least
    and the largest number it takes on `images` `(N, C, H, W)`. The names of inputs and outputs, the metadata and a
    varying batch size are kept. `layers` are those that the file computes as ordinary convolutions: their weights are
    stored as their banks, see `vfconvert.quantizing.shared_weights`.

    Raises `ExportError` where there is no image or the file cannot be quantized, `ParityError` where either file does
    not run or gives numbers that are not finite, and `UnwritableOutputError`; then nothing is left at `target`.
    """
    if not len(images):
        raise ExportError("eight bits: got no image, expected one or more to find the ranges of activations with")
    names = plain_names(read_onnx(source))
    check_source(source, images)
    with scratch() as folder:
        folded, quantized = folder / "folded.onnx", folder / "quantized.onnx"
        with quietly("quantizing"):
            _fold(source, folded, names)
            _quantize(folded, quantized, images)
        made = read_onnx(quantized)
        with quietly("storing shared weights"):
            share_(made, read_onnx(folded), layers)
        write_like(source, made, target, images)


def _fold(source: Path, target: Path, names: Mapping[str, str]) -> None:
    """Compute what only depends on constants, and take norms into the convolutions before them; rename values."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # standard operators only
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    folded = onnx.load(target)
    rename_apart_(folded.graph, names)
    onnx.save(folded, target)


def _quantize(source: Path, target: Path, images: Tensor) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    given = {value.name: value.type.tensor_type.shape.dim for value in read_onnx(source).graph.input}
    batch = next(iter(given.values()))[0].dim_value
    quantize_static(
        source,
        target,
        _Batches({name: sizes[1].dim_value for name, sizes in given.items()}, images, batch),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(_QUANTIZED),
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )


class _Batches:
    """What the calibration reads: batches of images by the names of the inputs, then None.

    `channels` is how many each input takes of the images; `fixed` is the one batch size the file takes, 0 where
    it takes any; the last batch then starts over.
    """

    def __init__(self, channels: Mapping[str, int], images: Tensor, fixed: int) -> None:
        self._channels, self._batches = channels, self._cut(images.detach().cpu(), fixed)

    @staticmethod
    def _cut(images: Tensor, fixed: int) -> Iterator[Tensor]:
        for start in range(0, len(images), fixed or _BATCH):
            stop = start + fixed if fixed else min(start + _BATCH, len(images))
            yield images[[index % len(images) for index in range(start, stop)]]

    def get_next(self) -> dict[str, Any] | None:
        """The next batch."""
        batch = next(self._batches, None)
        if batch is None:
            return None
        if len(self._channels) == 1:
            return dict.fromkeys(self._channels, batch.numpy())
        parts = torch.split(batch, list(self._channels.values()), 1)
        return {name: part.contiguous().numpy() for name, part in zip(self._channels, parts, strict=True)}
