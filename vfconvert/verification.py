"""Whether a file computes what the network computes, and how far the network is still what it was.

Parity compares an exported file with the converted network, number by number, and raises. Agreement compares the
converted network with the original on real images, and only tells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.analysis.forward import evaluating
from vfconvert.errors import ParityError
from vfconvert.exporting.cause import cause_line
from vfconvert.exporting.outputs import main_output, named_outputs

FLOAT32_TOLERANCE = 1e-4
BATCH_SIZES = (1, 2, 5)


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputParity:
    """One output at one batch size: `max|Δ|`, `max|y|` of the reference, and their ratio.

    The ratio is 0 where both are 0. For outputs that are not floating point it is the share of unequal elements.
    """

    output: str
    batch: int
    maximum_error: float
    reference_magnitude: float
    relative_error: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """A passed comparison: every output at every batch size, and what ran the file."""

    comparisons: tuple[OutputParity, ...]
    tolerance: float
    runtime: str
    runtime_version: str

    @property
    def maximum_error(self) -> float:
        """The largest `max|Δ|` of all comparisons."""
        return max(comparison.maximum_error for comparison in self.comparisons)

    @property
    def relative_error(self) -> float:
        """The largest `max|Δ| / max|y|` of all comparisons."""
        return max(comparison.relative_error for comparison in self.comparisons)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The batch sizes compared, in order."""
        return tuple(dict.fromkeys(comparison.batch for comparison in self.comparisons))


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far outputs keep to the reference's, over `samples` images.

    `top1` is the share (0 to 1) of images with the same largest logit, None where outputs are not logits. `psnr` is
    in dB with the reference's range as the peak, None for logits, inf for equal outputs. `relative_error` is
    `‖Δ‖ / ‖y‖`. An image with a non-finite output never agrees, and makes the other figures inf or nan.
    """

    samples: int
    top1: float | None
    psnr: float | None
    relative_error: float


def verify_onnx(
    path: Path,
    model: nn.Module,
    inputs: Tensor,
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    tolerance: float = FLOAT32_TOLERANCE,
) -> Parity:
    """Run the file in ONNX Runtime on the CPU, with torch's thread count, against `model` in eval mode.

    `inputs` `(N, C, H, W)` are real images; every batch takes the first of them, starting over where there are too
    few. A file of fixed batch size is compared at that size alone. The model and its modes are left as they were.

    Raises `ParityError` where the file does not open or run, where outputs differ in number, name or shape, hold
    numbers that are not finite, or differ by more than `tolerance` times the reference's largest magnitude.
    """
    import onnxruntime

    if not len(inputs) or not batch_sizes:
        raise ParityError(f"parity: got {len(inputs)} images and {len(batch_sizes)} batch sizes, expected one or more")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ParityError(f"ONNX Runtime cannot open the file: {cause_line(error)}; do not use it") from error
    fixed = session.get_inputs()[0].shape[0]
    sizes = (fixed,) if isinstance(fixed, int) else tuple(batch_sizes)
    comparisons = []
    for size in sizes:
        images = inputs[torch.arange(size) % len(inputs)]
        with evaluating(model):
            reference = named_outputs(model(images.clone().to(_device(model))))
        comparisons += _compare(reference, _run(session, images), size, tolerance)
    return Parity(
        comparisons=tuple(comparisons),
        tolerance=tolerance,
        runtime="onnxruntime",
        runtime_version=onnxruntime.__version__,
    )


def _run(session: Any, images: Tensor) -> dict[str, Tensor]:
    name = session.get_inputs()[0].name
    names = [output.name for output in session.get_outputs()]
    try:
        arrays = session.run(names, {name: images.detach().cpu().numpy()})
    except Exception as error:
        raise ParityError(
            f"ONNX Runtime cannot run the file at batch {len(images)}: {cause_line(error)}; do not use the file"
        ) from error
    return dict(zip(names, map(torch.from_numpy, arrays), strict=True))


def _compare(
    reference: list[tuple[str, Tensor]], outputs: dict[str, Tensor], batch: int, tolerance: float
) -> list[OutputParity]:
    if [name for name, _ in reference] != list(outputs):
        expected = ", ".join(name for name, _ in reference)
        raise ParityError(f"outputs at batch {batch}: got {', '.join(outputs)}, expected {expected}")
    return [_compare_output(name, expected.cpu(), outputs[name], batch, tolerance) for name, expected in reference]


def _compare_output(name: str, expected: Tensor, got: Tensor, batch: int, tolerance: float) -> OutputParity:
    where = f"output '{name}' at batch {batch}"
    advice = "do not use the file, and report the network"
    if got.shape != expected.shape:
        raise ParityError(f"{where}: got shape {tuple(got.shape)}, expected {tuple(expected.shape)}; {advice}")
    for whose, tensor in (("the converted network", expected), ("the file", got)):
        if not bool(torch.isfinite(tensor).all()):
            raise ParityError(f"{where}: {whose} gives numbers that are not finite; check its weights and the inputs")
    difference = (got.double() - expected.double()).abs()
    error, magnitude = _largest(difference), _largest(expected.double().abs())
    if expected.is_floating_point():
        relative = _ratio(error, magnitude)
    else:
        relative = float((difference != 0).double().mean()) if difference.numel() else 0.0
    if not relative <= tolerance:
        raise ParityError(
            f"{where}: max|Δ| is {error:.3g} at max|y| {magnitude:.3g}, relative error {relative:.3g}, "
            f"allowed {tolerance:.3g}; {advice}"
        )
    return OutputParity(
        output=name, batch=batch, maximum_error=error, reference_magnitude=magnitude, relative_error=relative
    )


def agreement(reference: Tensor, outputs: Tensor) -> Agreement:
    """Compare main outputs `(N, …)` with the reference's of the same shape: logits where they are `(N, K ≥ 2)`.

    Raises `ParityError` where the shapes differ or there is no image.
    """
    if reference.shape != outputs.shape or not len(reference):
        raise ParityError(
            f"agreement: got outputs of shape {tuple(outputs.shape)}, "
            f"expected {tuple(reference.shape)} with at least one image"
        )
    y, z = reference.detach().cpu().double(), outputs.detach().cpu().double()
    relative = _ratio(float((z - y).norm()), float(y.norm()))
    if y.ndim == 2 and y.shape[1] >= 2:
        finite = torch.isfinite(y).all(dim=1) & torch.isfinite(z).all(dim=1)
        same = (y.argmax(dim=1) == z.argmax(dim=1)) & finite
        return Agreement(samples=len(y), top1=float(same.double().mean()), psnr=None, relative_error=relative)
    peak = float(y.max() - y.min())
    ratio = _ratio(float((z - y).square().mean().sqrt()), peak)
    psnr = math.inf if ratio == 0 else -math.inf if math.isinf(ratio) else -20 * math.log10(ratio)
    return Agreement(samples=len(y), top1=None, psnr=psnr, relative_error=relative)


def top1_accuracy(logits: Tensor, labels: Tensor) -> float:
    """The share (0 to 1) of rows of `(N, K)` whose largest logit is that of the label `(N,)`; non-finite rows fail."""
    logits, labels = logits.detach().cpu(), labels.detach().cpu()
    right = (logits.argmax(dim=1) == labels) & torch.isfinite(logits).all(dim=1)
    return float(right.double().mean())


def predict(model: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    """The main outputs `(N, …)` of images `(N, C, H, W)` on the CPU: in eval mode, without gradients.

    Of several outputs the main one is that called "out", else the first (see `main_output`). Images go to the
    model's device batch by batch; the model's train or eval modes are restored.
    """
    device = _device(model)
    with evaluating(model):
        return torch.cat(
            [main_output(model(batch.clone().to(device))).cpu() for batch in torch.split(images, batch_size)]
        )


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


def _largest(values: Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0


def _ratio(part: float, whole: float) -> float:
    if whole == 0:
        return 0.0 if part == 0 else math.inf
    return part / whole
