"""Which outputs of a versatile layer can be computed together, and in which order that emits them.

A *block* is a set of primary filters under one crop whose outputs use the same channel windows. Within a block the
windows share sums: their ends cut the channels into *segments*, each is convolved once, and a window is the sum of its
segments. Whatever the number of windows and their stride, that takes `C * crop area` products for each primary and
position, `1/n` of the separate windows at most.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from vfconvert.specs import ConvGeometry, VersatileSpec, Window


@dataclass(frozen=True, slots=True)
class Block:
    """Primaries of one crop whose outputs use the same windows.

    `primaries` are bank rows, group after group where the layer has groups, as many of each. `outputs[w]` are the
    layer's outputs of `windows[w]`, in the order of the primaries.
    """

    crop: int
    windows: tuple[int, ...]
    primaries: tuple[int, ...]
    outputs: tuple[tuple[int, ...], ...]


def blocks_of(geometry: ConvGeometry, spec: VersatileSpec, rows: Sequence[int]) -> tuple[Block, ...] | None:
    """All outputs of a layer as blocks, the crops in order, within a crop the fullest sets of windows first.

    `rows[o]` is the secondary filter of output `o` (see `vfconvert.ops.expand`). None where a layer's groups differ in
    structure, so that no grouped convolution computes them side by side.
    """
    total, per_group = spec.primaries(geometry), spec.primaries_per_group(geometry)
    uses: dict[
        tuple[int, int, int], dict[int, dict[int, int]]
    ] = {}  # (group, crop, turn) -> primary -> window -> output
    for output, row in enumerate(rows):
        copy, primary = divmod(row, total)
        crop, window = divmod(copy, spec.window_choices)
        group, turn = primary // per_group, 0
        while window in uses.get((group, crop, turn), {}).get(primary, {}):
            turn += 1  # the same secondary filter twice, at another scale
        uses.setdefault((group, crop, turn), {}).setdefault(primary, {})[window] = output
    found: dict[tuple[int, int, tuple[int, ...]], list[list[int]]] = {}
    for (group, crop, turn), primaries in uses.items():
        for primary, outputs in primaries.items():
            key = (crop, turn, tuple(sorted(outputs)))
            found.setdefault(key, [[] for _ in range(geometry.groups)])[group].append(primary)
    blocks = []
    for key, members in sorted(found.items(), key=lambda item: (*item[0][:2], -len(item[0][2]), item[0])):
        if len({len(group) for group in members}) > 1:
            return None
        crop, turn, windows = key
        chosen = tuple(primary for group in members for primary in sorted(group))
        emitted = tuple(
            tuple(uses[primary // per_group, crop, turn][primary][window] for primary in chosen) for window in windows
        )
        blocks.append(Block(crop=crop, windows=windows, primaries=chosen, outputs=emitted))
    return tuple(blocks)


def arranged(blocks: Sequence[Block], primaries: int, groups: int) -> tuple[tuple[int, ...], tuple[Block, ...]]:
    """An order of the bank's rows in which the primaries of a block lie side by side wherever possible.

    Returns the old row at each new place, and the blocks in terms of the new rows. With groups nothing moves.
    """
    if groups > 1:
        return tuple(range(primaries)), tuple(blocks)
    users: dict[int, list[int]] = {row: [] for row in range(primaries)}
    for index, block in enumerate(blocks):
        for row in block.primaries:
            users[row].append(index)
    rows = sorted(users, key=lambda row: (not users[row], users[row], row))
    place = {row: index for index, row in enumerate(rows)}
    moved = []
    for block in blocks:
        turn = sorted(range(len(block.primaries)), key=lambda k: place[block.primaries[k]])
        moved.append(
            Block(
                crop=block.crop,
                windows=block.windows,
                primaries=tuple(place[block.primaries[k]] for k in turn),
                outputs=tuple(tuple(outputs[k] for k in turn) for outputs in block.outputs),
            )
        )
    return tuple(rows), tuple(moved)


def natural_order(geometry: ConvGeometry, spec: VersatileSpec, rows: Sequence[int]) -> tuple[int, ...] | None:
    """The order in which a layer's inference form emits its outputs; None where it has none."""
    blocks = blocks_of(geometry, spec, rows)
    if blocks is None:
        return None
    return emitted_order(arranged(blocks, spec.primaries(geometry), geometry.groups)[1])


def emitted_order(blocks: Sequence[Block]) -> tuple[int, ...]:
    """The output that each emitted channel is: block after block, window after window, the primaries in order."""
    return tuple(output for block in blocks for outputs in block.outputs for output in outputs)


@dataclass(frozen=True, slots=True)
class Cuts:
    """The channels of a filter cut at the ends of some windows.

    `segments` lie side by side; `covers[w]` are the indices of those that make up window `w` (consecutive ones).
    """

    segments: tuple[Window, ...]
    covers: tuple[tuple[int, ...], ...]

    @property
    def shared(self) -> tuple[int, ...]:
        """Segments that every window covers; at most one, since no window ends inside the others' common part."""
        return tuple(sorted(set(self.covers[0]).intersection(*self.covers[1:])))


def cuts_of(windows: Sequence[Window]) -> Cuts:
    """Segments between all starts and stops of `windows` that some window covers."""
    ends = sorted({end for window in windows for end in (window.start, window.stop)})
    pieces = [Window(a, b) for a, b in itertools.pairwise(ends)]
    pieces = [p for p in pieces if any(w.start <= p.start and p.stop <= w.stop for w in windows)]
    covers = tuple(tuple(i for i, p in enumerate(pieces) if w.start <= p.start and p.stop <= w.stop) for w in windows)
    return Cuts(segments=tuple(pieces), covers=covers)


VARIANTS = ("segments", "full", "separate")
"""How windows are computed: from segments, from the full filter minus its edges, or each on its own."""

CANCELLING = "full"
"""The form that takes small differences of large sums, which half precision does not hold."""

PLAIN = "plain"
"""How a layer is computed that has none of these forms: one ordinary convolution with the expanded weight."""


Term = tuple[int, Window]
"""A sign, and the channels that are convolved."""


def terms_of(windows: Sequence[Window], channels: int, variant: str) -> list[tuple[Term, ...]]:
    """What each window is the sum of, in the order in which sums are taken, so that equal beginnings are shared.

    Of segments: the shared one first, then those to its left from right to left, then those to its right. Of the full
    filter: all channels first, then minus every segment outside of the window. A window alone, and each of separate
    ones, is its own sum.
    """
    whole = Window(0, channels)
    if len(windows) == 1 or variant == "separate":
        return [((1, window),) for window in windows]
    if variant == CANCELLING:
        cuts = cuts_of((*windows, whole))
        return [
            ((1, whole), *((-1, segment) for index, segment in enumerate(cuts.segments) if index not in cover))
            for cover in cuts.covers[: len(windows)]
        ]
    cuts = cuts_of(windows)
    terms = []
    for cover in cuts.covers:
        pivot = cuts.shared[0] if cuts.shared else cover[0]
        left = [segment for segment in reversed(cover) if segment < pivot]
        right = [segment for segment in cover if segment > pivot]
        terms.append(tuple((1, cuts.segments[segment]) for segment in (pivot, *left, *right)))
    return terms


def shares(windows: Sequence[Window], channels: int, variant: str) -> bool:
    """Whether windows have a sum in common when computed so."""
    terms = [term for own in terms_of(windows, channels, variant) for term in own]
    return len(set(terms)) < len(terms)


def products(blocks: Sequence[Block], spec: VersatileSpec, channels: int, variant: str) -> int:
    """Multiply-adds per output position of a layer of `channels` in a group: exactly those of its convolutions.

    Segments take `P C kh kw` in all where every primary uses every window; the full filter minus its edges takes
    `P (C + 2 (n - 1) g) kh kw` of two windows or more.
    """
    every, total = spec.channel_windows(channels), 0
    for block in blocks:
        terms = terms_of([every[index] for index in block.windows], channels, variant)
        width = sum(window.width for _, window in {term for own in terms for term in own})  # each is convolved once
        total += len(block.primaries) * width * spec.crops[block.crop].area
    return total
