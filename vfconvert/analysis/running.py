"""Nodes of a traced network evaluated one by one, and which of them a value depends on."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import fx, nn
from torch.fx.node import map_arg

from vfconvert.analysis.writing import writes, written

Environment = dict[fx.Node, Any]
Read = tuple[fx.Node, fx.Node | None]
"""A value as the second node reads it, since operators may have written into it; None: as it was computed."""


def run_nodes(
    root: nn.Module,
    nodes: Iterable[fx.Node],
    environment: Environment,
    *,
    keep: Sequence[fx.Node] | None = None,
    before: Callable[[fx.Node, Any], None] | None = None,
    after: Callable[[fx.Node, Any], None] | None = None,
) -> Environment:
    """Evaluate `nodes` in order with the modules of `root`, adding each value to `environment`.

    With `keep` other values are dropped after their last reader. `before` is given a node and its first argument,
    `after` a node and its value.
    """
    nodes = tuple(nodes)
    last_reader = {} if keep is None else {read: node for node in nodes for read in node.all_input_nodes}
    kept = set(keep or ())
    for node in nodes:
        if node.op == "placeholder":
            if node not in environment:  # an optional argument takes its default
                environment[node] = node.args[0] if node.args else None
            continue
        args = map_arg(node.args, environment.__getitem__)
        kwargs = map_arg(node.kwargs, environment.__getitem__)
        if before is not None:
            before(node, args[0] if args else None)
        if node.op == "call_module":
            value = submodule_of(root, node)(*args, **kwargs)
        elif node.op == "call_function":
            value = node.target(*args, **kwargs)  # type: ignore[operator]
        elif node.op == "call_method":
            value = getattr(args[0], str(node.target))(*args[1:], **kwargs)
        elif node.op == "get_attr":
            value = operator.attrgetter(str(node.target))(root)
        else:  # output
            value = args[0]
        environment[node] = value
        if after is not None:
            after(node, value)
        for read in node.all_input_nodes if keep is not None else ():
            if last_reader[read] is node and read not in kept:
                environment.pop(read, None)
    return environment


def needed_for(root: nn.Module, reads: Iterable[Read], nodes: Sequence[fx.Node]) -> tuple[fx.Node, ...]:
    """Those of `nodes` that the values of `reads` depend on, in order.

    Among them are operators that write into a value before it is read, also where nobody reads their own result.
    """
    place, waiting, until = {node: index for index, node in enumerate(nodes)}, list[fx.Node](), 0
    for node, reader in reads:
        waiting.append(node)
        until = max(until, place.get(node if reader is None else reader, len(nodes)))
    writing = [node for node in nodes[:until] if node.all_input_nodes and writes(root, node)]
    needed = set[fx.Node]()
    known = set(waiting)
    while waiting:
        node = waiting.pop()
        known.update(node.all_input_nodes)
        if node in place and node not in needed:
            needed.add(node)
            waiting.extend(node.all_input_nodes)
        if not waiting:
            waiting = [node for node in writing if node not in needed and not known.isdisjoint(written(root, node))]
    return tuple(node for node in nodes if node in needed)


def submodule_of(root: nn.Module, node: fx.Node) -> nn.Module:
    """The module that a node calls."""
    return root.get_submodule(str(node.target))
