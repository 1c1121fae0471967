"""The size and work of a network before and after conversion, by two counts of MACs that are named apart.

*Method* MACs are the paper's (Wang et al. 2018, section 3.3): every secondary filter costs the area of its crop times
the width of its channel window at every output position; nothing is saved by sharing sums between the filters of
one primary. *Executed* MACs are those of the operators that run: a versatile layer whose weight is expanded runs an
ordinary convolution and costs as much as one. One MAC is one multiply-add, FLOPs = 2 x MACs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from vfconvert.analysis.counting import MacCount, NumberCount, count_macs, count_numbers
from vfconvert.analysis.forward import Example
from vfconvert.analysis.profile import LayerProfile, Profile, profile
from vfconvert.nn import VersatileConv2d
from vfconvert.ops.blocks import blocks_of, products
from vfconvert.ops.expand import default_rows
from vfconvert.specs import ConvGeometry, VersatileSpec


class Conversion(Protocol):
    """What is asked of one conversion of a plan: the layer, its spec, its new geometry and the norm, if one follows."""

    @property
    def layer(self) -> str:
        """Name of the layer."""

    @property
    def spec(self) -> VersatileSpec:
        """Its secondary filters."""

    @property
    def new_geometry(self) -> ConvGeometry:
        """Geometry of the versatile layer, which may differ from the old one in the bias."""

    @property
    def norm(self) -> str | None:
        """Name of the norm that takes the layer's scale; None where the layer has its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """What one network stores and computes; MACs are of one forward pass of the whole example batch.

    `uncounted` is not empty where operators ran whose products are unknown: MACs are then lower bounds.
    """

    numbers: NumberCount
    macs_method: int
    macs_executed: int
    uncounted: Mapping[str, int]

    @property
    def flops_method(self) -> int:
        """`2 x macs_method`."""
        return 2 * self.macs_method

    @property
    def flops_executed(self) -> int:
        """`2 x macs_executed`."""
        return 2 * self.macs_executed


def measure(model: nn.Module, example: Example) -> Totals:
    """Totals of a network as it is, converted or not, from two forward passes that leave it as it was.

    For a versatile layer the method's count follows its `rows`. Raises `InputShapeError` where the network does not
    take the example.
    """
    return totals_of(model, profile(model, example), count_macs(model, example))


def totals_of(model: nn.Module, layers: Profile, count: MacCount) -> Totals:
    """`measure` for a network that has already been profiled and counted."""
    saved = 0
    for layer in layers.layers:
        module = model.get_submodule(layer.name)
        if isinstance(module, VersatileConv2d):
            saved += ordinary_macs(layer) - versatile_macs(
                module.geometry, module.spec, layer.output_positions, rows=module.rows
            )
    return Totals(
        numbers=count_numbers(model),
        macs_method=count.total - saved,
        macs_executed=count.total,
        uncounted=count.uncounted,
    )


def planned(
    model: nn.Module, before: Totals, layers: Profile, conversions: Iterable[Conversion], *, shared: bool = True
) -> Totals:
    """Totals of the network after the conversions, before any is made; `before` and `layers` are the network's own.

    The method's count is that of the default rows; a fit that chooses among crops of one level changes it
    afterwards. Executed MACs are those of shared sums (where an ordinary convolution is faster, the file has that), or
    without `shared`, as of networks that are not lowered, the original's.
    The conversions name layers that are neither shared nor tied to others, since only their numbers go away.
    """
    numbers, saved, spared = before.numbers, 0, 0
    for conversion in conversions:
        layer = layers.layer(conversion.layer)
        old, new = layer.geometry, conversion.new_geometry
        change = conversion.spec.weight_numbers(old) - old.weight_numbers
        parameters = converted_numbers(conversion.spec, new, conversion.norm) - ordinary_numbers(old)
        numbers = replace(
            numbers,
            parameters=numbers.parameters + parameters,
            weight_bytes=numbers.weight_bytes + parameters * _number_bytes(model.get_submodule(layer.name)),
            layer_weights=numbers.layer_weights + change,
            buffer_bytes=numbers.buffer_bytes + new.out_channels * torch.int64.itemsize,  # the rows
        )
        saved += ordinary_macs(layer) - versatile_macs(old, conversion.spec, layer.output_positions)
        spared += ordinary_macs(layer) - shared_macs(old, conversion.spec, layer.output_positions)
    return replace(
        before,
        numbers=numbers,
        macs_method=before.macs_method - saved,
        macs_executed=before.macs_executed - (spared if shared else 0),
    )


def versatile_macs(
    geometry: ConvGeometry,
    spec: VersatileSpec,
    output_positions: int,
    *,
    rows: Tensor | Iterable[int] | None = None,
) -> int:
    """The method's MACs of one layer: `positions x sum over outputs of crop area x window width`.

    `rows` `(N,)` says which secondary filter each output is (see `vfconvert.ops.expand`), by default the paper's
    order, in which a level uses the first crop that it offers.
    """
    if rows is None:
        rows = default_rows(geometry, spec)
    numbers = rows.tolist() if isinstance(rows, Tensor) else rows
    areas = [crop.area for crop in spec.crops]
    widths = [window.width for window in spec.channel_windows(geometry.group_inputs)]
    copies = [area * width for area in areas for width in widths]
    primaries = spec.primaries(geometry)
    return output_positions * sum(copies[row // primaries] for row in numbers)


def shared_macs(geometry: ConvGeometry, spec: VersatileSpec, output_positions: int) -> int:
    """MACs of one layer whose windows share sums, in the paper's order of outputs; never more than an ordinary one."""
    blocks = blocks_of(geometry, spec, default_rows(geometry, spec).tolist())
    ordinary = geometry.weight_numbers
    if blocks is None:
        return output_positions * ordinary
    return output_positions * min(ordinary, products(blocks, spec, geometry.group_inputs, "segments"))


def ordinary_macs(layer: LayerProfile) -> int:
    """MACs of the ordinary convolution of a layer's geometry, all its calls together."""
    return layer.output_positions * layer.geometry.weight_numbers


def ordinary_numbers(geometry: ConvGeometry) -> int:
    """Parameters of the ordinary convolution: weight and bias."""
    return geometry.weight_numbers + _bias_numbers(geometry)


def converted_numbers(spec: VersatileSpec, new: ConvGeometry, norm: str | None) -> int:
    """Parameters of the versatile layer of geometry `new`: bank, bias, and scales where no norm takes them."""
    return spec.weight_numbers(new) + _bias_numbers(new) + (new.out_channels if norm is None else 0)


def _bias_numbers(geometry: ConvGeometry) -> int:
    return geometry.out_channels if geometry.bias else 0


def _number_bytes(layer: nn.Module) -> int:
    return next(layer.parameters()).element_size()
