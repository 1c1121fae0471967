"""Samples of layers in a network whose control flow cannot be traced: passes as far as the layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.analysis.forward import Reached
from vfconvert.analysis.profile import profile
from vfconvert.fitting.passes import Passes
from vfconvert.fitting.samples import BATCH, Sample, batch_for


@dataclass(frozen=True, eq=False)
class WholePassSamples:
    """Both networks run on every batch as far as the layer's last call; what it reads and gives is caught there.

    What comes after it is not computed: for a detector that is the sorting out of thousands of boxes, every time.
    `calls` says how often a layer is called in a pass, where that is more than once.

    A layer that reads what the network has found (regions, not images) is fitted on the teacher's own input where the
    student has found something else.
    """

    teacher: Passes
    student: Passes
    images: Tensor
    calls: Mapping[str, int] = field(default_factory=dict)

    def of(self, name: str, batch: int = BATCH) -> Iterator[Sample]:
        """The samples of the layer of this name, so many images at a time; fewer where it has several calls.

        In the student's passes the layer itself is still the old one.
        """
        calls = max(1, self.calls.get(name, 1))
        self.student.sized(batch, calls)
        batch = self.teacher.sized(batch, calls)
        device = next(self.student.network.parameters()).device
        for at in range(0, len(self.images), batch):
            images = self.images[at : at + batch].to(device)
            theirs = _called(self.teacher, name, images, at, calls)
            ours = theirs if self.student is self.teacher else _called(self.student, name, images, at, calls)
            # Fewer calls than there may be: nothing was found for the layer to look at.
            pairs = list(zip(ours, theirs, strict=False))
            positions = sum(_positions(own, len(images)) for _, (_, own) in pairs) if len(pairs) > 1 else None
            for (inputs, _), (own, targets) in pairs:
                other = inputs.shape != own.shape or (len(own) != len(images) and _unlike(inputs, own))
                yield Sample(own if other else inputs, targets, images=len(images), positions=positions)


def calls_of(network: nn.Module, images: Tensor) -> dict[str, int]:
    """How often each convolution is called in a pass on the first of the images."""
    device = next(network.parameters()).device
    return {layer.name: len(layer.calls) for layer in profile(network, images[:1].clone().to(device)).layers}


def entry_of(passes: Passes, name: str, images: Tensor, batch: int) -> Tensor | None:
    """What a submodule is given for all images, `(N, C, H, W)` on the CPU; None where it is not one row an image.

    The network is in eval mode and calls the submodule once, with one tensor alone.
    """
    passes.sized(batch)
    network, found = passes.network, list[Tensor]()
    device = next(network.parameters()).device
    for at in range(0, len(images), batch):
        part = images[at : at + batch].to(device)
        caught: list[Tensor] = []

        def catch(module: nn.Module, inputs: tuple[Any, ...], caught: list[Tensor] = caught) -> None:
            caught.append(inputs[0].cpu())
            raise Reached

        passes.until(network.get_submodule(name).register_forward_pre_hook(catch), part, at)
        if not caught or len(caught[0]) != len(part) or (found and caught[0].shape[1:] != found[0].shape[1:]):
            return None
        found.append(caught[0])
    return torch.cat(found)


def batch_of_whole(network: nn.Module, images: Tensor) -> int:
    """Images at a time in whole passes: fewer where the largest activation of the first of `images` is large."""
    return batch_for(largest_activation(network, images[:1]), next(network.parameters()).device)


@torch.no_grad()
def largest_activation(network: nn.Module, image: Tensor) -> int:
    """Numbers in the largest output of a submodule for `image` `(1, C, H, W)`; the network is in eval mode."""
    largest = image.numel()

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal largest
        largest = max(largest, output.numel() if isinstance(output, Tensor) else 0)

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    try:
        network(image.to(next(network.parameters()).device, copy=True))
    finally:
        for hook in hooks:
            hook.remove()
    return largest


def _called(passes: Passes, name: str, images: Tensor, at: int, calls: int) -> list[tuple[Tensor, Tensor]]:
    """What a layer reads and gives at each of its first calls on these images, `calls` at most."""
    caught: list[tuple[Tensor, Tensor]] = []

    def catch(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Tensor) -> None:
        given = inputs[0] if inputs else keywords["input"]
        if len(caught) + 1 < calls:
            caught.append((given.clone(), output.clone()))  # what runs until the last call may write into them
        else:  # no copies: nothing that follows runs
            caught.append((given, output))
            raise Reached

    passes.until(passes.network.get_submodule(name).register_forward_hook(catch, with_kwargs=True), images, at)
    return caught


def _positions(targets: Tensor, images: int) -> float:
    """Positions of an image in all of its rows."""
    return targets.shape[2:].numel() * max(1.0, len(targets) / images)


def _unlike(inputs: Tensor, own: Tensor) -> bool:
    """Whether rows cannot be those of the same regions: other shapes, or more than half of the variance apart."""
    if inputs.shape != own.shape:
        return True
    return bool((inputs - own).square().mean() > 0.5 * own.var(correction=0))
