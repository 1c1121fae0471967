"""Networks of several inputs, seen as networks of one: the inputs side by side along the channels.

Between loading and delivery every stage knows one tensor `(B, C, H, W)`. A network of several is given another class
for that time: its own with a forward that takes such a tensor apart. So all its modules keep their names. The twins
that `joined` and `separated` make share every tensor and every submodule with what they are made from.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn


@dataclass(frozen=True, slots=True)
class Inputs:
    """The names of a network's inputs, as its forward calls them, and the channels of each."""

    names: tuple[str, ...]
    channels: tuple[int, ...]

    @property
    def starts(self) -> tuple[int, ...]:
        """The first channel of each among all."""
        return tuple(sum(self.channels[:index]) for index in range(len(self.channels)))

    def split(self, images: Tensor) -> tuple[Tensor, ...]:
        """Each input `(B, c, H, W)` by itself, out of all side by side `(B, C, H, W)`, in memory of its own."""
        return tuple(part_of(images, start, count) for start, count in zip(self.starts, self.channels, strict=True))


def part_of(images: Tensor, start: int, count: int) -> Tensor:
    """Channels `[start, start + count)` of `(B, C, H, W)`, copied: a network may write into what it is given."""
    return images.narrow(1, start, count).clone(memory_format=torch.contiguous_format)


fx.wrap("part_of")  # one node of a trace, which lowering knows


class _Joined(nn.Module):
    """Stands before a network's own class."""

    several_inputs: Inputs

    def forward(self, images: Tensor) -> Any:
        inputs = self.several_inputs
        parts = [part_of(images, start, count) for start, count in zip(inputs.starts, inputs.channels, strict=True)]
        return super().forward(*parts)

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        found = joined(copy.deepcopy(separated(self), memo), self.several_inputs)
        memo[id(self)] = found
        return found

    def __reduce__(self) -> tuple[Callable[..., nn.Module], tuple[Any, ...]]:
        return joined, (separated(self), self.several_inputs)


def joined(network: nn.Module, inputs: Inputs) -> nn.Module:
    """A twin that takes the inputs of `network` as one tensor `(B, sum of channels, H, W)`."""
    base = type(network)
    names = {"several_inputs": inputs, "__module__": base.__module__, "__qualname__": base.__qualname__}
    return _twin(network, type(base.__name__, (_Joined, base), names))


def separated(network: nn.Module) -> nn.Module:
    """A twin with the network's own forward; what is not `joined` is given back as it is."""
    return _twin(network, type(network).__mro__[2]) if isinstance(network, _Joined) else network


def inputs_of(network: nn.Module) -> Inputs | None:
    """The inputs that a `joined` network takes side by side, None for any other."""
    return network.several_inputs if isinstance(network, _Joined) else None


def shapes_of(network: nn.Module, shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Of each input of a `joined` network its `(c, H, W)` where all are `(..., C, H, W)`; nothing for any other."""
    inputs = inputs_of(network)
    return () if inputs is None else tuple((count, *shape[-2:]) for count in inputs.channels)


def opened(network: nn.Module, images: Tensor) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The network with its own forward, and what that is given of `images` `(B, C, H, W)`."""
    inputs = inputs_of(network)
    return separated(network), (images,) if inputs is None else inputs.split(images)


def placeholder(graph: fx.Graph, name: str) -> fx.Node:
    """An argument of the code of `graph`, whose value has a name of its own there.

    Of itself fx calls the value of `input`, which is a name of Python's, `input_1`, and so overwrites an argument of
    that name before it is read.
    """
    return graph.create_node("placeholder", name, name=f"given_{name}")


def with_own_inputs(made: fx.GraphModule, inputs: Inputs) -> nn.Module:
    """`joined`, of a module with a graph that takes its one input apart by `part_of`."""
    graph = made.graph
    given = next(node for node in graph.nodes if node.op == "placeholder")
    parts = {node.args[1]: node for node in given.users if node.target is part_of}
    with graph.inserting_before(given):
        for name, start in zip(inputs.names, inputs.starts, strict=True):
            argument = placeholder(graph, name)
            if start in parts:
                parts[start].replace_all_uses_with(argument)
                graph.erase_node(parts[start])
    graph.erase_node(given)
    made.recompile()
    return joined(made, inputs)


def positional_names(network: nn.Module) -> tuple[tuple[str, ...], int]:
    """What a network's forward calls its positional arguments, and how many of them it needs.

    Nothing and 0 where it does not tell.
    """
    try:
        parameters = inspect.signature(network.forward).parameters.values()
    except (TypeError, ValueError):
        return (), 0
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [parameter for parameter in parameters if parameter.kind in kinds]
    needed = sum(parameter.default is inspect.Parameter.empty for parameter in positional)
    return tuple(parameter.name for parameter in positional), needed


def takes_any_number(network: nn.Module) -> bool:
    """Whether a network's forward takes further positional arguments, `*images`; one that does not tell may."""
    try:
        parameters = inspect.signature(network.forward).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters)


def input_names(network: nn.Module, count: int) -> tuple[str, ...]:
    """Names of the first `count` inputs, "input_0", "input_1", … where the forward has none for them."""
    known: Sequence[str] = positional_names(network)[0][:count]
    return (*known, *(f"input_{index}" for index in range(len(known), count)))


def _twin(network: nn.Module, kind: type[nn.Module]) -> nn.Module:
    twin: nn.Module = object.__new__(kind)
    vars(twin).update(vars(network))
    return twin
