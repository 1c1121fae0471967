"""What the layers that read a stream want of it: an order of its channels, and places where it is cut already."""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx, nn

from vfconvert.analysis.graph import Network
from vfconvert.analysis.streams import Order, Streams, cat_inputs
from vfconvert.lowering.form import LayerForm
from vfconvert.nn import VersatileConv2d
from vfconvert.ops.blocks import cuts_of

_BLOCK = 8  # channels that runtimes keep together: outputs are cut at multiples of it only

Forms = Mapping[str, LayerForm]


def wanted_orders(model: nn.Module, network: Network, streams: Streams, forms: Forms) -> dict[int, Order | None]:
    """The order of every stream: what the windows that read it want, else what suits its first layer."""
    known: dict[int, Order | None] = {}
    for node in network.graph.nodes:
        if windowed(node, forms):
            layer = model.get_submodule(str(node.target))
            order = layer.order if isinstance(layer, VersatileConv2d) else None
            stream = streams.of.get(node.all_input_nodes[0])
            if stream is not None:
                known.setdefault(stream, None if order is None else tuple(order.tolist()))

    def natural(layer: str) -> Order | None:
        return forms[layer].order if layer in forms else None

    for node in streams.of:
        streams.order(node, natural, known)
    return known


def wanted_cuts(network: Network, streams: Streams, forms: Forms) -> dict[int, tuple[int, ...]]:
    """Where the windows that read a stream cut its channels."""
    found: dict[int, set[int]] = {}
    for node in reversed(network.graph.nodes):
        if windowed(node, forms):
            given, windows = node.all_input_nodes[0], forms[str(node.target)].channel_windows
            ends = {end for segment in cuts_of(windows).segments for end in (segment.start, segment.stop)}
            if given in streams.of:
                found.setdefault(streams.of[given], set()).update(ends)
        elif streams.kinds.get(node) == "cat":
            start = 0
            for part in cat_inputs(node):
                size = network.channels[part]
                ends = {cut - start for cut in found.get(streams.of[node], ()) if start < cut < start + size}
                found.setdefault(streams.of[part], set()).update(ends)
                start += size
    return {stream: tuple(sorted(cut for cut in cuts if cut % _BLOCK == 0)) for stream, cuts in found.items()}


def windowed(node: fx.Node, forms: Forms) -> bool:
    """Whether a node is a lowered layer that reads windows of its input."""
    if node.op != "call_module" or str(node.target) not in forms:
        return False
    form = forms[str(node.target)]
    return form.geometry.groups == 1 and form.spec.windows > 1
