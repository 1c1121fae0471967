"""The metrics of a network over a stream of batches, split over all processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.data.batches import BatchStream
from vfconvert.tasks.task import Task
from vfconvert.training.objective import Features
from vfconvert.training.ranks import Ranks


@torch.no_grad()
def evaluate(
    model: nn.Module,
    teacher: nn.Module,
    stream: BatchStream,
    task: Task,
    *,
    features: Sequence[str],
    device: torch.device,
    ranks: Ranks,
    vary: bool = False,
) -> dict[str, float]:
    """The task's metrics, of the outputs or, where these `vary` in size, of the outputs of the modules `features`.

    In float32, as files are written. The modes of the model's modules are put back. Teachers run where the task asks
    for them.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    meter = task.meter(device)
    try:
        for batch in stream.epoch(0):
            images = batch.images.to(device)
            targets = batch.targets.to(device) if batch.targets is not None else None
            got = answers(model, images, features if vary else ())
            wanted = answers(teacher, images, features if vary else ()) if task.name == "distil" else None
            meter.update(got, wanted, targets)
    finally:
        for module, mode in modes.items():
            module.training = mode
    total = task.meter(device)
    total.merge(ranks.sum(meter.state()))
    return total.compute()


def answers(model: nn.Module, images: Tensor, features: Sequence[str]) -> Any:
    """The network's outputs; of the modules `features` instead where there are any."""
    watched = Features(model, features)
    try:
        outputs = model(images.clone())  # a network may write into its input
    finally:
        watched.remove()
    return dict(watched.values) if features else outputs
