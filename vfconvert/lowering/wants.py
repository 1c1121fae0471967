"""What the layers that read a stream want of it: an order of its channels, and places where it is cut already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from torch import fx

from vfconvert.analysis.graph import Network
from vfconvert.analysis.streams import Order, Streams, cat_inputs
from vfconvert.lowering.form import BLOCK, LayerForm

Forms = Mapping[str, LayerForm]


def wanted_orders(network: Network, streams: Streams, forms: Forms) -> dict[int, Order | None]:
    """The order of every stream: what the windows that read it want, else what suits its first layer.

    A layer of several calls has one order for all that it reads: that which suits most of its calls.
    """
    known: dict[int, Order | None] = {}
    for node, form in _windowed(network, forms):
        stream = streams.of.get(node.all_input_nodes[0])
        if stream is not None:
            known.setdefault(stream, form.input_order)

    def natural(layer: str) -> Order | None:
        return forms[layer].order if layer in forms else None

    for name, calls in calls_of(network).items():
        if len(calls) > 1 and name in forms and not forms[name].windowed:
            read = [node.all_input_nodes[0] for node in calls]
            suited = Counter(streams.order(node, natural, dict(known)) for node in read)
            ((order, _),) = suited.most_common(1)  # the first of equals
            for node in read:
                known.setdefault(streams.of[node], order)
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


def calls_of(network: Network) -> dict[str, tuple[fx.Node, ...]]:
    """The calls of every module, in order."""
    found: dict[str, tuple[fx.Node, ...]] = {}
    for node in network.graph.nodes:
        if node.op == "call_module":
            found[str(node.target)] = (*found.get(str(node.target), ()), node)
    return found


def _windowed(network: Network, forms: Forms) -> Iterator[tuple[fx.Node, LayerForm]]:
    """The lowered layers that read windows of their input."""
    for node in network.graph.nodes:
        form = forms.get(str(node.target)) if node.op == "call_module" else None
        if form is not None and form.windowed:
            yield node, form
