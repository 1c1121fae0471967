"""The student as it learns: one step after another, its optimizer, its averaged weights, and all of that as tensors."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.data.batches import Batch
from vfconvert.errors import TrainingError
from vfconvert.nn import VersatileConv2d
from vfconvert.training.checkpoint import load_optimizer, optimizer_tensors
from vfconvert.training.job import Job
from vfconvert.training.norms import set_norms
from vfconvert.training.objective import Objective
from vfconvert.training.optimizing import Average, optimizer_of
from vfconvert.training.ranks import plain_norms
from vfconvert.training.signals import KINDS, Signals

_WIDE = 32  # channels from which a layer trains faster mask by mask


class NotFiniteError(Exception):
    """A loss or gradient that is not finite; the weights are those from before the step."""


@dataclass(frozen=True, slots=True)
class Stepped:
    """What all processes agree on: the mean loss, whether a checkpoint is due, the signal that came to any (or 0)."""

    loss: float
    due: bool
    signal: int


def check_precision(precision: str, device: torch.device) -> None:
    """Raise `TrainingError` for a precision that the device does not train in."""
    if precision == "fp16" and device.type != "cuda":
        raise TrainingError(f"--train-precision fp16 trains on CUDA devices only, got {device}; use bf16 or fp32")


class Learner:
    """`student` is the job's, on its device; `teacher` the job's, in the memory format of the run."""

    def __init__(self, job: Job, signals: Signals) -> None:
        """Raises `TrainingError` for a precision that the device does not train in."""
        options = job.options
        check_precision(options.precision, job.device)
        self._job, self._options, self._signals = job, options, signals
        self._layout: Any = torch.channels_last if options.channels_last else torch.preserve_format
        self.frozen = options.norms == "frozen"
        self.student, self.teacher = job.student.to(job.device), job.teacher
        if not self.frozen:
            self.student = job.ranks.with_shared_norms(self.student, job.device)
        if options.channels_last:
            self.student.to(memory_format=self._layout)
            self.teacher = copy.deepcopy(job.teacher).to(memory_format=self._layout)
        self._average = Average(self.student, options.ema) if options.ema else None
        self._averaged = copy.deepcopy(self.student) if options.ema else None
        self._optimizer = optimizer_of(self.student, options)
        self._parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        self.objective = Objective(
            self.teacher,
            self.student,
            job.task,
            temperature=options.temperature,
            feature_weight=options.feature_weight,
            label_weight=options.label_weight,
            features=job.features,
            precision=options.precision,
            example=job.example.to(job.device),
            vary=job.vary,
        )
        set_norms(self.student, frozen=self.frozen)
        set_forms(self.student, job.device, options.precision)
        model = job.ranks.wrapped(self.student, job.device, frozen_norms=self.frozen)
        self._called: Any = torch.compile(model) if options.compile else model
        self._scaler = self._new_scaler(2.0**16)

    @property
    def judged(self) -> nn.Module:
        """The network whose metrics count: the averaged one where there is one."""
        if self._average is None or self._averaged is None:
            return self.student
        self._averaged.load_state_dict(self._average.values)
        return self._averaged

    def step(self, batch: Batch, number: int, rate: float, *, due: bool = False) -> Stepped:
        """One step, the `number`-th from 0. `due`: the first process wants a checkpoint.

        Raises `NotFiniteError` in all processes, before any weight is changed, where one of them met such a number.
        """
        job, options = self._job, self._options
        images = batch.images.to(job.device, memory_format=self._layout)
        targets = batch.targets.to(job.device) if batch.targets is not None else None
        loss = self.objective.loss(self._called, images, targets)
        torch.autograd.backward(self._scaler.scale(loss))
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, options.clip or math.inf)
        scaled = bool(self._scaler.is_enabled())  # then steps of gradients that overflow are left out
        fine = math.isfinite(value := float(loss.detach())) and (scaled or math.isfinite(float(norm)))
        came = [float(self._signals.number == kind) for kind in KINDS]
        told = torch.tensor([value, float(not fine), float(due and job.ranks.first), *came], device=job.device)
        total, bad, wanted, *signals = job.ranks.sum(told).tolist()
        if bad:
            raise NotFiniteError
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update(self.student, number + 1)
        number_of = next((kind for kind, count in zip(KINDS, signals, strict=True) if count), 0)
        return Stepped(float(total) / job.ranks.world, bool(wanted), number_of)

    def tensors(self) -> dict[str, Tensor]:
        """All that further steps depend on, copied, by dotted names."""
        found = {f"model.{name}": tensor for name, tensor in self.student.state_dict().items()}
        if self._average is not None:
            found |= {f"average.{name}": tensor for name, tensor in self._average.values.items()}
        found |= optimizer_tensors(self._optimizer)
        found["random"] = torch.get_rng_state()
        found["scale"] = torch.tensor(self._scaler.get_scale(), dtype=torch.float64)
        return {name: tensor.detach().cpu().clone() for name, tensor in found.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put such tensors back."""
        self._optimizer.zero_grad(set_to_none=True)
        self.student.load_state_dict(part(tensors, "model"))
        set_forms(self.student, self._job.device, self._options.precision)
        if self._average is not None:
            self._average.values = {k: t.to(self._job.device) for k, t in part(tensors, "average").items()}
        load_optimizer(self._optimizer, tensors)
        self._scaler = self._new_scaler(float(tensors["scale"]))  # one that has met a number not finite is stuck
        torch.set_rng_state(tensors["random"])

    def _new_scaler(self, scale: float) -> torch.amp.GradScaler:
        enabled = self._options.precision == "fp16"
        return torch.amp.GradScaler(self._job.device.type, init_scale=max(scale, 1.0), enabled=enabled)

    def leave(self) -> None:
        """The student in evaluation, channels first in memory, no gradient asked for or held."""
        for parameter in self._parameters:
            parameter.grad = None
        for module in self.student.modules():
            if isinstance(module, VersatileConv2d):
                module.compute_by(None)
        self.student = plain_norms(self.student).eval().requires_grad_(False).to(memory_format=torch.contiguous_format)


def set_forms(student: nn.Module, device: torch.device, precision: str) -> None:
    """Have wide layers computed mask by mask on a processor, others by a weight that is quick to make.

    By a rule, so that a run that goes on computes the same. In 16 bits one convolution is quicker than several of
    fewer products. Measured by `benchmarks.training_step`.
    """
    by_mask = device.type == "cpu" and precision == "fp32"
    for module in student.modules():
        if isinstance(module, VersatileConv2d):
            narrow = min(module.geometry.in_channels, module.geometry.out_channels)
            module.compute_by("masks" if by_mask and narrow >= _WIDE else "weight")


def part(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `kind`, copied, without that."""
    return {name.removeprefix(f"{kind}."): t.clone() for name, t in tensors.items() if name.startswith(f"{kind}.")}
