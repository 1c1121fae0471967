"""Parts of a network that can be traced where the whole cannot: the backbone of a detector, the trunk of a router."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.analysis.forward import evaluating
from vfconvert.analysis.graph import Network, trace

_FEWEST = 2  # convolutions of a part: one alone is fitted as well without


@dataclass(frozen=True, eq=False)
class Part:
    """A submodule by its name and its own trace, with names relative to it. It takes one tensor `(B, C, H, W)`."""

    name: str
    network: Network

    @property
    def following_norm(self) -> dict[str, str]:
        """Layer -> the BatchNorm that alone reads its output, by their names in the whole network."""
        return {self.whole(layer): self.whole(norm) for layer, norm in self.network.following_norm.items()}

    def whole(self, name: str) -> str:
        """What the whole network calls something in this part."""
        return f"{self.name}.{name}"

    def own(self, name: str) -> str | None:
        """What this part calls something in the whole network; None where it is elsewhere."""
        return name.removeprefix(f"{self.name}.") if name.startswith(f"{self.name}.") else None


def parts_of(model: nn.Module, example: Tensor) -> tuple[Part, ...]:
    """The largest submodules that are called once, with one tensor `(B, C, H, W)` alone, and can be traced.

    None has a layer that is called from elsewhere too. They come in the order in which they are called. `example`
    `(B, C, H, W)` is what the model is called with, in eval mode; the model itself is not tried.
    """
    inputs, calls = _inputs(model, example)
    order = {module: number for number, module in enumerate(inputs)}
    found = _within(model, "", inputs, calls)
    return tuple(sorted(found, key=lambda part: order[model.get_submodule(part.name)]))


def _within(
    module: nn.Module, prefix: str, inputs: dict[nn.Module, list[Tensor | None]], calls: Mapping[nn.Module, int]
) -> Iterator[Part]:
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if not _may_be_part(child):
            continue
        given = inputs.get(child, [])
        network = trace(child, given[0]) if len(given) == 1 and given[0] is not None else None
        if network is not None and all(
            calls[child.get_submodule(name)] == count
            for name, count in network.calls.items()
            if child.get_submodule(name) in calls
        ):
            yield Part(path, network)
        else:
            yield from _within(child, f"{path}.", inputs, calls)


def _inputs(model: nn.Module, example: Tensor) -> tuple[dict[nn.Module, list[Tensor | None]], Counter[nn.Module]]:
    """The calls of every submodule that may be a part: the tensor that it was given, None where it was no such one.

    And how often each convolution and norm is called.
    """
    found: dict[nn.Module, list[Tensor | None]] = {}
    calls: Counter[nn.Module] = Counter()

    def note(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        found.setdefault(module, []).append(_image(inputs, keywords))

    submodules = [module for module in model.modules() if module is not model and _may_be_part(module)]
    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in submodules]
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.BatchNorm2d))]
    hooks += [layer.register_forward_pre_hook(lambda layer, _: calls.update([layer])) for layer in layers]
    try:
        with evaluating(model):
            model(example.clone())
    finally:
        for hook in hooks:
            hook.remove()
    return found, calls


def _may_be_part(module: nn.Module) -> bool:
    return sum(isinstance(each, nn.Conv2d) for each in module.modules()) >= _FEWEST


def _image(inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor | None:
    if keywords or len(inputs) != 1 or not isinstance(inputs[0], Tensor):
        return None
    given = inputs[0]
    return given.detach().clone() if given.dim() == 4 and given.dtype == torch.float32 else None
