"""A versatile layer computed mask by mask, for training: fewer products than its expanded weight, forward and back.

The outputs of one mask are an ordinary convolution of the crop, over the window's channels alone, with the cut-out
filters; their parts are then put in order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vfconvert.specs import ConvGeometry, Crop, VersatileSpec, Window


@dataclass(frozen=True, eq=False)
class MaskParts:
    """For every mask in use its crop, its window, the primaries and the outputs cut from them.

    `order` `(N,)` puts the concatenated outputs back.
    """

    parts: tuple[tuple[Crop, Window, Tensor, Tensor], ...]
    order: Tensor

    @classmethod
    def of(cls, geometry: ConvGeometry, spec: VersatileSpec, rows: Tensor) -> MaskParts | None:
        """The parts of a layer by its `rows`; None where groups keep it from being computed so."""
        if geometry.groups > 1:
            return None
        primaries, windows = spec.primaries(geometry), spec.channel_windows(geometry.in_channels)
        masks = [(crop, window) for crop in spec.crops for window in windows]
        found = []
        for number in sorted(set((rows // primaries).tolist())):
            outputs = (rows // primaries == number).nonzero().flatten()
            found.append((*masks[number], rows[outputs] % primaries, outputs))
        return cls(tuple(found), torch.argsort(torch.cat([outputs for *_, outputs in found])))


def convolve_by_mask(
    x: Tensor, parts: MaskParts, geometry: ConvGeometry, bank: Tensor, scale: Tensor | None, bias: Tensor | None
) -> Tensor:
    """What the layer computes: `(B, C, H, W) -> (B, N, H', W')`. `x` has its channels in the order of the bank."""
    left, right, top, bottom = geometry.padding_before
    if geometry.padding_mode != "zeros":
        x = F.pad(x, (left, right, top, bottom), mode=geometry.padding_mode)
        left = right = top = bottom = 0
    kh, kw = geometry.kernel_size
    dh, dw = geometry.dilation
    found = []
    for crop, window, primaries, outputs in parts.parts:
        whole = window.stop - window.start == x.shape[1]
        seen = x if whole else x[:, window.start : window.stop]
        # What the crop does not read of the padding, or of the image's edge, is cut off.
        sides = [left - dw * crop.left, right - dw * (kw - crop.right)]
        ends = [top - dh * crop.top, bottom - dh * (kh - crop.bottom)]
        padding = (ends[0], sides[0])
        if sides[0] != sides[1] or ends[0] != ends[1] or min(padding) < 0:
            seen, padding = F.pad(seen, [*sides, *ends]), (0, 0)
        cut = bank[:, window.start : window.stop, crop.top : crop.bottom, crop.left : crop.right]
        weight = cut.index_select(0, primaries)
        if scale is not None:
            weight = weight * scale[outputs].view(-1, 1, 1, 1)
        found.append(F.conv2d(seen, weight, None, geometry.stride, padding, geometry.dilation))
    result = torch.cat(found, 1).index_select(1, parts.order)
    return result if bias is None else result + bias.view(1, -1, 1, 1)
