"""Samples of layers in a network whose control flow cannot be traced: whole passes, with hooks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vfconvert.fitting.samples import BATCH, Sample


@dataclass(frozen=True, eq=False)
class WholePassSamples:
    """Both networks run on every batch; the layer's input and the teacher's output are caught on the way.

    A layer that reads what the network has found (regions, not images) is fitted on the teacher's own input where the
    student has found something else.
    """

    teacher: nn.Module
    student: nn.Module
    images: Tensor

    def of(self, name: str, batch: int = BATCH) -> Iterator[Sample]:
        """The samples of the layer of this name, so many images at a time."""
        caught: dict[str, Tensor] = {}

        # Copies, since an activation in place may follow.
        def catch_input(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            caught["input"] = (inputs[0] if inputs else keywords["input"]).clone()

        def catch_both(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Tensor) -> None:
            caught["own"] = (inputs[0] if inputs else keywords["input"]).clone()
            caught["output"] = output.clone()

        hooks = [
            self.student.get_submodule(name).register_forward_pre_hook(catch_input, with_kwargs=True),
            self.teacher.get_submodule(name).register_forward_hook(catch_both, with_kwargs=True),
        ]
        device = next(self.student.parameters()).device
        try:
            for at in range(0, len(self.images), batch):
                images = self.images[at : at + batch].to(device)
                self.student(images.clone())
                self.teacher(images.clone())
                inputs, own = caught["input"], caught["own"]
                other = len(own) != len(images) and _unlike(inputs, own)
                yield Sample(inputs=own if other else inputs, targets=caught["output"])
        finally:
            for hook in hooks:
                hook.remove()


def _unlike(inputs: Tensor, own: Tensor) -> bool:
    """Whether rows cannot be those of the same regions: other shapes, or more than half of the variance apart."""
    if inputs.shape != own.shape:
        return True
    return bool((inputs - own).square().mean() > 0.5 * own.var(correction=0))
