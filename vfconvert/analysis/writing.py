"""Operators of a trace that write into their input."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx, nn

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
