"""The graph under construction, and tensors in it that are held as several pieces side by side."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from vfconvert.analysis.streams import Order

# Of a normalisation by a variance of 1 - this, so that it divides by exactly 1. Some releases of torch take none of 0.
_EPSILON = 2.0**-16


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor `(B, C, H, W)` as pieces of its channels.

    `order[k]` is the network's channel that lies at place `k` of the pieces side by side; `factor` `(C,)`, in that
    order, is what every channel still has to be multiplied by.
    """

    pieces: tuple[fx.Node, ...]
    sizes: tuple[int, ...]
    order: Order
    factor: Tensor | None = None

    @property
    def channels(self) -> int:
        """Channels of all pieces."""
        return sum(self.sizes)

    @property
    def starts(self) -> tuple[int, ...]:
        """Where each piece begins."""
        return tuple(sum(self.sizes[:index]) for index in range(len(self.sizes)))


def sizes_between(cuts: Sequence[int], channels: int) -> tuple[int, ...]:
    """Sizes of the pieces of so many channels between cuts; cuts outside are none."""
    ends = [0, *(cut for cut in cuts if 0 < cut < channels), channels]
    return tuple(b - a for a, b in itertools.pairwise(ends))


@dataclass(eq=False)
class Emitter:
    """Adds nodes to `graph`; `attributes` are the tensors and modules that its nodes name."""

    graph: fx.Graph = field(default_factory=fx.Graph)
    attributes: dict[str, Any] = field(default_factory=dict)
    reserved: frozenset[str] = frozenset()  # names of the network's own, which no stored tensor takes
    _alike: dict[str, list[str]] = field(default_factory=dict)  # the names given to tensors that were named alike
    _made: dict[tuple[Any, str], fx.Node] = field(default_factory=dict)

    def call(self, function: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """A call of a function."""
        return self.graph.call_function(function, args, kwargs)

    def tensor(self, name: str, value: Tensor) -> fx.Node:
        """A stored tensor under a name like the given one: a parameter where it holds real numbers.

        One that was stored under such a name already is stored once.
        """
        alike = self._alike.setdefault(name, [])
        for known in alike:
            held = self.attributes[known]
            if held.dtype == value.dtype and held.device == value.device and torch.equal(held, value):
                return self.graph.get_attr(known)
        unique, number = name.replace(".", "_"), 2
        while unique in self.attributes or unique in self.reserved:
            unique, number = f"{name.replace('.', '_')}_{number}", number + 1
        value = value.detach().contiguous()
        self.attributes[unique] = nn.Parameter(value, requires_grad=False) if value.is_floating_point() else value
        alike.append(unique)
        return self.graph.get_attr(unique)

    def of_stored(self, function: Any, *args: Any) -> fx.Node:
        """A call that reads stored tensors alone: made once, however often it is asked for."""
        key = function, repr([arg.target if isinstance(arg, fx.Node) and arg.op == "get_attr" else arg for arg in args])
        if key not in self._made:
            self._made[key] = self.call(function, *args)
        return self._made[key]

    def module(self, name: str, module: nn.Module) -> str:
        """Register a module under its own name."""
        self.attributes[name] = module
        return name

    def concatenated(self, pieces: Sequence[fx.Node]) -> fx.Node:
        """Pieces side by side."""
        return pieces[0] if len(pieces) == 1 else self.call(torch.cat, list(pieces), 1)

    def channels(self, value: Value, start: int, stop: int) -> fx.Node:
        """The places `[start, stop)` of a value as one tensor: whole pieces where they fit, slices where not."""
        found = []
        for piece, begin, size in zip(value.pieces, value.starts, value.sizes, strict=True):
            a, b = max(start - begin, 0), min(stop - begin, size)
            if a < b:
                found.append(piece if (a, b) == (0, size) else self.sliced(piece, a, b))
        return self.concatenated(found)

    def sliced(self, node: fx.Node, start: int, stop: int) -> fx.Node:
        """Channels `[start, stop)` of a tensor."""
        return self.call(operator.getitem, node, (slice(None), slice(start, stop)))

    def scaled(self, name: str, value: Value) -> Value:
        """The same tensor with nothing left to multiply by."""
        if value.factor is None:
            return value
        factors = torch.split(value.factor, list(value.sizes))
        pieces = [self.affine(name, piece, factor, None) for piece, factor in zip(value.pieces, factors, strict=True)]
        return replace(value, pieces=tuple(pieces), factor=None)

    def affine(self, name: str, node: fx.Node, factor: Tensor, shift: Tensor | None) -> fx.Node:
        """`factor * x + shift` per channel, as the normalisation that runtimes keep in their own layouts."""
        zeros, variance = self.constant(0.0, factor), self.constant(1.0 - _EPSILON, factor)
        weight = self.tensor(f"{name}_factor", factor)
        bias = zeros if shift is None else self.tensor(f"{name}_shift", shift)
        return self.call(torch.nn.functional.batch_norm, node, zeros, variance, weight, bias, False, 0.0, _EPSILON)

    def constant(self, number: float, like: Tensor) -> fx.Node:
        """A vector of one number, stored once for each length."""
        name = f"constant_{number:g}_{len(like)}".replace(".", "_")
        while name in self.reserved:
            name += "_"
        self.attributes.setdefault(name, nn.Parameter(torch.full_like(like.detach(), number), requires_grad=False))
        return self.graph.get_attr(name)

    def ordered(self, name: str, value: Value, order: Order, sizes: Sequence[int]) -> Value:
        """The value in another order, in pieces of these sizes; what is left to multiply by goes along."""
        if value.order == order:
            if tuple(sizes) == value.sizes:
                return value
            ends = [sum(sizes[:index]) for index in range(len(sizes) + 1)]
            pieces = [self.channels(value, a, b) for a, b in itertools.pairwise(ends)]
            return replace(value, pieces=tuple(pieces), sizes=tuple(sizes))
        place = {channel: index for index, channel in enumerate(value.order)}
        at = torch.tensor([place[channel] for channel in order], dtype=torch.int32)
        whole = self.concatenated(value.pieces)
        pieces = [
            self.call(torch.index_select, whole, 1, self.tensor(f"{name}_order", part))
            for part in torch.split(at, list(sizes))
        ]
        factor = None if value.factor is None else value.factor[at.long().to(value.factor.device)]
        return Value(pieces=tuple(pieces), sizes=tuple(sizes), order=order, factor=factor)

    def whole(self, name: str, value: Value) -> fx.Node:
        """One ordinary tensor in the network's own order."""
        plain = self.ordered(name, self.scaled(name, value), tuple(range(value.channels)), [value.channels])
        return plain.pieces[0]
