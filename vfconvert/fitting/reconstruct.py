"""Gradients from unlabelled images: within one block at a time, then a short pass on the network's output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from vfconvert.analysis.graph import Segment, run_nodes
from vfconvert.fitting.augment import Augmentation
from vfconvert.fitting.boundary import Boundary

Tick = Callable[[], None]
_BATCH = 64


def reconstruct_segment(
    student: nn.Module,
    segment: Segment,
    source: fx.Node,
    images: Tensor,
    entry: Boundary,
    target: Boundary,
    *,
    steps: int,
    rate: float,
    generator: torch.Generator,
    tick: Tick,
) -> None:
    """Train the segment's weights so that it maps the student's `entry` to the teacher's `target`.

    The loss is the squared error of every channel over that channel's variance in the teacher. The student is
    changed in place; norms keep their statistics.
    """
    parameters = _parameters(student, segment)
    if not parameters:
        return
    spread = target[: min(len(target), 512)]
    axes = [axis for axis in range(spread.dim()) if axis != 1]
    variance = spread.var(axes, keepdim=True)
    weight = 1 / variance.clamp_min(1e-3 * float(variance.mean()) + 1e-12)

    def loss(at: Tensor) -> Tensor:
        environment = run_nodes(student, segment.nodes, {source: images[at], segment.entry: entry[at]})
        value: Tensor = environment[segment.exit]
        return ((value - target[at]).square() * weight).mean()

    _descend(parameters, loss, len(target), steps, rate, generator, tick)


def output_pass(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    *,
    steps: int,
    rate: float,
    augmentation: Augmentation,
    generator: torch.Generator,
    tick: Tick,
) -> None:
    """Train the whole student on the teacher's output for the same images, moved about a little."""
    parameters = [p for p in student.parameters() if p.is_floating_point()]

    def loss(at: Tensor) -> Tensor:
        batch = augmentation(images[at], generator)
        with torch.no_grad():
            wanted = teacher(batch)
        return output_loss(student(batch), wanted)

    _descend(parameters, loss, len(images), steps, rate, generator, tick)


def output_loss(got: Any, wanted: Any) -> Tensor:
    """Distillation loss of any structure of outputs: logits `(B, K)` by divergence, other tensors by relative error."""
    if isinstance(wanted, Tensor):
        if wanted.dim() == 2 and wanted.shape[1] > 1:
            temperature = 2.0
            divergence = F.kl_div(
                F.log_softmax(got / temperature, 1), F.softmax(wanted / temperature, 1), reduction="batchmean"
            )
            return divergence * temperature**2
        return (got - wanted).square().mean() / wanted.var().clamp_min(1e-12)
    keys: Sequence[Any] = list(wanted) if isinstance(wanted, dict) else range(len(wanted))
    losses = [output_loss(got[key], wanted[key]) for key in keys if wanted[key] is not None]
    return torch.stack(losses).sum()


def _parameters(student: nn.Module, segment: Segment) -> list[nn.Parameter]:
    found: dict[nn.Parameter, None] = {}
    for node in segment.nodes:
        if node.op == "call_module":
            found.update(dict.fromkeys(student.get_submodule(str(node.target)).parameters()))
    return list(found)


def _descend(
    parameters: list[nn.Parameter],
    loss: Callable[[Tensor], Tensor],
    count: int,
    steps: int,
    rate: float,
    generator: torch.Generator,
    tick: Tick,
) -> None:
    """Adam with a cosine to zero; gradients are asked for here, whatever the parameters say."""
    wanted = [p.requires_grad for p in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(parameters, rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    try:
        for _ in range(steps):
            at = torch.randint(0, count, (min(_BATCH, count),), generator=generator)
            with torch.enable_grad():
                value = loss(at)
                gradients = torch.autograd.grad(value, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            schedule.step()
            tick()
    finally:
        for parameter, flag in zip(parameters, wanted, strict=True):
            parameter.grad = None
            parameter.requires_grad_(flag)
