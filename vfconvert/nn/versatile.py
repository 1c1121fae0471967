"""The trainable versatile convolution, a drop-in for `torch.nn.Conv2d` (Wang et al. 2018, section 3)."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vfconvert.nn.by_mask import MaskParts, convolve_by_mask
from vfconvert.ops.crops import crops_and_levels
from vfconvert.ops.expand import Expansion, default_rows, expand
from vfconvert.specs import ConvGeometry, VersatileSpec


def _from_geometry(name: str) -> property:
    """A hyper-parameter under the name that code around an `nn.Conv2d` reads it by."""
    return property(lambda layer: getattr(layer.geometry, name))


class VersatileConv2d(nn.Module):
    """A convolution whose `N` filters are cut out of `ceil(N / (s n))` stored primary filters.

    Input `(B, C, H, W)`, output `(B, N, H', W')` as for `nn.Conv2d` of the same geometry, for every stride, padding
    ("same" and "valid" too), padding mode, dilation and group count.

    Parameters of the module: `weight` `(P, C/G, kh, kw)`, the bank; `scale` `(N,)` or None, one factor per output
    (None where a BatchNorm that follows has it); `bias` `(N,)` or None. Buffers: `rows` `(N,)` int64, which secondary
    filter each output is (see `vfconvert.ops.expand`); `order` `(C/G,)` int64 or None, the input channel that each
    channel of the bank reads (None: its own), so that windows may lie in whatever order the layer before emits.

    `in_channels`, `kernel_size` and the other hyper-parameters read as those of an `nn.Conv2d`.

    Raises `IllegalSpecError` where the layer cannot have these crops or windows.
    """

    in_channels, out_channels = _from_geometry("in_channels"), _from_geometry("out_channels")
    kernel_size, stride, dilation = _from_geometry("kernel_size"), _from_geometry("stride"), _from_geometry("dilation")
    padding, padding_mode, groups = _from_geometry("padding"), _from_geometry("padding_mode"), _from_geometry("groups")
    _parts: MaskParts | None = None
    _expansion: Expansion | None = None

    def __init__(
        self,
        geometry: ConvGeometry,
        spec: VersatileSpec | None = None,
        *,
        scale: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if spec is None:
            crops, levels = crops_and_levels(geometry.kernel_size)
            spec = VersatileSpec(crops=crops, levels=levels)
        spec.check(geometry)
        self.geometry, self.spec = geometry, spec
        like: dict[str, Any] = {"device": device, "dtype": dtype}
        filters = (spec.primaries(geometry), geometry.group_inputs, *geometry.kernel_size)
        self.weight = nn.Parameter(torch.empty(filters, **like))
        self.scale = nn.Parameter(torch.ones(geometry.out_channels, **like)) if scale else None
        self.bias = nn.Parameter(torch.zeros(geometry.out_channels, **like)) if geometry.bias else None
        self.rows: Tensor
        self.order: Tensor | None
        self.register_buffer("order", None)
        self.register_buffer("rows", default_rows(geometry, spec).to(device))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def compute_by(self, way: Literal["masks", "weight"] | None) -> None:
        """Compute so from now on: mask by mask as far as the layer can be, or by a weight that is quick to make.

        Both keep what depends on `rows` and `order` alone, until the layer is moved or loaded, and have to be asked for
        again then, and where these were changed in place; None, as at first, keeps nothing. Raises `ValueError`.
        """
        if way not in ("masks", "weight", None):
            raise ValueError(f"compute_by(): got {way!r}, expected 'masks', 'weight' or None")
        self._parts = MaskParts.of(self.geometry, self.spec, self.rows) if way == "masks" else None
        quick = way is not None and self._parts is None
        self._expansion = Expansion.of(self.weight, self.spec, self.rows, self.order) if quick else None

    def expanded_weight(self) -> Tensor:
        """The weight `(N, C/G, kh, kw)` of the ordinary convolution that computes the same."""
        weight = expand(self.weight, self.spec, self.rows, self.scale)
        return weight if self.order is None else weight.index_select(1, self.order.argsort())

    def as_conv2d(self) -> nn.Conv2d:
        """The ordinary convolution that computes the same, its weight a new tensor, its bias this layer's own."""
        g = self.geometry
        mode: Any = g.padding_mode
        sizes = (g.in_channels, g.out_channels, g.kernel_size, g.stride, g.padding, g.dilation, g.groups)
        conv = nn.Conv2d(*sizes, bias=self.bias is not None, padding_mode=mode, device="meta")
        weight = self.expanded_weight().detach()
        conv.weight, conv.bias = nn.Parameter(weight, requires_grad=self.weight.requires_grad), self.bias
        return conv

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W) -> (B, N, H', W')`."""
        geometry = self.geometry
        if self._parts is not None:
            if self.order is not None:
                x = x.index_select(1, self.order)
            return convolve_by_mask(x, self._parts, geometry, self.weight, self.scale, self.bias)
        padding = geometry.padding
        if geometry.padding_mode != "zeros":
            x, padding = F.pad(x, geometry.padding_before, mode=geometry.padding_mode), (0, 0)
        quick = self._expansion
        weight = self.expanded_weight() if quick is None else quick.weight(self.weight, self.scale)
        return F.conv2d(x, weight, self.bias, geometry.stride, padding, geometry.dilation, geometry.groups)

    def _apply(self, *arguments: Any, **settings: Any) -> VersatileConv2d:
        self.compute_by(None)  # what is kept does not move with the layer
        super()._apply(*arguments, **settings)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, *arguments: Any, **settings: Any) -> None:
        self.compute_by(None)
        super()._load_from_state_dict(*arguments, **settings)

    def extra_repr(self) -> str:
        """The geometry in `nn.Conv2d`'s words, then the spec."""
        g = self.geometry
        return f"{g.in_channels}, {g.out_channels}, kernel_size={g.kernel_size}, {self.spec}"
