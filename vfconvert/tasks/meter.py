"""Metrics as sums over examples, which several processes can add up exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from vfconvert.errors import TrainingError


class Meter(Protocol):
    """Takes in batches and tells the metrics of all of them together."""

    def update(self, outputs: Any, teacher_outputs: Any | None, targets: Tensor | None) -> None:
        """Count a batch of outputs against what the task compares them with; the other one may be None."""
        ...

    def state(self) -> Tensor:
        """The sums so far, 1-D float64 of a length that the task alone decides; a copy.

        Added up over processes (an all-reduce) and merged into a fresh meter they give the metrics of all batches.
        """
        ...

    def merge(self, state: Tensor) -> None:
        """Add the state of another meter of the same task."""
        ...

    def compute(self) -> dict[str, float]:
        """Every metric by its name. Raises `TrainingError` where no example has been counted."""
        ...


@dataclass
class SumMeter:
    """A meter made of two functions: the sums of one batch, whose first is a count, and what sums amount to."""

    length: int
    device: torch.device
    measure: Callable[[Any, Any | None, Tensor | None], Tensor]  # (length,) of any dtype
    result: Callable[[list[float]], dict[str, float]]
    _sums: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._sums = wide(torch.zeros(self.length, device=self.device))

    @torch.no_grad()
    def update(self, outputs: Any, teacher_outputs: Any | None, targets: Tensor | None) -> None:
        """Count a batch."""
        sums = self.measure(outputs, teacher_outputs, targets)
        self._sums += wide(sums).to(self._sums.device)

    def state(self) -> Tensor:
        """The sums so far, 1-D float64; a copy."""
        return self._sums.clone()

    def merge(self, state: Tensor) -> None:
        """Add the state of another meter. Raises `TrainingError` for one of another length."""
        if state.shape != self._sums.shape:
            raise TrainingError(
                f"sums of {tuple(state.shape)} numbers cannot be merged into {tuple(self._sums.shape)}; "
                "merge the meters of one task only"
            )
        self._sums += state.to(self._sums.device)

    def compute(self) -> dict[str, float]:
        """Every metric by its name. Raises `TrainingError` where no example has been counted."""
        sums = self._sums.tolist()
        if not sums[0]:
            raise TrainingError("no example was measured, expected at least one; give validation data")
        return self.result(sums)


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float64, on the CPU where the device has none (Apple's)."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def needed(targets: Tensor | None, task: str) -> Tensor:
    """The targets, which a supervised task cannot do without. Raises `TrainingError` where there are none."""
    if targets is None:
        raise TrainingError(f"{task} has no targets to compare with; give labelled data or choose the task distil")
    return targets
