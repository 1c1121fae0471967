"""One fine-tuning: who learns from whom, on what, how."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.data.batches import BatchStream
from vfconvert.tasks.task import Task
from vfconvert.training.norms import tracking
from vfconvert.training.ranks import Ranks
from vfconvert.training_options import TrainingOptions


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
        """With options that leave nothing to be decided by the network and the length of the run."""
        steps = self.options.epochs * len(self.training)
        options = self.options.settled(has_norms=bool(tracking(self.student)), steps=steps)
        return dataclasses.replace(self, options=options)
