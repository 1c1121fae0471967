"""One fine-tuning: who learns from whom, on what, how."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.analysis.computing import computes_in, is_quick_in_bfloat16, with_channels_last
from vfconvert.data.batches import BatchStream
from vfconvert.tasks.task import Task
from vfconvert.training.checkpoint import State
from vfconvert.training.norms import tracking
from vfconvert.training.objective import DTYPES
from vfconvert.training.ranks import Ranks
from vfconvert.training_options import PRECISIONS, TrainingOptions

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

    def settled(self, state: State | None = None) -> Job:
        """With options that leave nothing to be decided by the network, the device and the length of the run.

        A run that goes on from `state` computes as it did.
        """
        steps = self.options.epochs * len(self.training)
        options = self.options.settled(has_norms=bool(tracking(self.student)), steps=steps)
        precision, last = options.precision, options.channels_last
        if state is not None:
            precision = _before(state) if precision == "auto" else precision
            # Versions that did not say it took it where they were told to.
            last = bool(state.channels_last) if last is None else last
        if precision == "auto":
            precision = "bf16" if self._agreed(self._trains_in_bf16()) else "fp32"
        if last is None:
            last = precision != "fp32" and self._agreed(self._trains_with_channels_last(precision))
        return dataclasses.replace(self, options=dataclasses.replace(options, precision=precision, channels_last=last))

    def _trains_in_bf16(self) -> bool:
        if self.vary or not is_quick_in_bfloat16(self.device, self.teacher):
            return False
        images = self._tried()
        return all(computes_in(torch.bfloat16, model, images) for model in (self.teacher, self._student()))

    def _trains_with_channels_last(self, precision: str) -> bool:
        images, dtype = self._tried(), DTYPES[precision]
        last = images.to(memory_format=torch.channels_last)
        for model in (self.teacher, self._student()):
            turned = with_channels_last(model, images)
            if turned is model or not computes_in(dtype, turned, last):
                return False
        return True

    def _student(self) -> nn.Module:
        return self.student.to(self.device)

    def _tried(self) -> Tensor:
        """No more than a step of this process takes."""
        count = max(1, min(_TRIED, self.options.batch // self.ranks.world))
        return self.example[:count].to(self.device)

    def _agreed(self, can: bool) -> bool:
        """Whether all processes can: they compute alike."""
        return not bool(self.ranks.sum(torch.tensor(float(not can), device=self.device)))


def _before(state: State) -> str:
    """The precision of the run so far, "auto" where nothing tells."""
    said = state.precision if state.precision is not None else state.identity.get("precision")
    return said if said in PRECISIONS else "auto"
