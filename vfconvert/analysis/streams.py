"""Which tensors of a network must list their channels in the same order.

A *stream* is everything that channel-wise operators and additions tie together: a convolution's output, its norm and
activation, the sums of a residual network. Within a stream the order of channels is free, as long as all agree and the
layers that read it know.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from vfconvert.analysis.graph import Network
from vfconvert.nn import VersatileConv2d

Order = tuple[int, ...]

# Zero and positive factors pass through these unchanged, so that a factor may be applied after them.
HOMOGENEOUS_MODULES = (
    *(nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Dropout, nn.Dropout2d),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
HOMOGENEOUS_FUNCTIONS: frozenset[Any] = frozenset(
    [
        torch.relu,
        torch.relu_,
        F.relu,
        F.relu_,
        F.leaky_relu,
        F.max_pool2d,
        F.avg_pool2d,
        F.adaptive_avg_pool2d,
        F.dropout,
        "relu",
        "relu_",
        "contiguous",
    ]
)
CHANNELWISE_MODULES = (
    *HOMOGENEOUS_MODULES,
    *(nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.GELU, nn.ELU, nn.Tanh, nn.Softplus, nn.Mish),
    nn.Hardtanh,
)
CHANNELWISE_FUNCTIONS: frozenset[Any] = HOMOGENEOUS_FUNCTIONS | frozenset(
    [
        F.relu6,
        F.silu,
        F.hardswish,
        F.hardsigmoid,
        torch.sigmoid,
        F.sigmoid,
        F.gelu,
        F.elu,
        torch.tanh,
        F.tanh,
        "sigmoid",
        "tanh",
    ]
)
_JOINING: frozenset[Any] = frozenset(
    [operator.add, operator.iadd, torch.add, operator.mul, operator.imul, torch.mul, "add", "add_", "mul", "mul_"]
)


@dataclass(frozen=True, eq=False)
class Streams:
    """`of[node]` is the stream of each tensor with channels, `members[stream]` its nodes in order of execution."""

    of: Mapping[fx.Node, int]
    members: Mapping[int, tuple[fx.Node, ...]]
    kinds: Mapping[fx.Node, str] = field(default_factory=dict)

    def order(
        self, node: fx.Node, natural: Callable[[str], Order | None], known: dict[int, Order | None]
    ) -> Order | None:
        """The order of channels in the stream of `node`, None for the network's own; noted in `known`.

        `natural(layer)` is the order in which a layer emits its outputs, None where it is no versatile layer or not
        fitted yet. The first layer of a stream that has one decides; where something else than a layer or a
        concatenation writes into the stream, the order is the network's own.
        """
        stream = self.of.get(node)
        if stream is None:
            return None
        if stream not in known:
            known[stream] = self._decide(stream, natural, known)
        return known[stream]

    def _decide(
        self, stream: int, natural: Callable[[str], Order | None], known: dict[int, Order | None]
    ) -> Order | None:
        sources = [node for node in self.members[stream] if self.kinds[node] in ("conv", "cat", "other")]
        if any(self.kinds[node] == "other" for node in sources):
            return None
        for node in sources:
            if self.kinds[node] == "cat":
                return self._joined(node, natural, known) if len(sources) == 1 else None
            found = natural(str(node.target))
            if found is not None:
                return found
        return None

    def _joined(
        self, node: fx.Node, natural: Callable[[str], Order | None], known: dict[int, Order | None]
    ) -> Order | None:
        parts = cat_inputs(node)
        orders = [self.order(part, natural, known) for part in parts]
        if not any(orders):
            return None
        joined: list[int] = []
        for part, order in zip(parts, orders, strict=True):
            start = len(joined)
            joined += [start + channel for channel in (order or range(part.meta["channels"]))]
        return tuple(joined)


def streams_of(model: nn.Module, network: Network) -> Streams:
    """The streams of a traced network; `model` has its modules (the original's or the converted network's)."""
    parent: dict[fx.Node, fx.Node] = {}
    kinds: dict[fx.Node, str] = {}

    def root(node: fx.Node) -> fx.Node:
        while parent[node] is not node:
            node = parent[node]
        return node

    for node in network.graph.nodes:
        if node not in network.channels:
            continue
        node.meta["channels"] = network.channels[node]
        parent[node] = node
        kinds[node] = kind_of(model, node, network.channels)
        if kinds[node] in ("channelwise", "norm", "join"):
            for given in node.all_input_nodes:
                if given in parent:
                    parent[root(node)] = root(given)
    ids: dict[fx.Node, int] = {}
    of = {node: ids.setdefault(root(node), len(ids)) for node in parent}
    members: dict[int, list[fx.Node]] = {}
    for node, stream in of.items():
        members.setdefault(stream, []).append(node)
    return Streams(of=of, members={stream: tuple(nodes) for stream, nodes in members.items()}, kinds=kinds)


def kind_of(model: nn.Module, node: fx.Node, channels: Mapping[fx.Node, int]) -> str:
    """What a node is to the channels of its stream.

    "conv"; "channelwise"; "norm", which has a weight for each channel (depthwise convolutions too); "join" of two
    tensors of equal channels; "cat" of channels; "other".
    """
    target: Any = node.target
    if node.op == "call_module":
        module = model.get_submodule(str(target))
        if _is_convolution(module) and not _per_channel(module):
            return "conv"
        if _per_channel(module) and node.all_input_nodes[0] in channels:
            return "norm"
        return "channelwise" if type(module) in CHANNELWISE_MODULES and len(node.all_input_nodes) == 1 else "other"
    if node.op not in ("call_function", "call_method"):
        return "other"
    given = node.all_input_nodes
    if not node.args or (given and node.args[0] is not given[0] and target not in (torch.cat, torch.concat)):
        return "other"  # a tensor that is no first argument: rare enough
    if target in _JOINING:
        same = len(given) == 2 and len(node.args) == 2 and all(channels.get(n) == channels[node] for n in given)
        return "join" if same and not node.kwargs else "other"
    if target in (torch.cat, torch.concat):
        dimension = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        return "cat" if dimension in (1, -3) and all(n in channels for n in given) else "other"
    return "channelwise" if target in CHANNELWISE_FUNCTIONS and len(given) == 1 and given[0] in channels else "other"


def homogeneous(model: nn.Module, node: fx.Node) -> bool:
    """Whether a positive factor per channel may be moved from the operator's input to its output."""
    if node.op == "call_module":
        return type(model.get_submodule(str(node.target))) in HOMOGENEOUS_MODULES
    return node.op in ("call_function", "call_method") and node.target in HOMOGENEOUS_FUNCTIONS


def cat_inputs(node: fx.Node) -> Sequence[fx.Node]:
    """The tensors that a concatenation joins, in order."""
    given: Any = node.args[0] if node.args else node.kwargs["tensors"]
    return list(given)


def _per_channel(module: nn.Module) -> bool:
    """A norm, or a depthwise convolution of one output each: weights that go with their channels."""
    if type(module) is nn.BatchNorm2d:
        return bool(module.track_running_stats)
    if not isinstance(module, nn.Conv2d) or type(module) is not nn.Conv2d:
        return False
    one_each = 1 < module.groups == module.in_channels == module.out_channels
    return one_each and module.padding_mode == "zeros"


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, VersatileConv2d) or type(module) is nn.Conv2d
