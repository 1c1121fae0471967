"""Gradients from unlabelled images: within one block at a time, then a short pass on the network's output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from vfconvert.analysis.graph import Segment, run_nodes
from vfconvert.fitting.augment import Augmentation
from vfconvert.fitting.boundary import Boundary


@dataclass(frozen=True, kw_only=True, eq=False)
class Descent:
    """Adam for `steps` of `batch` images at a rate that falls from `rate` to zero along a cosine."""

    steps: int
    rate: float
    batch: int
    generator: torch.Generator
    tick: Callable[[], None]

    def run(self, parameters: list[nn.Parameter], loss: Callable[[Tensor], Tensor], count: int) -> None:
        """Lower `loss(indices)` of random ones of `count` images; gradients are asked for here, whatever the flags."""
        wanted = [parameter.requires_grad for parameter in parameters]
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimizer = torch.optim.Adam(parameters, self.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        try:
            for _ in range(self.steps):
                at = torch.randint(0, count, (min(self.batch, count),), generator=self.generator)
                with torch.enable_grad():
                    gradients = torch.autograd.grad(loss(at), parameters, allow_unused=True)
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
                schedule.step()
                self.tick()
        finally:
            for parameter, flag in zip(parameters, wanted, strict=True):
                parameter.grad = None
                parameter.requires_grad_(flag)


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
    """Train the whole student on the teacher's output for the same images, moved about a little."""
    parameters = [p for p in student.parameters() if p.is_floating_point()]
    device = parameters[0].device

    def loss(at: Tensor) -> Tensor:
        moved = augmentation(images[at], descent.generator).to(device)
        with torch.no_grad():
            wanted = teacher(moved.clone())
        return output_loss(student(moved), wanted)

    descent.run(parameters, loss, len(images))


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
