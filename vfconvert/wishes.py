"""The wish: what a user wants of a layer, in numbers that layers of any size can follow."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from vfconvert.errors import IllegalSpecError
from vfconvert.ops.crops import CROP_FAMILIES, crops_and_levels, full_crop
from vfconvert.overrides import Override
from vfconvert.specs import ConvGeometry, VersatileSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What the user wants of every layer alike; `channel_stride` is a count or, below 1, a share of the channels.

    `primaries` is a count of each group or, a float, a share of its outputs; None: as few as serve all outputs.
    Raises `IllegalSpecError` on numbers that no layer can have.
    """

    spatial: bool = True
    channel: bool = False
    windows: int = 2
    channel_stride: int | float = 0.25
    crops: str = "squares"
    primaries: int | float | None = None

    def __post_init__(self) -> None:
        if self.crops not in CROP_FAMILIES:
            raise IllegalSpecError(f"--crops: got {self.crops!r}, expected one of {', '.join(CROP_FAMILIES)}")
        if isinstance(self.primaries, float) and not 0 < self.primaries <= 1:
            raise IllegalSpecError(f"primaries: got {self.primaries:g} of the outputs, expected above 0 and at most 1")
        if isinstance(self.primaries, int) and self.primaries < 1:
            raise IllegalSpecError(f"primaries: got {self.primaries}, expected at least 1")
        if not self.channel:
            return
        if self.windows < 2:
            raise IllegalSpecError(f"--windows: got {self.windows}, expected at least 2")
        if isinstance(self.channel_stride, float) and not 0 < self.channel_stride <= 1 / self.windows:
            raise IllegalSpecError(
                f"--channel-stride: got {self.channel_stride:g} of the channels, expected above 0 and at most "
                f"1/{self.windows} with {self.windows} windows; beyond that, channels go unread"
            )
        if isinstance(self.channel_stride, int) and self.channel_stride < 1:
            raise IllegalSpecError(f"--channel-stride: got {self.channel_stride} channels, expected at least 1")

    def stride_of(self, channels: int) -> int:
        """The channel stride for a filter of so many channels; 0 where it can have no windows."""
        largest = channels // self.windows
        if isinstance(self.channel_stride, int):
            return self.channel_stride if self.channel_stride <= largest else 0
        return min(max(1, int(self.channel_stride * channels + 1e-9)), largest)

    def spec_of(self, geometry: ConvGeometry) -> VersatileSpec:
        """What this wish makes of one layer. A number of primaries may be one that the layer cannot have."""
        kernel = geometry.kernel_size
        crops, levels = crops_and_levels(kernel, self.crops) if self.spatial else full_crop(kernel)
        stride = self.stride_of(geometry.group_inputs) if self.channel else 0
        return VersatileSpec(
            crops=crops,
            levels=levels,
            windows=self.windows if stride else 1,
            channel_stride=stride,
            group_primaries=self._primaries_of(geometry),
        )

    def _primaries_of(self, geometry: ConvGeometry) -> int | None:
        if isinstance(self.primaries, float):
            return math.ceil(self.primaries * geometry.group_outputs - 1e-9)
        return self.primaries


def wish_of(override: Override, everywhere: Wish) -> Wish | None:
    """What an override wants of its layers, None where it keeps them; unsaid numbers are those wanted everywhere.

    Raises `IllegalSpecError`, naming the override, on numbers that no layer can have.
    """
    if override.kind == "keep":
        return None
    crops = {"spatial": "squares", "lines": "lines"}.get(override.kind, everywhere.crops)
    try:
        return replace(
            everywhere,
            spatial=override.kind != "channel",
            channel=override.kind in ("channel", "both"),
            crops=crops,
            windows=everywhere.windows if override.windows is None else override.windows,
            channel_stride=everywhere.channel_stride if override.stride is None else override.stride,
            primaries=override.primaries,
        )
    except IllegalSpecError as error:
        raise IllegalSpecError(f"--layer {override}: {error}") from error


def check_wishes(everywhere: Wish, overrides: Iterable[Override]) -> None:
    """Raise `IllegalSpecError` where an override wants numbers that no layer can have."""
    for override in overrides:
        wish_of(override, everywhere)
