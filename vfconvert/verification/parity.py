"""An exported file against the converted network, number by number: every output, batch size, height and width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vfconvert.analysis.forward import evaluating
from vfconvert.errors import ParityError
from vfconvert.exporting.cause import cause_line
from vfconvert.exporting.naming import FileNames, outputs_in_file
from vfconvert.verification.rounding import WORTH_COMPARING, Distance, Rounding, allowed, distance

FLOAT32_TOLERANCE = 1e-4
BATCH_SIZES = (1, 2, 5)
# Sigmoids and the like end in steps of float32 around 1, so runtimes differ by so much however small an output is.
RESOLUTION = 2.0**-23
_NOTHING = 8 * RESOLUTION  # an output of such numbers tells nothing
_ADVICE = "do not use the file, and report the network"


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputParity:
    """One output at one batch size: `max|Δ|`, `max|y|` of the reference, and their ratio.

    The ratio is 0 where both are 0; of a smaller `max|y|` than that of which `RESOLUTION` is the tolerance, that one is
    taken. For outputs that are not floating point it is the share of unequal elements.
    `size` is the height and width that the images were resized to, None for their own. `rounding` is what float32
    leaves open of this output (see `Rounding.of`), measured only where the tolerance was too small, else 0.
    """

    output: str
    batch: int
    maximum_error: float
    reference_magnitude: float
    relative_error: float
    rounding: float = 0.0
    size: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """A passed comparison: every output at every batch size, what was allowed of them, and what ran the file."""

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
class OpenFile:
    """A file in its runtime; `run` takes images `(B, C, H, W)` and gives the outputs by name, in order.

    `fixed_batch` is the one batch size that the file takes, None where it takes all; `runtime` and `version` are what
    `Parity` tells of it.
    """

    runtime: str
    version: str
    fixed_batch: int | None
    run: Callable[[Tensor], list[tuple[str, Tensor]]]


@dataclass(frozen=True, slots=True)
class Cases:
    """What is compared: `images` `(N, C, H, W)` by the batch, at their own size and resized to each of `sizes`.

    At the `further` sizes a file is compared where it runs. `names`: see `file_names`.
    """

    images: Tensor
    batch_sizes: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    tolerance: float
    further: tuple[tuple[int, int], ...] = ()
    names: FileNames | None = None

    def __post_init__(self) -> None:
        if not len(self.images) or not self.batch_sizes:
            counts = f"{len(self.images)} images and {len(self.batch_sizes)} batch sizes"
            raise ParityError(f"parity: got {counts}, expected one or more")

    def batch(self, count: int, size: tuple[int, int] | None) -> Tensor:
        """The first `count` images `(count, C, h, w)`; too few come again, each time moved on by a pixel."""
        again = [self.images.roll(turn, -1) for turn in range(-(-count // len(self.images)))]
        images = torch.cat(again)[:count]
        return images if size is None else F.interpolate(images, size=size, mode="bilinear")


def verify(open_file: Callable[[], OpenFile], title: str, model: nn.Module, cases: Cases) -> Parity:
    """Run the opened file on every case against `model` in eval mode; `title` is what messages call the runtime.

    Where a file differs by more than the tolerance, the network is measured against itself in float64: what rounding
    may account for is allowed, up to a hundredth of the largest output. Raises `ParityError` where the file does not
    open or run, or differs beyond that.
    """
    try:
        file = open_file()
    except Exception as error:  # whatever a runtime raises, the file is of no use
        raise ParityError(f"{title} cannot open the file: {cause_line(error)}; do not use it") from error
    batch_sizes = cases.batch_sizes if file.fixed_batch is None else (file.fixed_batch,)
    comparisons: list[OutputParity] = []
    rounding = Rounding(model, cases.names)
    for size in (None, *cases.sizes, *cases.further):
        for count in batch_sizes:
            images = cases.batch(count, size)
            with evaluating(model):
                reference = outputs_in_file(model, model(images.clone().to(device_of(model))), cases.names)
            try:
                outputs = file.run(images)
            except Exception as error:
                if size in cases.further:
                    continue
                where = _where(count, size)
                raise ParityError(
                    f"{title} cannot run the file at {where}: {cause_line(error)}; do not use the file"
                ) from error
            comparisons += _compare(reference, outputs, _Batch(images, size, cases.tolerance, rounding))
    left_open = max(comparison.rounding for comparison in comparisons)
    return Parity(
        comparisons=tuple(comparisons),
        tolerance=allowed(cases.tolerance, left_open),
        runtime=file.runtime,
        runtime_version=file.version,
    )


def device_of(model: nn.Module) -> torch.device:
    """Where the first of the model's tensors is; the CPU where it has none."""
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


def _where(batch: int, size: tuple[int, int] | None) -> str:
    return f"batch {batch}" if size is None else f"batch {batch} and size {size[0]}x{size[1]}"


@dataclass(frozen=True)
class _Batch:
    """One batch of images `(B, C, H, W)`, and how nearly the outputs have to be the same."""

    images: Tensor
    size: tuple[int, int] | None
    tolerance: float
    rounding: Rounding

    def __str__(self) -> str:
        return _where(len(self.images), self.size)


def _compare(
    reference: Sequence[tuple[str, Tensor]], outputs: Sequence[tuple[str, Tensor]], batch: _Batch
) -> list[OutputParity]:
    wanted, got = [name for name, _ in reference], [name for name, _ in outputs]
    if wanted != got:
        raise ParityError(f"outputs at {batch}: got {', '.join(got)}, expected {', '.join(wanted)}")
    return [
        _one(name, expected, output, batch) for (name, expected), (_, output) in zip(reference, outputs, strict=True)
    ]


def _one(name: str, expected: Tensor, output: Tensor, batch: _Batch) -> OutputParity:
    where, tolerance, share = f"output '{name}' at {batch}", batch.tolerance, 0.0
    found = difference(where, expected.cpu(), output.cpu(), RESOLUTION / tolerance)
    if 0 < found.magnitude < _NOTHING and not found.error <= tolerance * found.magnitude:
        raise ParityError(
            f"{where}: its numbers are {found.magnitude:.1g} at most on these images, too small to compare files by; "
            "give images in which the network finds something (--data)"
        )
    if not found.relative <= tolerance:
        own = batch.rounding.of(name, expected, batch.images)
        share, typical = (own.relative, own.typical) if own is not None else (0.0, 0.0)
        if not (found.relative <= allowed(tolerance, share) and found.typical <= allowed(tolerance, typical)):
            raise ParityError(
                f"{where}: max|Δ| is {found.error:.3g} at max|y| {found.magnitude:.3g}, relative error "
                f"{found.relative:.3g}, allowed {allowed(tolerance, share):.3g}; {_advice(share)}"
            )
    return OutputParity(
        output=name,
        batch=len(batch.images),
        maximum_error=found.error,
        reference_magnitude=found.magnitude,
        relative_error=found.relative,
        rounding=share,
        size=batch.size,
    )


def _advice(share: float) -> str:
    if allowed(0.0, share) < WORTH_COMPARING:
        return _ADVICE
    return (
        f"the converted network enlarges rounding: in float64 this output differs by {share:.2g} of its largest, so "
        "that no file of it can be told from a wrong one; are its weights trained, its images real (--data)?"
    )


def difference(where: str, expected: Tensor, got: Tensor, smallest: float = 0.0) -> Distance:
    """How far two tensors are apart, `max|y|` as of `smallest` at least; of whole numbers the share that is unequal.

    Raises `ParityError` where they differ in shape, or a number is not finite.
    """
    if got.shape != expected.shape:
        raise ParityError(f"{where}: got shape {tuple(got.shape)}, expected {tuple(expected.shape)}; {_ADVICE}")
    check_finite(where, expected, got)
    found = distance(expected, got, smallest)
    if expected.is_floating_point():
        return found
    unequal = float((got != expected).double().mean()) if got.numel() else 0.0
    return replace(found, relative=unequal, typical=unequal)


def check_finite(where: str, expected: Tensor, got: Tensor) -> None:
    """Raise `ParityError` where a number of either is not finite."""
    for whose, tensor in (("the converted network", expected), ("the file", got)):
        if not bool(torch.isfinite(tensor).all()):
            raise ParityError(f"{where}: {whose} gives numbers that are not finite; check its weights and the inputs")
