"""Random legal versatile layers, small enough for loops."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.references import Secondary, paper_order
from vfconvert.nn import VersatileConv2d
from vfconvert.ops.crops import crops_and_levels
from vfconvert.ops.expand import row_of
from vfconvert.specs import ConvGeometry, Crop, Pair, VersatileSpec

MODES = ("zeros", "reflect", "replicate", "circular")


@dataclass(frozen=True)
class Case:
    """A layer, what each of its outputs is by definition, and an input for it, all in float64."""

    layer: VersatileConv2d
    secondaries: tuple[Secondary, ...]
    x: Tensor

    def __repr__(self) -> str:
        layer = self.layer
        scale = "no scale" if layer.scale is None else "scale"
        return f"Case({layer.geometry}, {layer.spec}, {scale}, rows {layer.rows.tolist()}, x {tuple(self.x.shape)})"


@st.composite
def geometries(draw: st.DrawFn) -> ConvGeometry:
    """Any legal geometry with up to 3 groups, 5x5 kernels and 18 outputs."""
    pairs = st.tuples(st.integers(1, 2), st.integers(1, 2))
    groups = draw(st.integers(1, 3))
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    padding = draw(st.sampled_from(["same", "valid"]) | st.tuples(st.integers(0, 3), st.integers(0, 3)))
    return ConvGeometry(
        in_channels=groups * draw(st.integers(1, 6)),
        out_channels=groups * draw(st.integers(1, 6)),
        kernel_size=kernel,
        stride=(1, 1) if padding == "same" else draw(pairs),
        padding=padding,
        dilation=draw(pairs),
        groups=groups,
        padding_mode=draw(st.sampled_from(MODES)),
        bias=draw(st.booleans()),
    )


@st.composite
def specs(draw: st.DrawFn, geometry: ConvGeometry) -> VersatileSpec:
    """Any legal spec: one full filter, squares, lines or any rectangles, 1 to 3 windows of any stride.

    As many primaries as there must be, or any number up to one for each output; whole filters besides windows or not.
    """
    family = draw(st.sampled_from(["squares", "lines", "any", "full"]))
    if family == "any":
        crops, levels = draw(_rectangles(geometry.kernel_size))
    else:
        crops, levels = crops_and_levels(geometry.kernel_size, "squares" if family == "full" else family)
    if family == "full":
        crops, levels = crops[:1], ((0,),)
    windows = draw(st.integers(1, min(3, geometry.group_inputs)))
    stride = draw(st.integers(1, geometry.group_inputs // windows)) if windows > 1 else 0
    spec = VersatileSpec(
        crops=crops,
        levels=levels,
        windows=windows,
        channel_stride=stride,
        whole_window=windows > 1 and draw(st.booleans()),
    )
    numbers = st.integers(spec.fewest_primaries(geometry), geometry.group_outputs)
    spec = replace(spec, group_primaries=draw(st.none() | numbers))
    spec.check(geometry)
    return spec


@st.composite
def _rectangles(draw: st.DrawFn, kernel: Pair) -> tuple[tuple[Crop, ...], tuple[tuple[int, ...], ...]]:
    """1 to 4 rectangles anywhere in the kernel, and 1 to 3 levels that each offer some of them."""

    def ends(size: int) -> st.SearchStrategy[list[int]]:
        return st.lists(st.integers(0, size), min_size=2, max_size=2, unique=True).map(sorted)

    crops = draw(
        st.lists(
            st.builds(lambda rows, columns: Crop(*rows, *columns), ends(kernel[0]), ends(kernel[1])),
            min_size=1,
            max_size=4,
        )
    )
    level = st.lists(st.sampled_from(range(len(crops))), min_size=1, max_size=3, unique=True)
    levels = draw(st.lists(level, min_size=1, max_size=3))
    return tuple(crops), tuple(map(tuple, levels))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A layer with random numbers, half of the time with outputs in another order and other crops of their levels."""
    geometry = draw(geometries())
    spec = draw(specs(geometry))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    layer = VersatileConv2d(geometry, spec, scale=draw(st.booleans()), dtype=torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random, dtype=torch.float64))
    secondaries = paper_order(geometry, spec)
    if draw(st.booleans()):
        secondaries, rows = draw(_assignments(geometry, spec))
        layer.rows.copy_(torch.tensor(rows))
    height, width = (draw(_sizes(geometry, axis)) for axis in (0, 1))
    x = torch.randn(2, geometry.in_channels, height, width, generator=random, dtype=torch.float64)
    return Case(layer, tuple(secondaries), x)


@st.composite
def _assignments(draw: st.DrawFn, geometry: ConvGeometry, spec: VersatileSpec) -> tuple[list[Secondary], list[int]]:
    """For each group any of its secondary filters in any order, one crop of each level offered: and their rows."""
    per_group, total = spec.primaries_per_group(geometry), spec.primaries(geometry)
    windows = spec.channel_windows(geometry.group_inputs)
    offered = [[window] for window in range(spec.windows)]
    if spec.whole_window:
        offered[0].append(spec.windows)
    secondaries, rows = [], []
    for group in range(geometry.groups):
        slots = [
            (draw(st.sampled_from(level)), draw(st.sampled_from(choices)), group * per_group + primary)
            for level in spec.levels
            for choices in offered
            for primary in range(per_group)
        ]
        for crop, window, primary in draw(st.permutations(slots))[: geometry.group_outputs]:
            secondaries.append(Secondary(primary, spec.crops[crop], windows[window]))
            rows.append(row_of(spec, total, crop=crop, window=window, primary=primary))
    return secondaries, rows


def _sizes(geometry: ConvGeometry, axis: int) -> st.SearchStrategy[int]:
    """Input sizes that the kernel fits into and the padding mode allows."""
    reach = geometry.dilation[axis] * (geometry.kernel_size[axis] - 1)
    if geometry.padding == "same":
        border, smallest = reach - reach // 2, 1
    else:
        border = 0 if geometry.padding == "valid" else int(geometry.padding[axis])
        smallest = max(1, reach + 1 - 2 * border)
    if geometry.padding_mode == "reflect":
        smallest = max(smallest, border + 1)
    if geometry.padding_mode == "circular":
        smallest = max(smallest, border)
    return st.integers(smallest, smallest + 3)
