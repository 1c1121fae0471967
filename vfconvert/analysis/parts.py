"""Parts of a network that can be traced where the whole cannot: the backbone of a detector, the trunk of a router."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.analysis.forward import Reached, evaluating
from vfconvert.analysis.graph import Network, trace

_COUNTED = (nn.Conv2d, nn.BatchNorm2d)
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
    inputs, calls = _calls(model, example)
    order = {module: number for number, module in enumerate(inputs)}
    found = _within(model, "", inputs, calls, lambda module: _input_of(module, model, example))
    return tuple(sorted(found, key=lambda part: order[model.get_submodule(part.name)]))


def _within(
    module: nn.Module,
    prefix: str,
    inputs: Mapping[nn.Module, list[bool]],
    calls: Mapping[nn.Module, int],
    given: Callable[[nn.Module], Tensor | None],
) -> Iterator[Part]:
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if not _may_be_part(child):
            continue
        images = given(child) if inputs.get(child) == [True] else None
        network = trace(child, images) if images is not None else None
        if network is not None and all(
            calls[child.get_submodule(name)] == count
            for name, count in network.calls.items()
            if child.get_submodule(name) in calls
        ):
            yield Part(path, network)
        else:
            yield from _within(child, f"{path}.", inputs, calls, given)


def _calls(model: nn.Module, example: Tensor) -> tuple[dict[nn.Module, list[bool]], Counter[nn.Module]]:
    """The calls of every submodule that may be a part, in order: whether it was given images, and nothing else.

    And how often each convolution and norm is called.
    """
    found: dict[nn.Module, list[bool]] = {}
    calls: Counter[nn.Module] = Counter()

    def note(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if isinstance(module, _COUNTED):
            calls[module] += 1
        else:
            found.setdefault(module, []).append(not keywords and len(inputs) == 1 and _is_image(inputs[0]))

    noted = [
        each for each in model.modules() if isinstance(each, _COUNTED) or (each is not model and _may_be_part(each))
    ]
    _run(model, example, noted, note)
    return found, calls


def _input_of(module: nn.Module, model: nn.Module, example: Tensor) -> Tensor | None:
    """What a submodule that is called once is given. Of another pass: held for all at once it would take gigabytes."""
    found: list[Tensor] = []

    def catch(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        found.append(inputs[0].detach().clone())
        raise Reached

    with suppress(Reached):
        _run(model, example, [module], catch)
    return found[0] if found else None  # where it is called is decided by chance


def _run(model: nn.Module, example: Tensor, modules: Iterable[nn.Module], hook: Callable[..., None]) -> None:
    hooks = [module.register_forward_pre_hook(hook, with_kwargs=True) for module in modules]
    try:
        with evaluating(model):
            model(example.clone())
    finally:
        for each in hooks:
            each.remove()


def _may_be_part(module: nn.Module) -> bool:
    return sum(isinstance(each, nn.Conv2d) for each in module.modules()) >= _FEWEST


def _is_image(given: object) -> bool:
    return isinstance(given, Tensor) and given.dim() == 4 and given.dtype == torch.float32
