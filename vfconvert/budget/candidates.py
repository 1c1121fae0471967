"""What a layer could become: spatial crops, channel windows, both, each with several numbers of primary filters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vfconvert.ops.crops import Crops, crops_and_levels, full_crop
from vfconvert.specs import ConvGeometry, VersatileSpec

KINDS = ("spatial", "lines", "channel", "group", "both")
_SHARES = (0.0, 0.25, 0.5, 0.75)  # of the way from the fewest primaries to one for each output
_WINDOWS = (2, 3, 4)
_LARGE = 1500  # unfolded inputs from which a layer is tried in fewer ways


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Specs that differ in the number of primary filters alone: `spec` with each of `primaries` of a group."""

    kind: str
    spec: VersatileSpec
    primaries: tuple[int, ...]


def families_of(geometry: ConvGeometry) -> tuple[Family, ...]:
    """All families of a layer; none where no two outputs could share a filter.

    Where there are more primaries than needed, outputs that share theirs with none may read all channels.
    """
    return tuple(_families(geometry))


def _families(geometry: ConvGeometry) -> Iterator[Family]:
    squares, lines = (crops_and_levels(geometry.kernel_size, family) for family in ("squares", "lines"))
    full = full_crop(geometry.kernel_size)
    if len(squares[1]) > 1:
        yield _family(geometry, "spatial", squares)
        if lines != squares:
            yield _family(geometry, "lines", lines)
    for windows in _WINDOWS:
        for stride in _strides(geometry, windows):
            apart = stride * windows == geometry.group_inputs
            if apart:  # windows that share nothing: a group convolution, whose outputs all read one window
                spec = VersatileSpec(crops=full[0], levels=full[1], windows=windows, channel_stride=stride)
                yield Family(kind="group", spec=spec, primaries=(spec.fewest_primaries(geometry),))
                continue
            yield _family(geometry, "channel", full, windows, stride)
            if len(squares[1]) > 1 and windows == 2:
                yield _family(geometry, "both", squares, windows, stride)


def _family(geometry: ConvGeometry, kind: str, crops: Crops, windows: int = 1, stride: int = 0) -> Family:
    spec = VersatileSpec(
        crops=crops[0], levels=crops[1], windows=windows, channel_stride=stride, whole_window=windows > 1
    )
    fewest, most = spec.fewest_primaries(geometry), geometry.group_outputs
    unit = 8 if most >= 64 else 4 if most >= 32 else 2  # runtimes keep channels together in eights
    counts = {fewest}
    for share in _SHARES[1:] if windows <= 2 else _SHARES[1:2]:  # with many primaries two windows do as well
        count = -(-(fewest + share * (most - fewest)) // unit) * unit
        if fewest < count < most:
            counts.add(int(count))
    return Family(kind=kind, spec=spec, primaries=tuple(sorted(counts)))


def _strides(geometry: ConvGeometry, windows: int) -> list[int]:
    """`C/16`, `C/8`, `C/4` and `C/n`, those that are whole and legal; of a large layer the coarser ones."""
    channels = geometry.group_inputs
    unfolded = channels * geometry.kernel_size[0] * geometry.kernel_size[1]
    parts = (4,) if unfolded >= _LARGE else (16, 8, 4)
    strides = {channels // part for part in (*parts, windows) if channels % part == 0}
    return sorted(stride for stride in strides if 1 <= stride <= channels // windows)
