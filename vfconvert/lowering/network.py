"""A whole network in its inference form: layers lowered, norms folded, orders of channels absorbed by what follows."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_arg
from torch.nn import functional as F

from vfconvert.analysis.graph import Network
from vfconvert.analysis.streams import Order, Streams, cat_inputs, homogeneous, streams_of
from vfconvert.lowering.form import LayerForm, form_of
from vfconvert.lowering.in_place import written_and_read_again
from vfconvert.lowering.kept import adaptable, one_piece, reordered_convolution
from vfconvert.lowering.layer import Manner, emit_layer
from vfconvert.lowering.values import Emitter, Value, sizes_between
from vfconvert.lowering.wants import calls_of, wanted_cuts, wanted_orders
from vfconvert.nn import VersatileConv2d
from vfconvert.nn.several_inputs import inputs_of, with_own_inputs
from vfconvert.ops.blocks import PLAIN

_MOST_PIECES = 8  # of a concatenation that is not joined at once

# What writes into its input, and what computes the same without doing so.
_PURE: dict[Any, Any] = {
    F.relu_: F.relu,
    torch.relu_: torch.relu,
    "relu_": "relu",
    operator.iadd: operator.add,
    operator.imul: operator.mul,
    "add_": "add",
    "mul_": "mul",
}


@dataclass(frozen=True, eq=False)
class Lowered:
    """The network in its inference form, and how each versatile layer is computed in it."""

    model: nn.Module
    variants: dict[str, str]

    def whole_layers(self, student: nn.Module) -> tuple[VersatileConv2d, ...]:
        """The versatile layers of the network before, that this one computes as ordinary convolutions."""
        layers = [student.get_submodule(name) for name, form in self.variants.items() if form == PLAIN]
        return tuple(layer for layer in layers if isinstance(layer, VersatileConv2d))


def lower(model: nn.Module, network: Network, variants: Mapping[str, str] | None = None) -> Lowered:
    """Turn every versatile layer of a traced network (in evaluation) into convolutions with slices of its bank.

    `variants` says how each layer is computed: one of `VARIANTS`, or "plain" for one convolution with the expanded
    weight; "segments" where it says nothing. The result computes what `model` computes, for every input that the
    traced graph takes; `model` is not changed. A network that overwrites what it reads again stays as it is.
    """
    if written_and_read_again(model, network):
        names = [name for name, layer in model.named_modules() if isinstance(layer, VersatileConv2d)]
        return Lowered(model=copy.deepcopy(model).eval(), variants=dict.fromkeys(names, PLAIN))
    return _Lowering(model, network, variants or {}).run()


class _Lowering:
    def __init__(self, model: nn.Module, network: Network, variants: Mapping[str, str]) -> None:
        self._model, self._network = model, network
        targets = {str(n.target) for n in network.graph.nodes if n.op in ("get_attr", "call_module")}
        self._emitter = Emitter(reserved=frozenset(targets))
        self._calls = calls_of(network)
        self._values: dict[fx.Node, Any] = {}
        self._wholes: dict[int, tuple[Value, fx.Node]] = {}  # by identity, the value held so that it stays its own
        self._streams: Streams = streams_of(model, network)
        self._forms: dict[str, LayerForm] = {}
        self._variants: dict[str, str] = {}
        for name, layer in model.named_modules():
            if isinstance(layer, VersatileConv2d):
                self._plan(name, layer, variants.get(name, "segments"))
        self._folded = {norm: layer for layer, norm in network.following_norm.items() if layer in self._forms}
        self._orders = wanted_orders(network, self._streams, self._forms)
        self._cuts = wanted_cuts(network, self._streams, self._forms)

    def _plan(self, name: str, layer: VersatileConv2d, variant: str) -> None:
        form = None
        calls = self._calls.get(name, ())
        known = all(each in self._network.channels for node in calls for each in (node, *node.all_input_nodes))
        if variant != PLAIN and known and calls:
            norm = self._network.following_norm.get(name)
            following = self._model.get_submodule(norm) if norm is not None else None
            form = form_of(layer, following if isinstance(following, nn.BatchNorm2d) else None)
        self._variants[name] = PLAIN if form is None else variant
        if form is not None:
            self._forms[name] = form

    def run(self) -> Lowered:
        for node in self._network.graph.nodes:
            self._values[node] = self._node(node)
        graph = self._emitter.graph
        graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
        graph.lint()
        used = {str(node.target) for node in graph.nodes if node.op in ("get_attr", "call_module")}
        attributes = {name: value for name, value in self._emitter.attributes.items() if name in used}
        lowered, inputs = fx.GraphModule(attributes, graph).eval(), inputs_of(self._model)
        made = lowered if inputs is None else with_own_inputs(lowered, inputs)
        return Lowered(model=made, variants=dict(self._variants))

    def _node(self, node: fx.Node) -> Any:
        kind = self._streams.kinds.get(node, "other")
        given = [self._values[read] for read in node.all_input_nodes]
        if node.op == "placeholder" and node is not self._network.source:
            return node.args[0] if node.args else None  # an optional argument keeps its default
        if node.op == "placeholder":
            return self._wrapped(node, self._emitter.graph.node_copy(node))
        if kind in ("conv", "norm") and isinstance(given[0], Value):
            return self._layer(node, given[0]) if kind == "conv" else self._per_channel(node, given[0])
        if kind == "channelwise" and isinstance(given[0], Value):
            return self._channelwise(node, given[0])
        if kind == "join" and all(isinstance(value, Value) for value in given):
            return self._join(node, given)
        if kind == "cat" and all(isinstance(value, Value) for value in given):
            return self._cat(node)
        return self._other(node)

    def _wrapped(self, node: fx.Node, made: fx.Node) -> Any:
        channels = self._network.channels.get(node)
        return made if channels is None else Value((made,), (channels,), tuple(range(channels)))

    def _whole(self, node: fx.Node, value: Any) -> Any:
        if not isinstance(value, Value):
            return value
        if id(value) not in self._wholes:
            self._wholes[id(value)] = value, self._emitter.whole(node.name, value)
        return self._wholes[id(value)][1]

    def _other(self, node: fx.Node) -> Any:
        """Any operator: it reads whole tensors in the network's own order, and writes one."""
        emitter, target = self._emitter, str(node.target)
        if node.op == "get_attr":
            emitter.attributes[target] = operator.attrgetter(target)(self._model)
        if node.op == "call_module":
            emitter.module(target, self._model.get_submodule(target))
        made = emitter.graph.create_node(
            node.op,
            node.target,
            map_arg(node.args, lambda read: self._whole(read, self._values[read])),
            map_arg(node.kwargs, lambda read: self._whole(read, self._values[read])),
        )
        return self._wrapped(node, made)

    def _layer(self, node: fx.Node, given: Value) -> Any:
        name = str(node.target)
        stream = self._streams.of[node]
        target = self._orders.get(stream)
        if name not in self._forms:
            module = self._model.get_submodule(name)
            return self._kept(node, module, given, target) if type(module) is nn.Conv2d else self._other(node)
        form = self._forms[name]
        geometry = form.geometry
        if geometry.groups > 1:
            given = self._wrapped_whole(node, given)
        else:
            wanted = self._read_order(name, form, given)
            sizes = given.sizes if given.order == wanted else sizes_between(self._cuts_of(node), geometry.in_channels)
            given = self._emitter.ordered(name, given, wanted, sizes)
            form = form.with_factor(given.factor) if form.windowed else form.with_inputs(wanted, given.factor)
        given = replace(given, factor=None)
        natural = target == form.order
        manner = Manner(
            variant=self._variants[name],
            cuts=self._cuts.get(stream, ()) if natural else (),
            defer=natural and self._absorbed(self._end(node)),
        )
        value = emit_layer(self._emitter, name, form, given, manner)
        if natural:
            return value
        return self._emitter.ordered(name, value, *self._settled(stream, geometry.out_channels))

    def _read_order(self, name: str, form: LayerForm, given: Value) -> Order:
        """The order in which a layer reads its input: one for all calls, so that there is one bank."""
        own = tuple(range(form.geometry.in_channels))
        if form.windowed:
            return form.input_order or own
        first, *others = self._calls[name]
        return (self._orders.get(self._streams.of[first.all_input_nodes[0]]) or own) if others else given.order

    def _settled(self, stream: int, channels: int) -> tuple[Order, tuple[int, ...]]:
        """The order and the pieces in which all that is written into a stream has to lie."""
        target = self._orders.get(stream)
        order = tuple(range(channels)) if target is None else target
        return order, sizes_between(self._cuts.get(stream, ()), channels)

    def _cuts_of(self, node: fx.Node) -> tuple[int, ...]:
        stream = self._streams.of.get(node.all_input_nodes[0])
        return () if stream is None else self._cuts.get(stream, ())

    def _wrapped_whole(self, node: fx.Node, given: Value) -> Value:
        return Value((self._whole(node, given),), (given.channels,), tuple(range(given.channels)))

    def _end(self, node: fx.Node) -> fx.Node:
        """The norm that is folded into a layer, else the layer."""
        users = list(node.users)
        if len(users) == 1 and self._folded.get(str(users[0].target)) == str(node.target):
            return users[0]
        return node

    def _absorbed(self, node: fx.Node) -> bool:
        """Whether all that reads a tensor can take positive factors of its channels into weights."""
        for user in node.users:
            if user not in self._network.channels:
                return False
            if self._streams.kinds[user] == "channelwise" and homogeneous(self._model, user):
                if not self._absorbed(user):
                    return False
            elif self._streams.kinds[user] != "conv" or not self._takes_factors(user):
                return False
        return bool(node.users)

    def _takes_factors(self, node: fx.Node) -> bool:
        name = str(node.target)
        if name in self._forms:  # of several calls each would need a bank of its own
            return self._forms[name].geometry.groups == 1 and len(self._calls[name]) == 1
        return adaptable(self._model.get_submodule(name))

    def _kept(self, node: fx.Node, module: nn.Conv2d, given: Value, target: Order | None) -> Any:
        """A convolution that was not converted: its weight takes the order of its input, and that of its output."""
        emitter, name = self._emitter, str(node.target)
        own = tuple(range(given.channels))
        shared = self._network.calls.get(name, 0) != 1
        if shared or not adaptable(module) or (given.order == own and given.factor is None and target is None):
            return self._other(node)
        order = tuple(range(module.out_channels)) if target is None else target
        whole, inputs = emitter.concatenated(given.pieces), torch.tensor(given.order)
        made = reordered_convolution(emitter, name, module, whole, inputs, given.factor, torch.tensor(order))
        return Value((made,), (module.out_channels,), order)

    def _per_channel(self, node: fx.Node, given: Value) -> Any:
        """A norm (nothing to do where it is folded) or a depthwise convolution, piece by piece."""
        emitter, name = self._emitter, str(node.target)
        if name in self._folded:
            return given
        given = emitter.scaled(name, given)
        if given.order == tuple(range(given.channels)) and len(given.pieces) == 1:
            emitter.module(name, self._model.get_submodule(name))
            return replace(given, pieces=(emitter.graph.call_module(name, (given.pieces[0],)),))
        module = self._model.get_submodule(name)
        made = []
        for piece, start, size in zip(given.pieces, given.starts, given.sizes, strict=True):
            at = torch.tensor(given.order[start : start + size])
            made.append(one_piece(emitter, name, module, piece, at))
        return replace(given, pieces=tuple(made))

    def _channelwise(self, node: fx.Node, given: Value) -> Value:
        """An operator that treats every channel alike, piece by piece; never in place, since pieces may be slices."""
        emitter = self._emitter
        if given.factor is not None and not homogeneous(self._model, node):
            given = emitter.scaled(node.name, given)
        if node.op == "call_module":
            module = self._model.get_submodule(str(node.target))
            if isinstance(module, (nn.Identity, nn.Dropout, nn.Dropout2d)):
                return given
            if getattr(module, "inplace", False):
                module = copy.copy(module)
                vars(module)["inplace"] = False
            name = emitter.module(str(node.target), module)
            return replace(given, pieces=tuple(emitter.graph.call_module(name, (piece,)) for piece in given.pieces))
        kwargs = {key: value for key, value in node.kwargs.items() if key != "inplace"}
        made = [
            emitter.graph.create_node(node.op, _PURE.get(node.target, node.target), (piece, *node.args[1:]), kwargs)
            for piece in given.pieces
        ]
        return replace(given, pieces=tuple(made))

    def _join(self, node: fx.Node, given: list[Value]) -> Value:
        """The sum or product of two tensors, in one order and the same pieces."""
        order, sizes = self._settled(self._streams.of[node], self._network.channels[node])
        first, second = (
            self._emitter.ordered(node.name, self._emitter.scaled(node.name, value), order, sizes) for value in given
        )
        function = _PURE.get(node.target, node.target)
        made = [
            self._emitter.graph.create_node(node.op, function, pair, {})
            for pair in zip(first.pieces, second.pieces, strict=True)
        ]
        return Value(tuple(made), first.sizes, order)

    def _cat(self, node: fx.Node) -> Value:
        """Tensors side by side: their pieces side by side, until something wants them whole."""
        pieces, sizes, order = list[fx.Node](), list[int](), list[int]()
        for read in cat_inputs(node):
            value = self._emitter.scaled(node.name, self._values[read])
            start = len(order)
            order += [start + channel for channel in value.order]
            pieces += value.pieces
            sizes += value.sizes
        if len(pieces) > _MOST_PIECES:
            pieces, sizes = [self._emitter.concatenated(pieces)], [sum(sizes)]
        return Value(tuple(pieces), tuple(sizes), tuple(order))
