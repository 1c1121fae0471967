"""Parts of a network that can be traced where the whole cannot: the backbone of a detector, the trunk of a router."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
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

    They come in the order in which they are called. `example` `(B, C, H, W)` is what the model is called with, in eval
    mode; the model itself is not tried.
    """
    calls = _calls(model, example)
    order = {module: number for number, module in enumerate(calls)}
    found = _within(model, "", calls, lambda module: _input_of(module, model, example))
    return tuple(sorted(found, key=lambda part: order[model.get_submodule(part.name)]))


def _within(
    module: nn.Module, prefix: str, calls: dict[nn.Module, list[bool]], given: Callable[[nn.Module], Tensor | None]
) -> Iterator[Part]:
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if not _may_be_part(child):
            continue
        images = given(child) if calls.get(child) == [True] else None
        network = trace(child, images) if images is not None else None
        if network is not None:
            yield Part(path, network)
        else:
            yield from _within(child, f"{path}.", calls, given)


def _calls(model: nn.Module, example: Tensor) -> dict[nn.Module, list[bool]]:
    """The calls of every submodule that may be a part, in order: whether it was given images, and nothing else."""
    found: dict[nn.Module, list[bool]] = {}

    def note(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        found.setdefault(module, []).append(not keywords and len(inputs) == 1 and _is_image(inputs[0]))

    _run(model, example, [module for module in model.modules() if module is not model and _may_be_part(module)], note)
    return found


def _input_of(module: nn.Module, model: nn.Module, example: Tensor) -> Tensor | None:
    """What a submodule that is called once is given. Of another pass: held for all at once it would take gigabytes."""
    found: list[Tensor] = []

    def catch(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        found.append(inputs[0].detach().clone())
        raise _Reached

    with suppress(_Reached):
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


class _Reached(BaseException):
    """The submodule has been called; no Exception, so that no network takes it for one of its own."""


def _may_be_part(module: nn.Module) -> bool:
    return sum(isinstance(each, nn.Conv2d) for each in module.modules()) >= _FEWEST


def _is_image(given: object) -> bool:
    return isinstance(given, Tensor) and given.dim() == 4 and given.dtype == torch.float32
