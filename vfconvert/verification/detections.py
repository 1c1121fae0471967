"""A file whose outputs vary in number against the converted network: image by image, detection by detection.

Of each image both have to find the same number of detections, and there has to be a way to pair them off so that every
pair has equal labels (whatever is not floating point) and all its numbers (boxes, scores, masks, keypoints) within the
tolerance, in units of the largest magnitude of that output in that image. Their order is not compared, since equal
scores may come in any. Outputs that are not one row a detection are compared as they lie.

A detector decides: a score at its threshold, two boxes that overlap by just so much, the last of the best thousand.
Where rounding alone tips such a decision, the image says nothing of the file: an image on which the two differ is
passed over if the network itself finds other things after noise of a millionth of the image. At least one image with
detections has to remain.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from vfconvert.analysis.forward import evaluating
from vfconvert.errors import ParityError
from vfconvert.exporting.cause import cause_line
from vfconvert.exporting.outputs import named_outputs
from vfconvert.tasks.structure import of_one_image
from vfconvert.verification.files import open_onnx
from vfconvert.verification.parity import (
    FLOAT32_TOLERANCE,
    OpenFile,
    OutputParity,
    Parity,
    device_of,
    difference,
)

_ADVICE = "do not use the file, write --format safetensors"
WANTED, MOST_TRIED = 5, 64  # images with detections to compare, images to look for them in
_NOISE = 1e-6  # of an image's largest magnitude: what rounding comes to
_SMALL = 64  # numbers of one detection by which pairs are found: not by those of a mask
_FAR = 1e6  # cost of a pair beyond the tolerance, which costs less otherwise

Outputs = Mapping[str, Tensor]


class _DifferentError(Exception):
    """Two sets of detections are not the same; says how. Never leaves this module."""


def verify_detections(
    path: Path, model: nn.Module, inputs: Tensor, *, tolerance: float = FLOAT32_TOLERANCE, wanted: int = WANTED
) -> Parity:
    """Run the ONNX file in ONNX Runtime on the CPU against `model` in eval mode, on images of `inputs` `(N, C, H, W)`.

    The first `wanted` images in which the network finds something are compared, of the first 64. Raises `ParityError`
    where the file does not open or run, where what is found differs (see above), where outputs hold numbers that are
    not finite, and where no image is left to compare.
    """
    try:
        file = open_onnx(path)
    except Exception as error:  # whatever a runtime raises, the file is of no use
        raise ParityError(f"ONNX Runtime cannot open the file: {cause_line(error)}; do not use it") from error
    comparisons: list[OutputParity] = []
    compared, undecided = 0, 0
    for number, image in enumerate(torch.split(inputs[:MOST_TRIED], 1)):
        expected = _found(model, image)
        try:
            comparisons += _compared(expected, _ran(file, image, number), tolerance)
        except _DifferentError as error:
            if _decided(model, image, expected, tolerance):
                raise ParityError(f"image {number}: {error}; {_ADVICE}") from error
            undecided += 1
            continue
        compared += _count(expected) > 0
        if compared == wanted:
            break
    if not compared:
        tried = min(len(inputs), MOST_TRIED)
        raise ParityError(
            f"the converted network finds nothing in {tried - undecided} of {tried} images, and what rounding decides in "
            f"{undecided}: its file cannot be compared; give --data images in which it finds something"
        )
    return Parity(
        comparisons=tuple(comparisons), tolerance=tolerance, runtime=file.runtime, runtime_version=file.version
    )


def image_with_detections(model: nn.Module, images: Tensor) -> Tensor:
    """The first of `images` `(N, C, H, W)` in which `model` finds something, `(1, C, H, W)`; else the first of all."""
    tried = torch.split(images[:MOST_TRIED], 1)
    return next((image for image in tried if _count(_found(model, image))), images[:1])


def _found(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """What the network finds in an image `(1, C, H, W)`, by name, on the CPU."""
    with evaluating(model):
        found = named_outputs(of_one_image(model(image.clone().to(device_of(model)))))
    return {name: tensor.cpu() for name, tensor in found}


def _ran(file: OpenFile, image: Tensor, number: int) -> dict[str, Tensor]:
    try:
        return dict(file.run(image))
    except Exception as error:
        raise ParityError(
            f"ONNX Runtime cannot run the file on image {number}: {cause_line(error)}; do not use the file"
        ) from error


def _decided(model: nn.Module, image: Tensor, expected: Outputs, tolerance: float) -> bool:
    """Whether the network finds the same in the image after noise as small as rounding."""
    generator = torch.Generator().manual_seed(0)
    scale = _NOISE * float(image.abs().max())
    for _ in range(2):
        noisy = image + scale * torch.randn(image.shape, generator=generator)
        try:
            _compared(expected, _found(model, noisy), tolerance)
        except _DifferentError:
            return False
    return True


def _count(outputs: Outputs) -> int:
    """How many detections there are: rows of the first output that has rows."""
    return next((len(tensor) for tensor in outputs.values() if tensor.dim()), 0)


def _compared(expected: Outputs, got: Outputs, tolerance: float) -> list[OutputParity]:
    """Every output of one image, after pairing rows. Raises `_DifferentError`."""
    if list(expected) != list(got):
        raise _DifferentError(f"got outputs {', '.join(got)}, expected {', '.join(expected)}")
    count, theirs = _count(expected), _count(got)
    if count != theirs:
        raise _DifferentError(f"the file finds {theirs} objects, the converted network {count}")
    order = _pairs(expected, got, count, tolerance)
    found = []
    for name, wanted in expected.items():
        output = got[name]
        if output.dim() and len(output) == count:
            output = output[order]
        error, magnitude, relative = _measured(name, wanted, output)
        if not relative <= tolerance:
            raise _DifferentError(
                f"'{name}' of the {count} objects: max|Δ| is {error:.3g} at max|y| {magnitude:.3g}, relative error "
                f"{relative:.3g}, allowed {tolerance:.3g}"
            )
        found.append(
            OutputParity(
                output=name, batch=1, maximum_error=error, reference_magnitude=magnitude, relative_error=relative
            )
        )
    return found


def _measured(name: str, wanted: Tensor, output: Tensor) -> tuple[float, float, float]:
    if wanted.shape != output.shape or wanted.is_floating_point() != output.is_floating_point():
        raise _DifferentError(
            f"'{name}': got {output.dtype} {tuple(output.shape)}, expected {wanted.dtype} {tuple(wanted.shape)}"
        )
    return difference(f"output '{name}'", wanted, output)


def _pairs(expected: Outputs, got: Outputs, count: int, tolerance: float) -> Tensor:
    """For each detection of the network the row of the file that is its like: `(count,)` int64.

    A way to pair all of them within the tolerance is found where there is one; else the cheapest.
    """
    cost = np.zeros((count, count))
    for name, wanted in expected.items():
        output = got[name]
        if wanted.dim() and len(wanted) == count and output.shape == wanted.shape and wanted[:1].numel() <= _SMALL:
            cost = np.maximum(cost, _distances(wanted, output))
    cost = np.where(cost <= tolerance, cost, np.minimum(cost, 1.0) * _FAR)
    _, order = linear_sum_assignment(np.nan_to_num(cost, nan=_FAR, posinf=_FAR))
    return torch.from_numpy(order)


def _distances(wanted: Tensor, output: Tensor) -> NDArray[np.float64]:
    """Of all pairs of rows `(count, count)`: the largest difference over the largest magnitude; of labels 0 or 1."""
    rows, columns = wanted.double().flatten(1) if wanted.dim() > 1 else wanted.double().view(-1, 1), output.double()
    columns = columns.reshape(rows.shape)
    apart = torch.cdist(rows, columns, p=float("inf")) if len(rows) else rows.new_zeros(0, 0)
    if not wanted.is_floating_point():
        return (apart != 0).double().numpy()
    largest = float(rows.abs().max()) if rows.numel() else 0.0
    return (apart / largest if largest else apart).numpy()


