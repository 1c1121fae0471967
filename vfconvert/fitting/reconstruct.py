"""Gradients from unlabelled images: within one block at a time, then a short pass on the network's output."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from vfconvert.analysis.graph import Segment, run_nodes
from vfconvert.fitting.augment import Augmentation
from vfconvert.fitting.boundary import Boundary

_JUDGED, _JUDGED_BATCH = 512, 32
_WARM_UP, _CLIP = 0.1, 1.0  # of the pass on the output


@dataclass(frozen=True, kw_only=True, eq=False)
class Descent:
    """Adam for `steps` of `batch` images at a rate that falls from `rate` to zero along a cosine.

    `warm_up` is the share of the steps over which the rate rises first; `clip` bounds the norm of all gradients.
    """

    steps: int
    rate: float
    batch: int
    generator: torch.Generator
    tick: Callable[[], None]
    warm_up: float = 0.0
    clip: float | None = None

    def run(self, parameters: list[nn.Parameter], loss: Callable[[Tensor], Tensor], count: int) -> None:
        """Lower `loss(indices)` of random ones of `count` images; gradients are asked for here, whatever the flags."""
        wanted = [parameter.requires_grad for parameter in parameters]
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimizer = torch.optim.Adam(parameters, self.rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._factor)
        try:
            for _ in range(self.steps):
                at = torch.randint(0, count, (min(self.batch, count),), generator=self.generator)
                with torch.enable_grad():
                    gradients = torch.autograd.grad(loss(at), parameters, allow_unused=True)
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient
                if self.clip is not None:
                    nn.utils.clip_grad_norm_(parameters, self.clip)
                optimizer.step()
                schedule.step()
                self.tick()
        finally:
            for parameter, flag in zip(parameters, wanted, strict=True):
                parameter.grad = None
                parameter.requires_grad_(flag)

    def _factor(self, step: int) -> float:
        rising = int(self.warm_up * self.steps)
        if step < rising:
            return (step + 1) / (rising + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(self.steps - rising, 1)))


def reconstruct_segment(
    student: nn.Module,
    segment: Segment,
    source: fx.Node,
    images: Tensor,
    entry: Boundary,
    target: Boundary,
    descent: Descent,
) -> None:
    """Train the segment's weights so that it maps the student's `entry` to the teacher's `target`.

    The loss is the squared error of every channel over that channel's variance in the teacher. The student is
    changed in place; norms keep their statistics.
    """
    parameters = _parameters(student, segment)
    if not parameters:
        return
    device = parameters[0].device
    spread = target[: min(len(target), 512)]
    axes = [axis for axis in range(spread.dim()) if axis != 1]
    variance = spread.var(axes, keepdim=True)
    weight = 1 / variance.clamp_min(1e-3 * float(variance.mean()) + 1e-12)
    weight = weight.to(device)

    def loss(at: Tensor) -> Tensor:
        start = {source: images[at].to(device)}
        start[segment.entry] = entry[at].to(device)
        value: Tensor = run_nodes(student, segment.nodes, start)[segment.exit]
        return ((value - target[at].to(device)).square() * weight).mean()

    descent.run(parameters, loss, len(target))


def output_pass(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    augmentation: Augmentation,
    descent: Descent,
) -> None:
    """Train the whole student on the teacher's output for the same images, mirrored and shifted.

    The descent warms up and its gradients are clipped: it starts from a good fit and must not leave it.

    A pass that leaves the student farther from the teacher than it was, on the images as they are, is undone.
    """
    parameters = [p for p in student.parameters() if p.is_floating_point()]
    device = parameters[0].device

    def loss(at: Tensor) -> Tensor:
        moved = augmentation(images[at], descent.generator).to(device)
        with torch.no_grad():
            wanted = teacher(moved.clone())
        return output_loss(student(moved), wanted)

    judged = torch.split(images[:_JUDGED], _JUDGED_BATCH)
    with torch.no_grad():  # a network may change its input in place
        answers = [teacher(batch.clone().to(device)) for batch in judged]
    before, kept = _distance(student, judged, answers, device), [p.detach().clone() for p in parameters]
    replace(descent, warm_up=_WARM_UP, clip=_CLIP).run(parameters, loss, len(images))
    if not _distance(student, judged, answers, device) <= before:  # NaN counts as worse
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)


@torch.no_grad()
def _distance(student: nn.Module, batches: Sequence[Tensor], answers: Sequence[Any], device: torch.device) -> float:
    """Mean of the output loss over the images of all batches; `answers` are the teacher's."""
    total = 0.0
    for batch, wanted in zip(batches, answers, strict=True):
        total += float(output_loss(student(batch.clone().to(device)), wanted)) * len(batch)
    return total / sum(map(len, batches))


def output_loss(got: Any, wanted: Any) -> Tensor:
    """Distillation loss of any structure of outputs: logits `(B, K)` by divergence, other tensors by relative error.

    Outputs that are not floating point (a chosen class, a size) cannot be trained on and count nothing.
    """
    if isinstance(wanted, Tensor):
        if not wanted.is_floating_point():
            return torch.zeros((), device=wanted.device)
        if wanted.dim() == 2 and wanted.shape[1] > 1 and not _probabilities(wanted):
            temperature = 2.0
            divergence: Tensor = F.kl_div(
                F.log_softmax(got / temperature, 1), F.softmax(wanted / temperature, 1), reduction="batchmean"
            )
            scaled: Tensor = divergence * temperature**2
            return scaled
        error: Tensor = (got - wanted).square().mean() / wanted.var().clamp_min(1e-12)
        return error
    if not isinstance(wanted, (dict, list, tuple)):
        return torch.zeros(())
    keys: Sequence[Any] = list(wanted) if isinstance(wanted, dict) else range(len(wanted))
    total = torch.zeros(())
    for key in keys:
        total = output_loss(got[key], wanted[key]) + total
    return total


def _probabilities(rows: Tensor) -> bool:
    """Whether the rows are shares already, as after a softmax."""
    return bool((rows >= 0).all()) and torch.allclose(rows.sum(1), rows.new_ones(len(rows)), atol=1e-3)


def _parameters(student: nn.Module, segment: Segment) -> list[nn.Parameter]:
    found: dict[nn.Parameter, None] = {}
    for node in segment.nodes:
        if node.op == "call_module":
            found.update(dict.fromkeys(student.get_submodule(str(node.target)).parameters()))
    return list(found)
