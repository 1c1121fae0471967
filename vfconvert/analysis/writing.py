"""Operators of a trace that write into their input, and the values that they write into."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx, nn

_ALIASING_MODULES = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten)
_ALIASING_METHODS = frozenset(["contiguous", "view", "reshape", "flatten", "squeeze", "unsqueeze", "permute", "chunk"])
_WRITING = (operator.iadd, operator.imul, operator.isub, operator.itruediv, operator.setitem)


def writes(model: nn.Module, node: fx.Node) -> bool:
    """Whether an operator writes into its first input."""
    target: Any = node.target
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(target)), "inplace", False))
    if node.op not in ("call_function", "call_method"):
        return False
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    marked = name.endswith("_") and not name.endswith("__")
    return bool(node.kwargs.get("inplace", False)) or marked or target in _WRITING


def aliases(model: nn.Module, node: fx.Node) -> bool:
    """Whether a tensor may be the same memory as its input."""
    if node.op == "call_module":
        return isinstance(model.get_submodule(str(node.target)), _ALIASING_MODULES)
    if node.op == "call_function":
        return node.target is operator.getitem or getattr(node.target, "__name__", "") in _ALIASING_METHODS
    return node.op == "call_method" and node.target in _ALIASING_METHODS


def written(model: nn.Module, node: fx.Node) -> tuple[fx.Node, ...]:
    """The values that an operator which `writes` overwrites: its input, and what that may be the same memory as."""
    found = [node.all_input_nodes[0]]
    while (aliases(model, found[-1]) or writes(model, found[-1])) and found[-1].all_input_nodes:
        found.append(found[-1].all_input_nodes[0])
    return tuple(found)
