"""What float32 leaves open of a network's own outputs, told by the same network in float64.

Two programs that compute one network in float32 round differently, and each layer may enlarge the difference. Most
networks do so hardly; in one that does, a faultless file differs from it by more than the usual tolerance.
"""

from __future__ import annotations

import copy
from functools import cached_property

import torch
from torch import Tensor, nn

from vfconvert.analysis.forward import evaluating
from vfconvert.exporting.outputs import named_outputs

WORTH_COMPARING = 1e-2  # differences beyond this share of the largest output are never put down to rounding
_TWICE = 2.0  # the file and the network may each be off by as much, to either side


def allowed(tolerance: float, share: float) -> float:
    """The relative error that a faultless file may have where float32 leaves `share` of the output open."""
    return max(tolerance, min(_TWICE * share, WORTH_COMPARING))


class Rounding:
    """A network beside itself in float64; the copy is made when it is first asked for."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def share(self, name: str, output: Tensor, images: Tensor) -> float:
        """`max|Δ| / max|y|` of an output in float32 and in float64, for `images` `(B, C, H, W)`; 0 if not to be told.

        It cannot be told of a network that runs in float32 alone, nor of outputs that are not floating point.
        """
        exact = self._exact_outputs(images).get(name)
        if exact is None or exact.shape != output.shape or exact.dtype != torch.float64 or not exact.numel():
            return 0.0
        error, magnitude = (output.detach().double().cpu() - exact).abs().max(), exact.abs().max()
        return float(error / magnitude) if magnitude > 0 else 0.0

    def _exact_outputs(self, images: Tensor) -> dict[str, Tensor]:
        try:
            with evaluating(self._exact):
                return dict(named_outputs(self._exact(images.cpu().double())))
        except (RuntimeError, TypeError, ValueError):  # a step that is written for float32
            return {}

    @cached_property
    def _exact(self) -> nn.Module:
        return copy.deepcopy(self._model).cpu().double()
