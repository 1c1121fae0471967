"""Operators that write into their input, where somebody else reads it afterwards.

The inference form has no such operators: it computes new tensors. That is the same as long as nothing but the operator
itself reads what it has overwritten.
"""

from __future__ import annotations

from torch import nn

from vfconvert.analysis.graph import Network
from vfconvert.analysis.writing import writes, written


def written_and_read_again(model: nn.Module, network: Network) -> bool:
    """Whether the network overwrites a tensor that something else reads later, or for its effect alone."""
    place = {node: index for index, node in enumerate(network.graph.nodes)}
    for node in network.graph.nodes:
        if not writes(model, node) or not node.all_input_nodes:
            continue
        if not node.users:
            return True
        chain = {node}
        for overwritten in written(model, node):
            if any(place[user] > place[node] for user in overwritten.users if user not in chain):
                return True
            chain.add(overwritten)
    return False
