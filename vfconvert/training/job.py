"""One fine-tuning: who learns from whom, on what, how."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.analysis.computing import computes_in, is_quick_in_bfloat16, with_channels_last
from vfconvert.data.batches import BatchStream
from vfconvert.tasks.task import Task
from vfconvert.training.norms import tracking
from vfconvert.training.ranks import Ranks
from vfconvert.training_options import TrainingOptions

_TRIED = 4  # images that show whether a network computes in some way


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """What is trained on what. The student is changed in place; the teacher is not.

    `example` `(N, C, H, W)` are images that settle in what units errors are counted. `features` are the modules whose
    outputs are matched where that is asked for. `identity` is all that a checkpoint has to agree with; `folder` None
    writes none.
    """

    teacher: nn.Module
    student: nn.Module
    task: Task
    training: BatchStream
    validation: BatchStream
    options: TrainingOptions
    example: Tensor
    seed: int
    device: torch.device
    features: tuple[str, ...] = ()
    vary: bool = False  # the teacher's outputs, in number: then features are matched in their place
    identity: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    ranks: Ranks = field(default_factory=Ranks)

    def settled(self) -> Job:
        """With options that leave nothing to be decided by the network, the device and the length of the run."""
        steps = self.options.epochs * len(self.training)
        options = self.options.settled(has_norms=bool(tracking(self.student)), steps=steps)
        if options.precision == "auto":
            options = dataclasses.replace(options, precision="bf16" if self._agreed(self._trains_in_bf16()) else "fp32")
        if options.channels_last is None:
            last = options.precision != "fp32" and self._agreed(self._trains_with_channels_last())
            options = dataclasses.replace(options, channels_last=last)
        return dataclasses.replace(self, options=options)

    def _trains_in_bf16(self) -> bool:
        if self.vary or not is_quick_in_bfloat16(self.device, self.teacher):
            return False
        return all(computes_in(torch.bfloat16, model, images) for model, images in self._tried())

    def _trains_with_channels_last(self) -> bool:
        return all(with_channels_last(model, images) is not model for model, images in self._tried())

    def _tried(self) -> Iterator[tuple[nn.Module, Tensor]]:
        images = self.example[:_TRIED].to(self.device)
        yield from ((model.to(self.device), images) for model in (self.teacher, self.student))

    def _agreed(self, can: bool) -> bool:
        """Whether all processes can: they compute alike."""
        return not bool(self.ranks.sum(torch.tensor(float(not can), device=self.device)))
