"""What tests compare with: a versatile convolution written out as loops, and a comparison that can fail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vfconvert.specs import ConvGeometry, Crop, VersatileSpec, Window

TOLERANCES = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}


def assert_close_enough(
    actual: Tensor | np.ndarray, expected: Tensor | np.ndarray, *, tolerance: float | None = None
) -> None:
    """Same shape, finite, and `max|actual - expected| <= tolerance * max|expected|`.

    The tolerance is that of the actual dtype where none is given. Where all is zero that is expected, nothing else
    will do.
    """
    actual, expected = torch.as_tensor(actual).detach().cpu(), torch.as_tensor(expected).detach().cpu()
    tolerance = TOLERANCES[actual.dtype] if tolerance is None else tolerance
    assert actual.shape == expected.shape, f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    assert torch.isfinite(actual).all(), "not finite"
    if actual.numel() == 0:
        return
    difference = float((actual.double() - expected.double()).abs().max())
    size = float(expected.double().abs().max())
    assert difference <= tolerance * size, f"differs by {difference:.3g} where {size:.3g} is the largest value"


@dataclass(frozen=True)
class Secondary:
    """One output of a versatile layer by its definition: this crop and window of this primary filter."""

    primary: int
    crop: Crop
    window: Window


def paper_order(geometry: ConvGeometry, spec: VersatileSpec) -> list[Secondary]:
    """The secondary filters by level, then window, then primary, the surplus of every group dropped.

    Window `j` of `n` leaves out `j` strides before it and `n - 1 - j` after it; where whole filters are used, one
    stands in for the first window.
    """
    last, channels = spec.windows - 1, geometry.in_channels // geometry.groups
    windows = [Window(j * spec.channel_stride, channels - (last - j) * spec.channel_stride) for j in range(last + 1)]
    if spec.whole_window:
        windows[0] = Window(0, channels)
    outputs = geometry.out_channels // geometry.groups
    primaries = spec.group_primaries or math.ceil(outputs / (len(spec.levels) * len(windows)))
    found = []
    for group in range(geometry.groups):
        ordered = []
        for level in spec.levels:
            for window in windows:
                for primary in range(primaries):
                    ordered.append(Secondary(group * primaries + primary, spec.crops[level[0]], window))
        found += ordered[:outputs]
    return found


def versatile_convolution(
    x: Tensor,
    bank: Tensor,
    geometry: ConvGeometry,
    secondaries: Sequence[Secondary],
    scale: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """The layer by its definition, one output number of every image after the other; autograd goes through it.

    `x` `(B, C, H, W)`, `bank` `(P, C/G, kh, kw)`, one secondary for each of the `N` outputs -> `(B, N, H', W')`. Each
    output pads its input, crops what its crop does not reach, takes its channels and slides its cropped kernel.
    """
    padded = pad(x, geometry)
    (kh, kw), (row_step, column_step) = geometry.kernel_size, geometry.stride
    row_gap, column_gap = geometry.dilation
    outputs = []
    for output, secondary in enumerate(secondaries):
        crop, window = secondary.crop, secondary.window
        first = (output // geometry.group_outputs) * geometry.group_inputs
        kernel = bank[secondary.primary, window.start : window.stop, crop.top : crop.bottom, crop.left : crop.right]
        seen = padded[
            :,
            first + window.start : first + window.stop,
            crop.top * row_gap : padded.shape[2] - (kh - crop.bottom) * row_gap,
            crop.left * column_gap : padded.shape[3] - (kw - crop.right) * column_gap,
        ]
        reach = (kernel.shape[1] - 1) * row_gap + 1, (kernel.shape[2] - 1) * column_gap + 1
        lines = []
        for top in range(0, seen.shape[2] - reach[0] + 1, row_step):
            numbers = []
            for left in range(0, seen.shape[3] - reach[1] + 1, column_step):
                patch = seen[:, :, top : top + reach[0] : row_gap, left : left + reach[1] : column_gap]
                numbers.append((patch * kernel).sum(dim=(1, 2, 3)))
            lines.append(torch.stack(numbers, dim=1))
        value = torch.stack(lines, dim=1)  # (B, H', W')
        if scale is not None:
            value = value * scale[output]
        if bias is not None:
            value = value + bias[output]
        outputs.append(value)
    return torch.stack(outputs, dim=1)


def pad(x: Tensor, geometry: ConvGeometry) -> Tensor:
    """The input with its border, row by row and column by column."""
    for axis in (0, 1):
        size, dimension = x.shape[2 + axis], 2 + axis
        if geometry.padding == "valid":
            before = after = 0
        elif geometry.padding == "same":
            total = geometry.dilation[axis] * (geometry.kernel_size[axis] - 1)
            before, after = total // 2, total - total // 2
        else:
            before = after = int(geometry.padding[axis])
        lines = []
        for position in range(-before, size + after):
            source = _source(position, size, geometry.padding_mode)
            if source is None:
                lines.append(torch.zeros_like(x.select(dimension, 0)))
            else:
                lines.append(x.select(dimension, source))
        x = torch.stack(lines, dim=dimension)
    return x


def _source(position: int, size: int, mode: str) -> int | None:
    """The place of an axis of `size` that the padded axis shows at `position`; None for a zero."""
    if 0 <= position < size:
        return position
    if mode == "zeros":
        return None
    if mode == "replicate":
        return 0 if position < 0 else size - 1
    if mode == "circular":
        return position % size
    assert mode == "reflect", mode
    return -position if position < 0 else 2 * (size - 1) - position
