"""A file whose outputs vary in number against the converted network: image by image, detection by detection.

Of each image both have to find the same number of detections, and there has to be a way to pair them off so that every
pair has equal labels (whatever is not floating point) and all its numbers (boxes, scores, masks, keypoints) within the
tolerance, in units of the largest magnitude of that output in that image. Their order is not compared, since equal
scores may come in any. Outputs that are not one row a detection are compared as they lie.

A detector decides: a score at its threshold, two boxes that overlap by just so much, the last of the best thousand.
Where rounding alone tips such decisions the image cannot be compared so. It is passed over if each detection that is
not in both is one that the network itself has, or lacks, after noise of a millionth of the image. At least one image
with detections has to remain.
"""

from __future__ import annotations

from collections import Counter
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
from vfconvert.exporting.naming import FileNames, outputs_in_file
from vfconvert.tasks.structure import of_one_image
from vfconvert.verification.files import open_onnx
from vfconvert.verification.parity import (
    FLOAT32_TOLERANCE,
    OpenFile,
    OutputParity,
    Parity,
    check_finite,
    device_of,
    difference,
)

_ADVICE = "do not use the file, write --format safetensors"
WANTED, MOST_TRIED = 5, 64  # images with detections to compare, images to look for them in
_NOISE = 1e-6  # of an image's largest magnitude: what rounding comes to
_RUNS = 4  # with noise
_DRIFT = 10.0  # times the tolerance that numbers of one detection may drift by such noise and it still be the same
_SMALL = 64  # numbers of one detection by which pairs are found: not by those of a mask
_FAR = 1e6  # cost of a pair beyond the tolerance: more than all others together

Outputs = Mapping[str, Tensor]


class _DifferentError(Exception):
    """Two sets of detections are not the same; says how. Never leaves this module.

    `decided` where other decisions may be the cause.
    """

    def __init__(self, said: str, *, decided: bool = False) -> None:
        super().__init__(said)
        self.decided = decided


def verify_detections(
    path: Path,
    model: nn.Module,
    inputs: Tensor,
    *,
    tolerance: float = FLOAT32_TOLERANCE,
    wanted: int = WANTED,
    names: FileNames | None = None,
) -> Parity:
    """Run the ONNX file in ONNX Runtime on the CPU against `model` in eval mode, on images of `inputs` `(N, C, H, W)`.

    The first `wanted` images in which the network finds something are compared, of the first 64; `names` are those that
    the file was written with. Raises `ParityError`
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
        expected = _found(model, image, names)
        found = _ran(file, image, number)
        try:
            comparisons += _compared(expected, found, tolerance)
        except _DifferentError as error:
            if not error.decided or _unexplained(model, image, expected, found, tolerance, names):
                raise ParityError(f"image {number}: {error}; {_ADVICE}") from error
            undecided += 1
            continue
        compared += _count(expected) > 0
        if compared == wanted:
            break
    if not compared:
        tried = min(len(inputs), MOST_TRIED)
        raise ParityError(
            f"the converted network finds nothing in {tried - undecided} of {tried} images, and what rounding decides "
            f"in {undecided}: its file cannot be compared; give --data images in which it finds something"
        )
    return Parity(
        comparisons=tuple(comparisons), tolerance=tolerance, runtime=file.runtime, runtime_version=file.version
    )


def image_with_detections(model: nn.Module, images: Tensor) -> Tensor:
    """The first of `images` `(N, C, H, W)` in which `model` finds something, `(1, C, H, W)`; else the first of all."""
    tried = torch.split(images[:MOST_TRIED], 1)
    return next((image for image in tried if _count(_found(model, image))), images[:1])


def _found(model: nn.Module, image: Tensor, names: FileNames | None = None) -> dict[str, Tensor]:
    """What the network finds in an image `(1, C, H, W)`, by name, on the CPU."""
    with evaluating(model):
        found = outputs_in_file(model, of_one_image(model(image.clone().to(device_of(model)))), names)
    return {name: tensor.cpu() for name, tensor in found}


def _ran(file: OpenFile, image: Tensor, number: int) -> dict[str, Tensor]:
    try:
        return dict(file.run(image))
    except Exception as error:
        raise ParityError(
            f"ONNX Runtime cannot run the file on image {number}: {cause_line(error)}; do not use the file"
        ) from error


def _unexplained(
    model: nn.Module, image: Tensor, expected: Outputs, got: Outputs, tolerance: float, names: FileNames | None
) -> int:
    """How many detections only one of the two has, though no noise as small as rounding brings or takes them away."""
    generator = torch.Generator().manual_seed(0)
    scale, wide = _NOISE * float(image.abs().max()), _DRIFT * tolerance
    runs = [_found(model, image + scale * torch.randn(image.shape, generator=generator), names) for _ in range(_RUNS)]
    first, second = _pairs(expected, got, wide)
    alike = torch.from_numpy(_costs(expected, got) <= wide)[first, second]
    added, lost = torch.ones(_count(got), dtype=torch.bool), torch.ones(_count(expected), dtype=torch.bool)
    added[second[alike]] = lost[first[alike]] = False
    for run in runs:
        added &= ~_near(got, run, wide)
        lost &= _near(expected, run, wide)
    return int(added.sum()) + int(lost.sum())


def _near(rows: Outputs, others: Outputs, tolerance: float) -> Tensor:
    """Which detections `(n,)` of the first have a like among the second, by all that pairs are found by."""
    count, theirs = _count(rows), _count(others)
    if not theirs:
        return torch.zeros(count, dtype=torch.bool)
    return torch.from_numpy((_costs(rows, others) <= tolerance).any(1))


def _count(outputs: Outputs) -> int:
    """How many detections there are: as many as most of the outputs have rows."""
    lengths = Counter(len(tensor) for tensor in outputs.values() if tensor.dim())
    several = Counter({length: number for length, number in lengths.items() if length != 1})  # features have one row
    return (several or lengths or Counter([0])).most_common(1)[0][0]


def _compared(expected: Outputs, got: Outputs, tolerance: float) -> list[OutputParity]:
    """Every output of one image, after pairing rows. Raises `_DifferentError`."""
    if list(expected) != list(got):
        raise _DifferentError(f"got outputs {', '.join(got)}, expected {', '.join(expected)}")
    count, theirs = _count(expected), _count(got)
    by_row = {name for name in expected if _is_by_row(expected[name], count) and _is_by_row(got[name], theirs)}
    for name, wanted in expected.items():
        _check_form(name, wanted, got[name], count if name in by_row else None)
    found = {name: _one(name, expected[name], got[name], count, tolerance) for name in expected if name not in by_row}
    if count != theirs:
        raise _DifferentError(f"the file finds {theirs} objects, the converted network {count}", decided=True)
    first, second = _pairs(expected, got, tolerance)
    order = second[first.argsort()]
    for name in by_row:
        found[name] = _one(name, expected[name], got[name][order], count, tolerance, decided=True)
    return [found[name] for name in expected]


def _check_form(name: str, wanted: Tensor, output: Tensor, count: int | None) -> None:
    """Kind and shape, but for the number of rows where there is a `count` of them; and that all numbers are finite."""
    start = 0 if count is None else 1
    same = wanted.shape[start:] == output.shape[start:]
    if not same or wanted.is_floating_point() != output.is_floating_point():
        raise _DifferentError(
            f"'{name}': got {output.dtype} {tuple(output.shape)}, expected {wanted.dtype} {tuple(wanted.shape)}"
        )
    check_finite(f"output '{name}'", wanted, output)


def _one(
    name: str, wanted: Tensor, output: Tensor, count: int, tolerance: float, *, decided: bool = False
) -> OutputParity:
    found = difference(f"output '{name}'", wanted, output)
    if not found.relative <= tolerance:
        raise _DifferentError(
            f"'{name}' of the {count} objects: max|Δ| is {found.error:.3g} at max|y| {found.magnitude:.3g}, relative "
            f"error {found.relative:.3g}, allowed {tolerance:.3g}",
            decided=decided,
        )
    return OutputParity(
        output=name,
        batch=1,
        maximum_error=found.error,
        reference_magnitude=found.magnitude,
        relative_error=found.relative,
    )


def _table(tensor: Tensor) -> Tensor:
    """`(n, …)` as `(n, numbers of a row)` in float64."""
    return tensor.double().reshape(len(tensor), tensor.shape[1:].numel())


def _is_by_row(tensor: Tensor, count: int) -> bool:
    return tensor.dim() > 0 and len(tensor) == count


def _pairs(expected: Outputs, got: Outputs, tolerance: float) -> tuple[Tensor, Tensor]:
    """Rows of the network and of the file that are each other's like, int64, as many as the fewer of the two.

    Where there is a way to pair all of them within the tolerance it is found; else the cheapest.
    """
    cost = _costs(expected, got)
    cost = np.where(cost <= tolerance, cost, np.minimum(cost, 1.0) + _FAR)
    rows, columns = linear_sum_assignment(np.nan_to_num(cost, nan=2 * _FAR, posinf=2 * _FAR))
    return torch.from_numpy(rows), torch.from_numpy(columns)


def _costs(expected: Outputs, got: Outputs) -> NDArray[np.float64]:
    """Of all pairs of detections `(n, m)`: the largest distance of any of their outputs, but for masks and the like."""
    count, theirs = _count(expected), _count(got)
    cost = np.zeros((count, theirs))
    for name, wanted in expected.items():
        output = got.get(name)
        if output is None or not (_is_by_row(wanted, count) and _is_by_row(output, theirs)):
            continue
        if wanted.shape[1:] == output.shape[1:] and wanted[:1].numel() <= _SMALL:
            cost = np.maximum(cost, _distances(wanted, output))
    return cost


def _distances(wanted: Tensor, output: Tensor) -> NDArray[np.float64]:
    """Of all pairs of rows `(n, m)`: the largest difference over the largest magnitude; of labels 0 or 1."""
    rows, columns = _table(wanted), _table(output)
    apart = torch.cdist(rows, columns, p=float("inf"))
    if not wanted.is_floating_point():
        return (apart != 0).double().numpy()
    largest = float(rows.abs().max()) if rows.numel() else 0.0
    return (apart / largest if largest else apart).numpy()
