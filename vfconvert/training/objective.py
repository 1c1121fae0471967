"""What a step lowers: the distance from the teacher's outputs, from its features, and from labels where they count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.errors import TrainingError
from vfconvert.tasks.structure import distillation_loss, full_precision, sizes_of
from vfconvert.tasks.task import Task

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which networks compute in 16 bits where that is asked for."""
    enabled = precision in DTYPES
    return torch.autocast(device.type, dtype=DTYPES.get(precision, torch.bfloat16), enabled=enabled)


class Features:
    """The outputs of some modules of a network in its last forward pass, by name."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self.values: dict[str, Tensor] = {}
        self._hooks = [model.get_submodule(name).register_forward_hook(self._keep(name)) for name in names]

    def remove(self) -> None:
        """Look no longer."""
        for hook in self._hooks:
            hook.remove()

    def _keep(self, name: str) -> Any:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                self.values[name] = output.clone()  # what follows may write into it

        return keep


class Objective:
    """The loss of a batch for a student. The teacher runs once, without gradients, in the same precision."""

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        task: Task,
        *,
        temperature: float,
        feature_weight: float,
        label_weight: float,
        features: Sequence[str],
        precision: str,
        example: Tensor,
        vary: bool = False,
    ) -> None:
        """`features` are the modules whose outputs are matched where `feature_weight` or outputs that vary ask for.

        `example` `(N, C, H, W)` are images that settle in what units errors are counted; `vary` says of the teacher's
        outputs what `vfconvert.tasks.structure.varies` tells of them, for all batches.
        """
        self._teacher, self._task = teacher, task
        self._temperature, self._precision = temperature, precision
        self._feature_weight, self._label_weight = feature_weight, label_weight
        self._theirs, self._ours = Features(teacher, features), Features(student, features)
        with torch.no_grad():
            wanted = teacher(example.clone())
        self._vary = vary
        self._sizes = {} if vary else sizes_of(wanted, pixelwise=task.pixelwise)
        self._variances = {name: _variance(values) for name, values in self._theirs.values.items()}

    @contextmanager
    def watching(self) -> Iterator[Objective]:
        """Within, features are seen."""
        try:
            yield self
        finally:
            self._theirs.remove()
            self._ours.remove()

    def loss(self, student: nn.Module, images: Tensor, targets: Tensor | None) -> Tensor:
        """A scalar in float32 with a gradient."""
        with torch.no_grad(), autocast(images.device, self._precision):
            wanted = self._teacher(images.clone())  # a network may write into its input
        with autocast(images.device, self._precision):
            got = student(images)
        vary = self._vary
        total = torch.zeros((), device=images.device)
        if not vary:
            total = total + distillation_loss(
                got, wanted, self._temperature, pixelwise=self._task.pixelwise, sizes=self._sizes
            )
        weight = max(self._feature_weight, 1.0) if vary else self._feature_weight
        if weight:
            total = total + weight * self._feature_loss()
        if self._label_weight and targets is not None:
            supervised = self._task.supervised_loss(got, targets)
            if supervised is not None:
                total = total + self._label_weight * supervised
        if not total.requires_grad:
            raise TrainingError(
                "no output of the network has a gradient, so nothing can be trained; give the network that returns "
                "floating-point outputs, or leave --epochs out"
            )
        return total

    def _feature_loss(self) -> Tensor:
        """The mean over the watched modules of the squared error over the teacher's variance of each channel."""
        names = [name for name in self._theirs.values if name in self._ours.values]
        if not names:
            raise TrainingError("no features to match: no converted layer runs in a forward pass; leave --epochs out")
        losses = []
        for name in names:
            ours, theirs = full_precision(self._ours.values[name]), full_precision(self._theirs.values[name])
            if ours.shape != theirs.shape:  # as of regions that depend on what the network finds
                continue
            losses.append(((ours - theirs).square() / self._variances[name]).mean())
        return torch.stack(losses).mean() if losses else torch.zeros(())


def _variance(values: Tensor) -> Tensor:
    """Of every channel, `(1, C, 1, …)`, none near zero."""
    values = full_precision(values)
    axes = [axis for axis in range(values.dim()) if axis != 1]
    variance = values.var(axes, keepdim=True, correction=0)
    return variance.clamp_min(float(1e-3 * variance.mean()) + 1e-12)


@torch.no_grad()
def first_not_finite(model: nn.Module, images: Tensor) -> str:
    """What to name when a loss is not finite: the first module whose output is not, else the first such parameter."""
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not found and not bool(torch.isfinite(output).all()):
                found.append(name)

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    hooks = [module.register_forward_hook(look(name)) for name, module in leaves]
    try:
        model(images)
    finally:
        for each in hooks:
            each.remove()
    bad = [name for name, tensor in model.named_parameters() if not bool(torch.isfinite(tensor).all())]
    gradients = [
        n for n, p in model.named_parameters() if p.grad is not None and not bool(torch.isfinite(p.grad).all())
    ]
    if bad:
        return f"parameter {bad[0]}"
    return f"layer {found[0]}" if found else f"gradient of {gradients[0]}" if gradients else "the output"
