"""Gradients from unlabelled images: within one block at a time, then a short pass on the network's output."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from vfconvert.analysis.graph import Segment
from vfconvert.analysis.running import run_nodes
from vfconvert.fitting.augment import Augmentation
from vfconvert.fitting.boundary import Boundary
from vfconvert.portions import Portion
from vfconvert.tasks.structure import VaryingOutputError, distillation_loss
from vfconvert.tasks.structure import looks_like_logits as looks_like_logits

_JUDGED, _JUDGED_BATCH = 128, 32  # images that no descent trains on, at most, and an eighth of all
_ANSWERS = 2**26  # numbers in the teacher's answers that are kept to judge by: 256 MiB
_TEMPERATURE = 2.0  # of logits
_WARM_UP, _CLIP = 0.1, 1.0  # of the pass on the output


@dataclass(frozen=True, kw_only=True, eq=False)
class Descent:
    """Adam for `steps` of `batch` images at a rate that falls from `rate` to zero along a cosine.

    `warm_up` is the share of the steps over which the rate rises first; `clip` bounds the norm of all gradients.
    Gradients are those of `portion` images at once (None: of the batch), added up.
    """

    steps: int
    rate: float
    batch: int
    generator: torch.Generator
    tick: Callable[[], None]
    warm_up: float = 0.0
    clip: float | None = None
    portion: Portion | None = None

    def run(self, parameters: list[nn.Parameter], loss: Callable[[Tensor], Tensor], count: int) -> None:
        """Lower `loss(indices)`, a mean over random ones of `count` images; gradients are asked for here.

        The flags of the parameters come back.
        """
        portion = self.portion if self.portion is not None else Portion(self.batch)
        wanted = [parameter.requires_grad for parameter in parameters]
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimizer = torch.optim.Adam(parameters, self.rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._factor)
        try:
            for _ in range(self.steps):
                at = torch.randint(0, count, (min(self.batch, count),), generator=self.generator)
                gradients = portion.fitted(partial(_gradients, parameters, loss, at), self.generator)
                if gradients is None:
                    return
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


def _gradients(
    parameters: Sequence[nn.Parameter], loss: Callable[[Tensor], Tensor], at: Tensor, size: int
) -> list[Tensor | None] | None:
    """Of the mean loss, so many images at once; None where no output is a number to train on."""
    total: list[Tensor | None] = [None] * len(parameters)
    for part in torch.split(at, size):
        with torch.enable_grad():
            value = loss(part) * (len(part) / len(at))
            if not value.requires_grad:
                return None
            found = torch.autograd.grad(value, parameters, allow_unused=True)
        total = [new if old is None or new is None else old + new for old, new in zip(total, found, strict=True)]
    return total


def trained_on(count: int) -> int:
    """How many of so many images the descents train on: the first ones; the rest judges the pass on the output."""
    return count - min(_JUDGED, count // 8)


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

    descent.run(parameters, loss, trained_on(len(target)))


def output_pass(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    augmentation: Augmentation,
    descent: Descent,
) -> None:
    """Train the whole student on the teacher's output for the same images, mirrored and shifted.

    The descent warms up and its gradients are clipped: it starts from a good fit and must not leave it.

    A pass that leaves the student farther from the teacher than it was, on the images that no descent has trained on,
    is undone.
    """
    parameters = [p for p in student.parameters() if p.is_floating_point()]
    device = parameters[0].device

    def loss(at: Tensor) -> Tensor:
        moved = augmentation(images[at], descent.generator).to(device)
        with torch.no_grad():
            wanted = teacher(moved.clone())
        return output_loss(student(moved), wanted)

    training = trained_on(len(images))
    judging = images[training:] if training < len(images) else images
    portion = descent.portion if descent.portion is not None else Portion(descent.batch)
    judged = portion.fitted(lambda size: _answered(teacher, judging, device, min(size, _JUDGED_BATCH)))
    before, kept = _distance(student, judged, device), [p.detach().clone() for p in parameters]
    replace(descent, warm_up=_WARM_UP, clip=_CLIP, portion=portion).run(parameters, loss, training)
    if not _distance(student, judged, device) <= before:  # NaN counts as worse
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)


@torch.no_grad()
def _answered(teacher: nn.Module, images: Tensor, device: torch.device, size: int) -> list[tuple[Tensor, Any]]:
    """Batches of images and the teacher's answers, as many as fit in memory; at least one batch."""
    found: list[tuple[Tensor, Any]] = []
    numbers = 0
    for batch in torch.split(images, size):
        wanted = teacher(batch.clone().to(device))  # a network may change its input in place
        found.append((batch, wanted))
        numbers += _numbers(wanted)
        if numbers > _ANSWERS:
            break
    return found


@torch.no_grad()
def _distance(student: nn.Module, judged: Sequence[tuple[Tensor, Any]], device: torch.device) -> float:
    """Mean of the output loss over the images of all batches."""
    total = sum(float(output_loss(student(batch.clone().to(device)), wanted)) * len(batch) for batch, wanted in judged)
    return total / sum(len(batch) for batch, _ in judged)


def _numbers(outputs: Any) -> int:
    if isinstance(outputs, Tensor):
        return outputs.numel()
    parts = outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, (list, tuple)) else ()
    return sum(map(_numbers, parts))


def output_loss(got: Any, wanted: Any) -> Tensor:
    """Distillation loss of any structure of outputs: logits `(B, K)` by divergence, other tensors by relative error.

    Outputs that cannot be trained on count nothing: where nothing is floating point, and where their size varies with
    what the network finds.
    """
    try:
        return distillation_loss(got, wanted, _TEMPERATURE)
    except VaryingOutputError:
        return torch.zeros(())


def _parameters(student: nn.Module, segment: Segment) -> list[nn.Parameter]:
    found: dict[nn.Parameter, None] = {}
    for node in segment.nodes:
        if node.op == "call_module":
            found.update(dict.fromkeys(student.get_submodule(str(node.target)).parameters()))
    return list(found)
