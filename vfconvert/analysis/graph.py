"""The dataflow of a network: which BatchNorm follows a layer, where residual branches end, where it can be cut.

The graph is `torch.fx`'s symbolic trace with the modules of `torch.nn` as leaves. Student and teacher have the same
module names, so one graph runs both.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from vfconvert.analysis.running import Environment, run_nodes, submodule_of
from vfconvert.analysis.tracing import graph_of, written_inputs
from vfconvert.analysis.writing import writes, written
from vfconvert.nn import VersatileConv2d
from vfconvert.nn.several_inputs import part_of

_ADDITIONS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
_PASSING_THROUGH = (nn.Identity, nn.Dropout, nn.Dropout2d)


@dataclass(frozen=True, eq=False)
class Segment:
    """A piece of the graph with one tensor going in and one coming out, its `nodes` in order.

    The network's input may be read anywhere (a global skip), unless something writes into it. The exit of the last
    piece is the output node.
    """

    nodes: tuple[fx.Node, ...]
    entry: fx.Node
    exit: fx.Node


@dataclass(frozen=True, eq=False)
class Network:
    """A traced network: the graph and the places where it can be cut in two at one tensor."""

    graph: fx.Graph
    segments: tuple[Segment, ...]
    following_norm: dict[str, str] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    largest: int = 0  # numbers of one image's largest activation
    channels: dict[fx.Node, int] = field(default_factory=dict)  # of every value that is (B, C, H, W)
    flattens: dict[fx.Node, tuple[int, int, int]] = field(default_factory=dict)  # (C, h, w) of what each flattens

    @property
    def source(self) -> fx.Node:
        """The placeholder of the network's input."""
        return _source(self.graph)

    def residual_partner(self, node: fx.Node, root: nn.Module) -> tuple[fx.Node, fx.Node] | None:
        """Where the value of `node` ends in an addition: (its last node before the sum, the other summand)."""
        while True:
            users = list(node.users)
            if len(users) != 1:
                return None
            user = users[0]
            if user.target in _ADDITIONS and len(user.all_input_nodes) == 2 and not user.kwargs:
                first, second = user.all_input_nodes
                return node, second if node is first else first
            if user.op != "call_module" or not isinstance(submodule_of(root, user), _PASSING_THROUGH):
                return None
            node = user


def trace(model: nn.Module, example: Tensor) -> Network | None:
    """Trace a network (in eval mode) that takes one tensor `(B, C, H, W)`; None where its control flow forbids it.

    The trace is believed only if it computes the same output for the example.
    """
    try:
        graph, opaque = graph_of(model)
        with written_inputs(model, opaque) as written:
            shapes, flattens, output = _run(model, graph, example)
        with torch.no_grad():
            wanted = model(example.clone())
    except Exception:  # whatever forward does with a proxy: such a network is fitted without its graph
        return None
    if written or not close(output, wanted):
        return None
    calls = _calls(graph)
    return Network(
        graph=graph,
        segments=tuple(_segments(model, graph, shapes, example.shape[0])),
        following_norm=_following_norms(model, graph, calls),
        calls=calls,
        channels={
            node: shape[1]
            for node, shape in ({_source(graph): example.shape} | shapes).items()
            if len(shape) == 4 and shape[0] == example.shape[0]
        },
        flattens=flattens,
        largest=max(shape.numel() for shape in shapes.values()) // max(1, example.shape[0]),
    )


def _run(
    model: nn.Module, graph: fx.Graph, example: Tensor
) -> tuple[dict[fx.Node, torch.Size], dict[fx.Node, tuple[int, int, int]], Any]:
    """The shape of every tensor in the graph, what each flatten of a map flattens, and what the graph puts out.

    A flatten is known by its value: all of `(B, C, h, w)` but the batch in one row, `h w > 1`.
    """
    shapes: dict[fx.Node, torch.Size] = {}
    flattens: dict[fx.Node, tuple[int, int, int]] = {}
    environment: Environment = {_source(graph): example.clone()}
    output: Any = None

    def note(node: fx.Node, value: Any) -> None:
        nonlocal output
        if isinstance(value, Tensor):
            shapes[node] = value.shape
            given = environment.get(node.all_input_nodes[0]) if node.all_input_nodes else None
            if isinstance(given, Tensor) and _flattens(given, value):
                flattens[node] = (given.shape[1], given.shape[2], given.shape[3])
        if node.op == "output":
            output = value

    with torch.no_grad():
        run_nodes(model, graph.nodes, environment, after=note)
    return shapes, flattens, output


def _flattens(given: Tensor, value: Tensor) -> bool:
    if given.dim() != 4 or given.shape[2:].numel() < 2 or value.dim() != 2 or len(value) != len(given):
        return False
    return value.numel() == given.numel() and torch.equal(value, given.flatten(1))


def close(got: Any, wanted: Any) -> bool:
    """Whether two outputs of any structure are the same but for rounding."""
    if isinstance(wanted, Tensor):
        return isinstance(got, Tensor) and got.shape == wanted.shape and torch.allclose(got, wanted, equal_nan=True)
    if isinstance(wanted, dict):
        return isinstance(got, dict) and got.keys() == wanted.keys() and all(close(got[k], wanted[k]) for k in wanted)
    if isinstance(wanted, (list, tuple)):
        return len(got) == len(wanted) and all(close(a, b) for a, b in zip(got, wanted, strict=True))
    return bool(got == wanted)


def _source(graph: fx.Graph) -> fx.Node:
    found: fx.Node = next(node for node in graph.nodes if node.op == "placeholder")
    return found


def _following_norms(model: nn.Module, graph: fx.Graph, calls: Mapping[str, int]) -> dict[str, str]:
    """Layer name -> name of the BatchNorm2d that is the only reader of its output and reads nothing else.

    Of a layer that is called several times it is the only reader of every output.
    """
    readers: dict[str, set[str]] = {}  # layer -> the norms that alone read its outputs, "" where something else does
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(submodule_of(model, node), (nn.Conv2d, VersatileConv2d)):
            users = list(node.users)
            alone = len(users) == 1 and users[0].op == "call_module"
            normed = alone and type(submodule_of(model, users[0])) is nn.BatchNorm2d
            readers.setdefault(str(node.target), set()).add(str(users[0].target) if normed else "")
    found: dict[str, str] = {}
    for layer, names in readers.items():
        (name, *others) = names
        if others or not name or calls[name] != calls[layer]:
            continue
        norm = model.get_submodule(name)
        hooked = norm._forward_hooks or norm._forward_pre_hooks
        if isinstance(norm, nn.BatchNorm2d) and norm.affine and norm.track_running_stats and not hooked:
            found[layer] = name
    return found


def _calls(graph: fx.Graph) -> dict[str, int]:
    """How often each module is called in one pass."""
    counts: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            counts[str(node.target)] = counts.get(str(node.target), 0) + 1
    return counts


def _segments(model: nn.Module, graph: fx.Graph, shapes: dict[fx.Node, torch.Size], batch: int) -> Iterable[Segment]:
    """Cut the graph wherever one batched tensor is all that the rest still reads, besides the network's input.

    A piece ends just before a layer with weights or where its value forks, so that a layer keeps its norm,
    activation and pooling, and a residual block stays whole. All calls of a layer are in one piece, since they are
    fitted together.
    """
    entry = _source(graph)
    constants = list[fx.Node]()  # computed anew in every piece: weights, other arguments, sizes and parts of the input
    for node in graph.nodes:
        of_input = node.all_input_nodes and set(node.all_input_nodes) <= {entry, *constants} and node not in shapes
        anew = of_input or (node.target is part_of and not any(writes(model, user) for user in node.users))
        if node is not entry and node.op != "output" and (node.op in ("get_attr", "placeholder") or anew):
            constants.append(node)
    nodes = [node for node in graph.nodes if node is not entry and node not in set(constants)]
    index = {node: position for position, node in enumerate(nodes)}
    last_use = {node: max((index[user] for user in node.users), default=-1) for node in nodes}
    if any(entry in written(model, node) for node in nodes if node.all_input_nodes and writes(model, node)):
        last_use[entry] = max((index.get(user, -1) for user in entry.users), default=-1)  # other pieces read the images
    last_call = {str(node.target): index[node] for node in nodes if _computes(model, node)}
    reach = 0  # the last call of all layers so far
    piece: list[fx.Node] = []
    for position, node in enumerate(nodes):
        piece.append(node)
        reach = max(reach, last_call.get(str(node.target), 0) if _computes(model, node) else 0)
        if node.op == "output":
            break
        live = [n for n in (entry, *piece) if n in last_use and last_use[n] > position]
        shape = shapes.get(node)
        if live != [node] or position < reach or not shape or shape[0] != batch:
            continue
        if not any(_computes(model, n) for n in piece):
            continue
        if len(node.users) > 1 or all(_computes(model, user) for user in node.users):
            yield Segment(nodes=(*constants, *piece), entry=entry, exit=node)
            entry, piece = node, []
    yield Segment(nodes=(*constants, *piece), entry=entry, exit=piece[-1])


def _computes(model: nn.Module, node: fx.Node) -> bool:
    """Whether a node is a layer with a weight matrix of its own."""
    return node.op == "call_module" and isinstance(submodule_of(model, node), (nn.Conv2d, nn.Linear, VersatileConv2d))
