"""Samples of layers in a network whose control flow cannot be traced: whole passes, with hooks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vfconvert.fitting.samples import BATCH, Sample


@dataclass(frozen=True, eq=False)
class WholePassSamples:
    """Both networks run on every batch; the layer's input and the teacher's output are caught on the way."""

    teacher: nn.Module
    student: nn.Module
    images: Tensor

    def of(self, name: str, batch: int = BATCH) -> Iterator[Sample]:
        """The samples of the layer of this name, so many images at a time."""
        caught: dict[str, Tensor] = {}

        # Copies, since an activation in place may follow.
        def catch_input(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            caught["input"] = (inputs[0] if inputs else keywords["input"]).clone()

        def catch_output(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            caught["output"] = output.clone()

        hooks = [
            self.student.get_submodule(name).register_forward_pre_hook(catch_input, with_kwargs=True),
            self.teacher.get_submodule(name).register_forward_hook(catch_output),
        ]
        device = next(self.student.parameters()).device
        try:
            for at in range(0, len(self.images), batch):
                images = self.images[at : at + batch].to(device)
                self.student(images.clone())
                self.teacher(images.clone())
                yield Sample(inputs=caught["input"], targets=caught["output"])
        finally:
            for hook in hooks:
                hook.remove()
