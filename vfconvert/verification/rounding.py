"""How far two outputs are apart, and what float32 leaves open of a network's own, told by the same network in float64.

Two programs that compute one network in float32 round differently, and each layer may enlarge the difference. Most
networks do so hardly; in one that does, a faultless file differs from it by more than the usual tolerance.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from vfconvert.analysis.forward import evaluating
from vfconvert.exporting.naming import FileNames, outputs_in_file

WORTH_COMPARING = 1e-2  # differences beyond this share of the largest output are never put down to rounding
_TWICE = 2.0  # the file and the network may each be off by as much, to either side
_TABLE_DIMENSIONS = 3  # `(B, rows, columns)` or `(B, columns, rows)`
_SMALL_PART = 1e-2  # of the largest number of a table: what is smaller counts as so large


@dataclass(frozen=True)
class Distance:
    """Of two outputs of one shape: `max|Δ|`, `max|y|`, their ratio, and `‖Δ‖ / ‖y‖`.

    Of tables the ratio is the largest of any row and any column: boxes in pixels stand beside scores below 1.
    """

    error: float
    magnitude: float
    relative: float
    typical: float


def distance(expected: Tensor, got: Tensor, smallest: float = 0.0) -> Distance:
    """How far floating-point outputs are apart; `max|y|` counts as `smallest` at least, where it is not 0."""
    wanted, apart = expected.double(), (got.double() - expected.double()).abs()
    error, magnitude = largest(apart), largest(wanted.abs())
    relative = ratio(error, max(magnitude, smallest) if magnitude else magnitude)
    if wanted.dim() == _TABLE_DIMENSIONS and magnitude:
        for dimension in (1, 2):
            own = wanted.abs().amax((0, 3 - dimension)).clamp_min(max(_SMALL_PART * magnitude, smallest))
            relative = max(relative, largest(apart.amax((0, 3 - dimension)) / own))
    return Distance(error, magnitude, relative, ratio(float(apart.norm()), float(wanted.norm())))


def ratio(part: float, whole: float) -> float:
    """`part / whole`, where nothing of nothing is 0 and something of nothing is infinite."""
    if whole == 0:
        return 0.0 if part == 0 else math.inf
    return part / whole


def largest(values: Tensor) -> float:
    """The largest number, 0 where there is none."""
    return float(values.max()) if values.numel() else 0.0


def allowed(tolerance: float, share: float) -> float:
    """The relative error that a faultless file may have where float32 leaves `share` of the output open."""
    return max(tolerance, min(_TWICE * share, WORTH_COMPARING))


class Rounding:
    """A network beside itself in float64; the copy is made when it is first asked for.

    Outputs are called as in a file that was written with `names`.
    """

    def __init__(self, model: nn.Module, names: FileNames | None = None) -> None:
        self._model, self._names = model, names

    def of(self, name: str, output: Tensor, images: Tensor) -> Distance | None:
        """From an output in float32 to that in float64, for `images` `(B, C, H, W)`; None where it cannot be told.

        That is of a network that runs in float32 alone, and of outputs that are not floating point.
        """
        exact = self._exact_outputs(images).get(name)
        if exact is None or exact.shape != output.shape or exact.dtype != torch.float64 or not exact.numel():
            return None
        return distance(exact, output.detach().cpu())

    def _exact_outputs(self, images: Tensor) -> dict[str, Tensor]:
        try:
            with evaluating(self._exact):
                return dict(outputs_in_file(self._model, self._exact(images.cpu().double()), self._names))
        except Exception:  # a step that is written for float32, in whatever way it says so
            return {}

    @cached_property
    def _exact(self) -> nn.Module:
        return copy.deepcopy(self._model).cpu().double()
