"""In which order the windows of a layer should lie on its input channels: that in which the input is emitted.

The order of a layer's outputs is settled by its fit, which is free to pair any of them. A layer that reads windows of
them is fitted afterwards, to windows that are contiguous in the emitted order, so that its inference form cuts none.
"""

from __future__ import annotations

from torch import fx, nn

from vfconvert.analysis.graph import Network
from vfconvert.analysis.streams import Order, streams_of
from vfconvert.nn import VersatileConv2d
from vfconvert.ops.blocks import natural_order


class InputOrders:
    """Decides each stream's order when the first windows on it are fitted, and keeps to it."""

    def __init__(self, teacher: nn.Module, network: Network, student: nn.Module) -> None:
        self._streams = streams_of(teacher, network)
        self._student = student
        self._known: dict[int, Order | None] = {}
        self._readers: dict[str, fx.Node] = {}  # each layer at its first call
        for node in network.graph.nodes:
            if node.op == "call_module":
                self._readers.setdefault(str(node.target), node)

    def of(self, layer: str) -> Order | None:
        """The input channel that each place of the layer's bank should read; None: the network's own order."""
        reader: fx.Node | None = self._readers.get(layer)
        if reader is None or not reader.all_input_nodes:
            return None
        return self._streams.order(reader.all_input_nodes[0], self._natural, self._known)

    def _natural(self, layer: str) -> Order | None:
        module = self._student.get_submodule(layer)
        if not isinstance(module, VersatileConv2d):
            return None
        return natural_order(module.geometry, module.spec, module.rows.tolist())
