"""From a bank of primary filters to the weight of an ordinary convolution.

`W_o = alpha_o * M_{i,j} ∘ F_p` (Wang et al. 2018, equations 3 and 6): output `o` is primary `p(o)` under the mask
of crop `i(o)` and channel window `j(o)`. Masks are never made: every masked copy of the bank is a slice that is
padded with zeros, so a file that holds this computation holds the bank once.

Outputs are addressed by *row*: `row = (crop * choices + window) * P + primary` (`choices`: the windows, and the
whole filter where it is used besides), in the stack of all masked copies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vfconvert.specs import ConvGeometry, Crop, VersatileSpec, Window


def masked_bank(bank: Tensor, crop: Crop, window: Window) -> Tensor:
    """`M ∘ F` for every primary: `(P, C, kh, kw) -> (P, C, kh, kw)`, zeros outside crop and window."""
    _, channels, kh, kw = bank.shape
    cut = bank[:, window.start : window.stop, crop.top : crop.bottom, crop.left : crop.right]
    if cut.shape == bank.shape:
        return bank
    around = (
        *(crop.left, kw - crop.right),
        *(crop.top, kh - crop.bottom),
        *(window.start, channels - window.stop),
    )
    return F.pad(cut, around)


def expand(bank: Tensor, spec: VersatileSpec, rows: Tensor, scale: Tensor | None = None) -> Tensor:
    """The weight `(N, C, kh, kw)` of the ordinary convolution that computes the same.

    `bank` is `(P, C, kh, kw)` with `C` the channels of one group, `rows` is `(N,)` integers, `scale` `(N,)`.
    """
    windows = spec.channel_windows(bank.shape[1])
    copies = [masked_bank(bank, crop, window) for crop in spec.crops for window in windows]
    weight = torch.cat(copies).index_select(0, rows)  # (N, C, kh, kw)
    return weight if scale is None else weight * scale.view(-1, 1, 1, 1)


@dataclass(frozen=True, eq=False)
class Expansion:
    """What making a layer's weight needs besides its bank, so that it takes a selection and a product.

    `primaries` `(N,)` are the outputs' own, `mask` `(N, C, kh, kw)` of ones and zeros what each has of its primary;
    `channels` `(C,)`, or None, puts the channels of the bank in the order of the inputs.
    """

    primaries: Tensor
    mask: Tensor
    channels: Tensor | None

    @classmethod
    def of(cls, bank: Tensor, spec: VersatileSpec, rows: Tensor, order: Tensor | None) -> Expansion:
        """That of a layer with this bank; see `VersatileConv2d` for the others."""
        channels = None if order is None else order.argsort()
        mask = expand(torch.ones_like(bank.detach()), spec, rows)
        return cls(rows % len(bank), mask if channels is None else mask.index_select(1, channels), channels)

    def weight(self, bank: Tensor, scale: Tensor | None) -> Tensor:
        """As `expand` makes it, `(N, C, kh, kw)`."""
        chosen = bank if self.channels is None else bank.index_select(1, self.channels)
        weight = chosen.index_select(0, self.primaries) * self.mask
        return weight if scale is None else weight * scale.view(-1, 1, 1, 1)


def row_of(spec: VersatileSpec, primaries: int, *, crop: int, window: int, primary: int) -> int:
    """The row of one secondary filter in the stack of masked copies of a bank of `primaries` filters."""
    return (crop * spec.window_choices + window) * primaries + primary


def default_rows(geometry: ConvGeometry, spec: VersatileSpec) -> Tensor:
    """The paper's order, `(N,)` int64: all outputs of slot 0, then of slot 1, …; the surplus is dropped.

    With groups every group takes the same order within its own outputs and its own primaries.
    """
    per_group, total = spec.primaries_per_group(geometry), spec.primaries(geometry)
    first = spec.windows if spec.whole_window else 0  # the whole filter in place of the first window
    windows = [first, *range(1, spec.windows)]
    slots = [(level[0], window) for level in spec.levels for window in windows]
    rows = [
        row_of(spec, total, crop=crop, window=window, primary=group * per_group + primary)
        for group in range(geometry.groups)
        for crop, window, primary in [
            (crop, window, primary) for crop, window in slots for primary in range(per_group)
        ][: geometry.group_outputs]
    ]
    return torch.tensor(rows, dtype=torch.int64)
