"""One versatile layer, ready to be computed: its bank in the order in which it is read, and what folds into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vfconvert.nn import VersatileConv2d
from vfconvert.ops.blocks import Block, arranged, blocks_of, emitted_order
from vfconvert.specs import ConvGeometry, VersatileSpec, Window

BLOCK = 8  # channels that runtimes keep together: tensors are cut at multiples of it only


@dataclass(frozen=True, eq=False)
class LayerForm:
    """`bank` `(P, C/G, kh, kw)`; `factor` `(N,)` or None and `shift` `(N,)` or None are applied to the outputs."""

    geometry: ConvGeometry
    spec: VersatileSpec
    blocks: tuple[Block, ...]
    bank: Tensor
    factor: Tensor | None
    shift: Tensor | None
    input_order: tuple[int, ...] | None = None  # of the network's channels, in which windows lie; None: its own

    @property
    def windowed(self) -> bool:
        """Whether the layer reads windows of a tensor's channels, so that their order matters."""
        return self.geometry.groups == 1 and self.spec.windows > 1

    @property
    def input_cuts(self) -> tuple[int, ...]:
        """Where windows cut the input's channels, at whole blocks of those that runtimes keep together."""
        if not self.windowed:
            return ()
        ends = {end for window in self.channel_windows for end in (window.start, window.stop)}
        return tuple(sorted(end for end in ends if 0 < end < self.geometry.in_channels and end % BLOCK == 0))

    @property
    def order(self) -> tuple[int, ...]:
        """The output that each emitted channel is."""
        return emitted_order(self.blocks)

    @property
    def channel_windows(self) -> tuple[Window, ...]:
        """The windows of the spec on this layer's channels."""
        return self.spec.channel_windows(self.geometry.group_inputs)

    def with_inputs(self, order: Sequence[int], factor: Tensor | None) -> LayerForm:
        """Read input channel `order[k]` at place `k`, which still lacks `factor[k]`.

        The bank's present order is that of the network.
        """
        bank = self.bank
        if tuple(order) != tuple(range(len(order))):
            bank = bank[:, torch.tensor(order, device=bank.device)]
        return replace(self, bank=_scaled_inputs(bank, factor))

    def with_factor(self, factor: Tensor | None) -> LayerForm:
        """Input place `k` still lacks `factor[k]`; the order is the bank's."""
        return replace(self, bank=_scaled_inputs(self.bank, factor))


def form_of(layer: VersatileConv2d, norm: nn.BatchNorm2d | None) -> LayerForm | None:
    """The form of a layer, the norm that follows folded in; None where its groups differ in structure.

    The bank keeps the layer's own order of channels (`layer.order`), and its rows are sorted so that the primaries of
    a block lie side by side wherever that is possible.
    """
    geometry, spec = layer.geometry, layer.spec
    blocks = blocks_of(geometry, spec, layer.rows.tolist())
    moved = layer.order is not None and geometry.groups > 1 and spec.windows > 1  # windows of channels that lie apart
    if blocks is None or moved:
        return None
    factor = None if layer.scale is None else layer.scale.detach()
    shift = None if layer.bias is None else layer.bias.detach()
    if norm is not None:
        slope, offset = norm_affine(norm)
        factor = slope if factor is None else factor * slope
        shift = offset if shift is None else shift * slope + offset
    rows, blocks = arranged(blocks, len(layer.weight), geometry.groups)
    bank = layer.weight.detach()[torch.tensor(rows, device=layer.weight.device)]
    form = LayerForm(geometry=geometry, spec=spec, blocks=blocks, bank=bank, factor=factor, shift=shift)
    if layer.order is None:
        return form
    if form.windowed:
        return replace(form, input_order=tuple(layer.order.tolist()))
    return replace(form, bank=bank[:, layer.order.argsort()])  # windows apart, the network's own order serves all


def norm_affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a BatchNorm does in evaluation: `slope * x + offset`, `(C,)` each."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("a BatchNorm that tracks no statistics does not fold")
    slope = (norm.weight.detach().double() if norm.affine else 1.0) / (variance.double() + norm.eps).sqrt()
    offset = (norm.bias.detach().double() if norm.affine else 0.0) - mean.double() * slope
    return slope.to(mean), offset.to(mean)


def _scaled_inputs(bank: Tensor, factor: Tensor | None) -> Tensor:
    return bank if factor is None else bank * factor.to(bank).view(1, -1, 1, 1)
