"""Spatial crops: which rectangles of a kernel become secondary filters.

Wang et al. 2018, section 3.1: level `i` keeps the centre of the kernel, `i` rows and columns taken off each
side, for `i = 0 … s-1`. Each axis is cropped until it can be cropped no more, and keeps its parity: 5x5 gives
5x5, 3x3, 1x1; 1x7 gives 1x7, 1x5, 1x3, 1x1; 4x4 gives 4x4, 2x2.
"""

from __future__ import annotations

from vfconvert.specs import Crop, Pair


def _centred(size: int, removed: int) -> Pair:
    """Start and stop of an axis of `size` taps, `removed` taken off each side but never below 1 or 2 taps."""
    removed = min(removed, (size - 1) // 2)
    return removed, size - removed


def spatial_levels(kernel_size: Pair) -> int:
    """`s = ceil(k / 2)`, by the longer axis."""
    return max((size + 1) // 2 for size in kernel_size)


def square_crops(kernel_size: Pair) -> tuple[Crop, ...]:
    """The paper's nested centred crops, level 0 (the full kernel) first."""
    kh, kw = kernel_size
    return tuple(Crop(*_centred(kh, level), *_centred(kw, level)) for level in range(spatial_levels(kernel_size)))


def line_crops(kernel_size: Pair) -> tuple[Crop, ...]:
    """The central row and the central column (two where the axis is even): `1xk` and `kx1`.

    Empty where the kernel is itself a line, since its squares already are the lines.
    """
    kh, kw = kernel_size
    if min(kh, kw) < 3:
        return ()
    row = Crop(*_centred(kh, kh), 0, kw)
    column = Crop(0, kh, *_centred(kw, kw))
    return row, column


Crops = tuple[tuple[Crop, ...], tuple[tuple[int, ...], ...]]
"""All crops, and for each level the indices of those that it offers."""


def full_crop(kernel_size: Pair) -> Crops:
    """The whole kernel alone: nothing is shared by crops."""
    return (Crop(0, kernel_size[0], 0, kernel_size[1]),), ((0,),)


CROP_FAMILIES = ("squares", "lines")


def crops_and_levels(kernel_size: Pair, family: str = "squares") -> Crops:
    """All crops of a family, and for each level the indices of those it offers.

    "squares": level `i` offers the centred crop `i`. "lines": every level below the full kernel offers the
    central row and column besides.
    """
    squares = square_crops(kernel_size)
    lines = line_crops(kernel_size) if family == "lines" and len(squares) > 1 else ()
    besides = tuple(range(len(squares), len(squares) + len(lines)))
    levels = ((0,), *((level, *besides) for level in range(1, len(squares))))
    return squares + lines, levels
