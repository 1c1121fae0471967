"""What the layers that read a stream want of it: an order of its channels, and places where it is cut already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import fx

from vfconvert.analysis.graph import Network
from vfconvert.analysis.streams import Order, Streams, cat_inputs
from vfconvert.lowering.form import BLOCK, LayerForm

Forms = Mapping[str, LayerForm]


def wanted_orders(network: Network, streams: Streams, forms: Forms) -> dict[int, Order | None]:
    """The order of every stream: what the windows that read it want, else what suits its first layer."""
    known: dict[int, Order | None] = {}
    for node, form in _windowed(network, forms):
        stream = streams.of.get(node.all_input_nodes[0])
        if stream is not None:
            known.setdefault(stream, form.input_order)

    def natural(layer: str) -> Order | None:
        return forms[layer].order if layer in forms else None

    for node in streams.of:
        streams.order(node, natural, known)
    return known


def wanted_cuts(network: Network, streams: Streams, forms: Forms) -> dict[int, tuple[int, ...]]:
    """Where the windows that read a stream cut its channels."""
    found: dict[int, set[int]] = {}
    for node, form in _windowed(network, forms):
        stream = streams.of.get(node.all_input_nodes[0])
        if stream is not None:
            found.setdefault(stream, set()).update(form.input_cuts)
    for node in reversed(network.graph.nodes):  # what is wanted of a concatenation is wanted of its parts
        if streams.kinds.get(node) == "cat":
            start = 0
            for part in cat_inputs(node):
                size = network.channels[part]
                ends = {cut - start for cut in found.get(streams.of[node], ()) if start < cut < start + size}
                found.setdefault(streams.of[part], set()).update(ends)
                start += size
    return {stream: tuple(sorted(cut for cut in cuts if cut % BLOCK == 0)) for stream, cuts in found.items()}


def _windowed(network: Network, forms: Forms) -> Iterator[tuple[fx.Node, LayerForm]]:
    """The lowered layers that read windows of their input."""
    for node in network.graph.nodes:
        form = forms.get(str(node.target)) if node.op == "call_module" else None
        if form is not None and form.windowed:
            yield node, form
