"""Samples of layers in a network whose control flow cannot be traced: passes as far as the layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.fitting.passes import Passes, Reached
from vfconvert.fitting.samples import BATCH, Sample


@dataclass(frozen=True, eq=False)
class WholePassSamples:
    """Both networks run on every batch as far as the layer; its input and the teacher's output are caught there.

    What comes after it is not computed: for a detector that is the sorting out of thousands of boxes, every time.

    A layer that reads what the network has found (regions, not images) is fitted on the teacher's own input where the
    student has found something else.
    """

    teacher: Passes
    student: Passes
    images: Tensor

    def of(self, name: str, batch: int = BATCH) -> Iterator[Sample]:
        """The samples of the layer of this name, so many images at a time."""
        self.teacher.sized(batch)
        self.student.sized(batch)
        device = next(self.student.network.parameters()).device
        for at in range(0, len(self.images), batch):
            images = self.images[at : at + batch].to(device)
            theirs = _called(self.teacher, name, images, at)
            ours = theirs if self.student is self.teacher else _called(self.student, name, images, at)
            if ours is None or theirs is None:  # nothing was found for the layer to look at
                continue
            inputs, own, targets = ours[0], *theirs
            other = len(own) != len(images) and _unlike(inputs, own)
            yield Sample(inputs=own if other else inputs, targets=targets, images=len(images))


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


def _called(passes: Passes, name: str, images: Tensor, at: int) -> tuple[Tensor, Tensor] | None:
    """What a layer reads and gives at its first call on these images; None where it is not called."""
    caught: list[tuple[Tensor, Tensor]] = []

    def catch(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Tensor) -> None:
        # No copies: nothing that follows runs, and could write into them.
        caught.append((inputs[0] if inputs else keywords["input"], output))
        raise Reached

    passes.until(passes.network.get_submodule(name).register_forward_hook(catch, with_kwargs=True), images, at)
    return caught[0] if caught else None


def _unlike(inputs: Tensor, own: Tensor) -> bool:
    """Whether rows cannot be those of the same regions: other shapes, or more than half of the variance apart."""
    if inputs.shape != own.shape:
        return True
    return bool((inputs - own).square().mean() > 0.5 * own.var(correction=0))
