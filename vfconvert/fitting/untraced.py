"""Samples of layers in a network whose control flow cannot be traced: passes as far as the layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vfconvert.analysis.profile import profile
from vfconvert.fitting.samples import BATCH, Sample


@dataclass(frozen=True, eq=False)
class WholePassSamples:
    """Both networks run on every batch as far as the layer's last call; what it reads and gives is caught there.

    What comes after it is not computed: for a detector that is the sorting out of thousands of boxes, every time.
    `calls` says how often a layer is called in a pass, where that is more than once.

    A layer that reads what the network has found (regions, not images) is fitted on the teacher's own input where the
    student has found something else.
    """

    teacher: nn.Module
    student: nn.Module
    images: Tensor
    calls: Mapping[str, int] = field(default_factory=dict)

    def of(self, name: str, batch: int = BATCH) -> Iterator[Sample]:
        """The samples of the layer of this name, so many images at a time; fewer where it has several calls.

        In the student's passes the layer itself is still the old one.
        """
        device = next(self.student.parameters()).device
        calls = max(1, self.calls.get(name, 1))
        batch = max(1, batch // calls)
        for at in range(0, len(self.images), batch):
            images = self.images[at : at + batch].to(device)
            theirs = _called(self.teacher, name, images, calls)
            ours = theirs if self.student is self.teacher else _called(self.student, name, images, calls)
            # Fewer calls than there may be: nothing was found for the layer to look at.
            pairs = list(zip(ours, theirs, strict=False))
            positions = sum(targets.shape[2:].numel() for _, (_, targets) in pairs) if len(pairs) > 1 else None
            for (inputs, _), (own, targets) in pairs:
                other = inputs.shape != own.shape or (len(own) != len(images) and _unlike(inputs, own))
                yield Sample(inputs=own if other else inputs, targets=targets, positions=positions)


def calls_of(network: nn.Module, images: Tensor) -> dict[str, int]:
    """How often each convolution is called in a pass on the first of the images."""
    device = next(network.parameters()).device
    return {layer.name: len(layer.calls) for layer in profile(network, images[:1].clone().to(device)).layers}


def entry_of(network: nn.Module, name: str, images: Tensor, batch: int) -> Tensor | None:
    """What a submodule is given for all images, `(N, C, H, W)` on the CPU; None where it is not one row an image.

    `network` is in eval mode and calls the submodule once, with one tensor alone.
    """
    device = next(network.parameters()).device
    found: list[Tensor] = []
    for part in torch.split(images, batch):
        caught: list[Tensor] = []

        def catch(module: nn.Module, inputs: tuple[Any, ...], caught: list[Tensor] = caught) -> None:
            caught.append(inputs[0].cpu())
            raise _Reached

        _run_until(network, network.get_submodule(name).register_forward_pre_hook(catch), part.to(device))
        if not caught or len(caught[0]) != len(part) or (found and caught[0].shape[1:] != found[0].shape[1:]):
            return None
        found.append(caught[0])
    return torch.cat(found)


def _run_until(network: nn.Module, hook: RemovableHandle, images: Tensor) -> None:
    """As far as the hook raises `_Reached`; it is removed."""
    try:
        with suppress(_Reached):
            network(images.clone())
    finally:
        hook.remove()


def _called(network: nn.Module, name: str, images: Tensor, calls: int) -> list[tuple[Tensor, Tensor]]:
    """What a layer reads and gives at each of its first calls on these images, `calls` at most."""
    caught: list[tuple[Tensor, Tensor]] = []

    def catch(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Tensor) -> None:
        given = inputs[0] if inputs else keywords["input"]
        if len(caught) + 1 < calls:
            caught.append((given.clone(), output.clone()))  # what runs until the last call may write into them
        else:  # no copies: nothing that follows runs
            caught.append((given, output))
            raise _Reached

    _run_until(network, network.get_submodule(name).register_forward_hook(catch, with_kwargs=True), images)
    return caught


class _Reached(BaseException):
    """The layer has been called; no Exception, so that no network takes it for one of its own."""


def _unlike(inputs: Tensor, own: Tensor) -> bool:
    """Whether rows cannot be those of the same regions: other shapes, or more than half of the variance apart."""
    if inputs.shape != own.shape:
        return True
    return bool((inputs - own).square().mean() > 0.5 * own.var(correction=0))
