"""Frozen value types: what a convolution is, and which secondary filters are cut out of its primaries.

Source: Wang et al., "Learning Versatile Filters for Efficient Convolutional Neural Networks", NeurIPS 2018,
sections 3.1 (spatial) and 3.2 (channel). A spatial crop here is any rectangle of the kernel; the paper's nested
centred squares are one choice of crops among others.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vfconvert.errors import IllegalSpecError

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvGeometry:
    """All hyper-parameters of a 2-D convolution, as `torch.nn.Conv2d` names them.

    `padding` is a pair of numbers or one of "same" and "valid", as the layer had it.
    """

    in_channels: int
    out_channels: int
    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: Pair | str = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    padding_mode: str = "zeros"
    bias: bool = True

    @classmethod
    def of(cls, conv: nn.Conv2d) -> ConvGeometry:
        """Read the geometry of a layer."""
        return cls(
            in_channels=conv.in_channels,
            out_channels=conv.out_channels,
            kernel_size=(conv.kernel_size[0], conv.kernel_size[1]),
            stride=(conv.stride[0], conv.stride[1]),
            padding=conv.padding if isinstance(conv.padding, str) else (conv.padding[0], conv.padding[1]),
            dilation=(conv.dilation[0], conv.dilation[1]),
            groups=conv.groups,
            padding_mode=conv.padding_mode,
            bias=conv.bias is not None,
        )

    @property
    def group_inputs(self) -> int:
        """Input channels of one group: the channels of one filter."""
        return self.in_channels // self.groups

    @property
    def group_outputs(self) -> int:
        """Output channels of one group."""
        return self.out_channels // self.groups

    @property
    def padding_before(self) -> list[int]:
        """Left, right, top, bottom for `torch.nn.functional.pad`.

        "same" puts the odd one of an uneven total on the right and the bottom, as `nn.Conv2d` does.
        """
        if self.padding == "valid":
            return [0, 0, 0, 0]
        if isinstance(self.padding, str):
            totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
        return [side for amount in reversed(self.padding) for side in (amount, amount)]

    @property
    def weight_numbers(self) -> int:
        """Numbers in the weight of the ordinary convolution, bias not counted."""
        return self.out_channels * self.group_inputs * self.kernel_size[0] * self.kernel_size[1]


@dataclass(frozen=True, slots=True, order=True)
class Crop:
    """A rectangle of a kernel: rows `top` up to but not `bottom`, columns `left` up to but not `right`."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """Kernel taps inside the crop."""
        return (self.bottom - self.top) * (self.right - self.left)

    def __str__(self) -> str:
        return f"{self.bottom - self.top}x{self.right - self.left}"


@dataclass(frozen=True, slots=True)
class Window:
    """The input channels `[start, stop)` of a group that a secondary filter reads."""

    start: int
    stop: int

    @property
    def width(self) -> int:
        """Number of channels read."""
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True, slots=True)
class VersatileSpec:
    """Which secondary filters every primary filter of one layer yields.

    `crops` are the rectangles in use; `levels` lists, for each spatial level, the crops (as indices) that an
    output of this level may use. With the paper's nested squares level `i` has the one crop `i`. With lines a
    level offers several and the fit chooses per output. `windows` is the number of channel windows and
    `channel_stride` the channels that one window lies after the last (0 where there is one window).
    A primary filter serves up to `len(levels) * windows` outputs; `group_primaries` is the number of primary filters
    of each group, None for as few as serve all outputs. Where there are more, some serve fewer outputs.
    `whole_window` lets outputs of the first window read all channels instead: it is one more window, the last.
    """

    crops: tuple[Crop, ...]
    levels: tuple[tuple[int, ...], ...]
    windows: int = 1
    channel_stride: int = 0
    group_primaries: int | None = None
    whole_window: bool = False

    @property
    def window_choices(self) -> int:
        """Windows in use: `windows`, and the whole filter besides where outputs may read that."""
        return self.windows + self.whole_window

    @property
    def outputs_per_primary(self) -> int:
        """`s * n`: the secondary filters, and so outputs, of one primary filter."""
        return len(self.levels) * self.windows

    def primaries_per_group(self, geometry: ConvGeometry) -> int:
        """`ceil((N / G) / (s * n))`, or as many as the spec gives."""
        return self.group_primaries or self.fewest_primaries(geometry)

    def fewest_primaries(self, geometry: ConvGeometry) -> int:
        """`ceil((N / G) / (s * n))`: with fewer, a group would lack outputs."""
        return -(-geometry.group_outputs // self.outputs_per_primary)

    def primaries(self, geometry: ConvGeometry) -> int:
        """Primary filters of the whole layer."""
        return geometry.groups * self.primaries_per_group(geometry)

    def weight_numbers(self, geometry: ConvGeometry) -> int:
        """Numbers in the bank of primary filters, scales and bias not counted."""
        kh, kw = geometry.kernel_size
        return self.primaries(geometry) * geometry.group_inputs * kh * kw

    def channel_windows(self, group_inputs: int) -> tuple[Window, ...]:
        """Window `j` is `[j g, j g + C - (n - 1) g)`: filter and input move together; the whole is last."""
        width = group_inputs - (self.windows - 1) * self.channel_stride
        sliding = tuple(Window(j * self.channel_stride, j * self.channel_stride + width) for j in range(self.windows))
        return (*sliding, Window(0, group_inputs)) if self.whole_window else sliding

    def is_group_convolution(self, geometry: ConvGeometry) -> bool:
        """At `g = C / n` windows share nothing: the layer is a group convolution with permuted outputs."""
        apart = self.windows > 1 and self.windows * self.channel_stride == geometry.group_inputs
        return apart and not self.whole_window

    def check(self, geometry: ConvGeometry) -> None:
        """Raise `IllegalSpecError` where the layer cannot have these crops or windows."""
        kh, kw = geometry.kernel_size
        if not self.crops or not self.levels or not all(self.levels):
            raise IllegalSpecError("a versatile layer needs at least one crop and one level, each with a crop")
        for crop in self.crops:
            if not (0 <= crop.top < crop.bottom <= kh and 0 <= crop.left < crop.right <= kw):
                raise IllegalSpecError(f"crop {crop} lies outside a kernel of {kh}x{kw}")
        if any(not 0 <= index < len(self.crops) for level in self.levels for index in level):
            raise IllegalSpecError(f"a level names a crop beyond the {len(self.crops)} that exist")
        if self.windows < 1:
            raise IllegalSpecError(f"channel windows: got {self.windows}, expected at least 1")
        if self.windows > 1:
            largest = geometry.group_inputs // self.windows
            if not 1 <= self.channel_stride <= largest:
                raise IllegalSpecError(
                    f"channel stride: got {self.channel_stride}, expected 1 to {largest} "
                    f"({geometry.group_inputs} channels, {self.windows} windows); beyond that, channels go unread"
                )

        fewest = self.fewest_primaries(geometry)
        if self.group_primaries is not None and not fewest <= self.group_primaries <= geometry.group_outputs:
            raise IllegalSpecError(
                f"primary filters of a group: got {self.group_primaries}, expected {fewest} to "
                f"{geometry.group_outputs} (that many outputs, {self.outputs_per_primary} from a filter at most)"
            )
        if self.whole_window and self.windows < 2:
            raise IllegalSpecError("the whole filter as one more window needs at least 2 windows besides")

    def __str__(self) -> str:
        parts = []
        if len(self.levels) > 1:
            parts.append("crops " + " ".join(str(crop) for crop in self.crops))
        if self.windows > 1:
            parts.append(f"{self.windows} windows, stride {self.channel_stride}")
        if self.whole_window:
            parts[-1] += " or whole"
        if self.group_primaries is not None:
            parts.append(f"{self.group_primaries} primaries")
        return "; ".join(parts) or "one full filter"
