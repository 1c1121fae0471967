"""Operators that write into their input, where somebody else reads it afterwards.

The inference form has no such operators: it computes new tensors. That is the same as long as nothing but the operator
itself reads what it has overwritten.
"""

from __future__ import annotations

import operator

from torch import fx, nn

from vfconvert.analysis.graph import Network
from vfconvert.analysis.writing import writes

_ALIASING_MODULES = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten)
_ALIASING_METHODS = frozenset(["contiguous", "view", "reshape", "flatten", "squeeze", "unsqueeze", "permute", "chunk"])


def written_and_read_again(model: nn.Module, network: Network) -> bool:
    """Whether the network overwrites a tensor that something else reads later, or for its effect alone."""
    place = {node: index for index, node in enumerate(network.graph.nodes)}
    for node in network.graph.nodes:
        if not writes(model, node) or not node.all_input_nodes:
            continue
        if not node.users:
            return True
        chain, written = {node}, node.all_input_nodes[0]
        while True:
            if any(place[user] > place[node] for user in written.users if user not in chain):
                return True
            if not (_aliases(model, written) or writes(model, written)) or not written.all_input_nodes:
                break
            chain.add(written)
            written = written.all_input_nodes[0]
    return False


def _aliases(model: nn.Module, node: fx.Node) -> bool:
    """Whether a tensor may be the same memory as its input."""
    if node.op == "call_module":
        return isinstance(model.get_submodule(str(node.target)), _ALIASING_MODULES)
    if node.op == "call_function":
        return node.target is operator.getitem or getattr(node.target, "__name__", "") in _ALIASING_METHODS
    return node.op == "call_method" and node.target in _ALIASING_METHODS
