"""BatchNorm in training: statistics of the batch or as they are, and estimated anew at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_FEWEST = 2  # values that a statistic takes


def set_norms(model: nn.Module, *, frozen: bool) -> None:
    """All of the model in evaluation, as the teacher is, but for norms that follow the statistics of the batch.

    So dropout is off, and a network returns what it returns when it is used.
    """
    model.eval()
    for module in tracking(model):
        module.train(not frozen)


def tracking(model: nn.Module) -> list[_BatchNorm]:
    """The norms that have running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@contextmanager
def _cumulative(norms: list[_BatchNorm]) -> Iterator[None]:
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


@torch.no_grad()
def estimate_norms(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Running statistics anew, as the mean over the batches of images `(B, C, H, W)`; the model is left in evaluation.

    With no batch of two images or more they stay as they are.
    """
    model.eval()
    norms = tracking(model)
    usable = (images for images in batches if len(images) >= _FEWEST)
    first = next(iter(usable), None)
    if first is None or not norms:
        return
    with _cumulative(norms):
        model(first)
        for images in usable:
            model(images)
