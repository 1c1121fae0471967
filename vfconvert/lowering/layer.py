"""One versatile layer as convolutions with slices of its bank.

Every block of outputs (see `vfconvert.ops.blocks`) is computed in one of three ways:

* segments: each segment of the channels is convolved once, a window is the sum of its segments;
* full: the whole filter, minus what lies outside each window;
* separate: each window by itself, without shared sums.

Factors (a folded norm, scales) multiply slices of the bank. Where windows share a sum, only a common factor can: that
of the first window, as long as it is not much smaller than the others'. The ratios to it are left to whoever reads the
output, if that is possible, else applied after the sum.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from vfconvert.lowering.form import LayerForm
from vfconvert.lowering.values import Emitter, Value
from vfconvert.ops.blocks import Block, shares, terms_of
from vfconvert.specs import Crop, Window

_MOST_RATIO = 64.0  # of two windows' factors: beyond it half precision would suffer


@dataclass(frozen=True, kw_only=True, slots=True)
class Manner:
    """How a layer is computed: its variant, the places at which outputs are cut, whether a ratio may be left over."""

    variant: str = "segments"
    cuts: tuple[int, ...] = ()
    defer: bool = False


def emit_layer(emitter: Emitter, name: str, form: LayerForm, given: Value, manner: Manner) -> Value:
    """Add a layer to the graph; its input lies in the order of the bank, with nothing left to multiply by."""
    return _Layer(emitter, name, form, given, manner).emit()


@dataclass(frozen=True, eq=False)
class _Piece:
    """An emitted tensor, the outputs that its channels are, and the factors that they lack."""

    node: fx.Node
    outputs: tuple[int, ...]
    factor: Tensor | None


class _Layer:
    def __init__(self, emitter: Emitter, name: str, form: LayerForm, given: Value, manner: Manner) -> None:
        self._emitter, self._name, self._form, self._given, self._manner = emitter, name, form, given, manner
        self._bank = emitter.tensor(f"{name}_weight", form.bank)
        self._inputs: dict[Any, fx.Node] = {}
        self._like = form.bank

    def emit(self) -> Value:
        pieces: list[_Piece] = []
        at = 0
        for block in self._form.blocks:
            parts = [self._block(part) for part in self._split(block, at)]
            for window in range(len(block.windows)):
                pieces += [part[window] for part in parts]
            at += len(block.windows) * len(block.primaries)
        factor = None
        if any(piece.factor is not None for piece in pieces):
            ones = [torch.ones(len(p.outputs)).to(self._like) if p.factor is None else p.factor for p in pieces]
            factor = torch.cat(ones)
        return Value(
            pieces=tuple(piece.node for piece in pieces),
            sizes=tuple(len(piece.outputs) for piece in pieces),
            order=tuple(output for piece in pieces for output in piece.outputs),
            factor=factor,
        )

    def _split(self, block: Block, at: int) -> list[Block]:
        """The block cut where the manner wants its outputs cut, which lie from place `at`."""
        length = len(block.primaries)
        inside = {
            cut - at - window * length
            for cut in self._manner.cuts
            for window in range(len(block.windows))
            if self._form.geometry.groups == 1 and 0 < cut - at - window * length < length
        }
        ends = [0, *sorted(inside), length]
        return [
            Block(
                crop=block.crop,
                windows=block.windows,
                primaries=block.primaries[a:b],
                outputs=tuple(outputs[a:b] for outputs in block.outputs),
            )
            for a, b in itertools.pairwise(ends)
        ]

    def _block(self, block: Block) -> list[_Piece]:
        windows = [self._form.channel_windows[window] for window in block.windows]
        crop = self._form.spec.crops[block.crop]
        factors, shifts = self._of(self._form.factor, block), self._of(self._form.shift, block)
        if not shares(windows, self._form.geometry.group_inputs, self._manner.variant):
            return [
                _Piece(self._convolved(block, crop, window, factor, shift), outputs, None)
                for window, factor, shift, outputs in zip(windows, factors, shifts, block.outputs, strict=True)
            ]
        return self._sums(block, crop, windows, factors, shifts)

    def _sums(
        self,
        block: Block,
        crop: Crop,
        windows: Sequence[Window],
        factors: Sequence[Tensor | None],
        shifts: Sequence[Tensor | None],
    ) -> list[_Piece]:
        """Windows that share sums, scaled by the first window's factors; then the ratios of the others."""
        base = _common(factors)
        ratios = [None if factor is None or base is None else factor / base for factor in factors]
        ratios = [None if ratio is None or bool((ratio == 1).all()) else ratio for ratio in ratios]
        positive = all(ratio is None or bool((ratio >= 1 / _MOST_RATIO).all()) for ratio in ratios)
        defer = self._manner.defer and positive
        terms = terms_of(windows, self._form.geometry.group_inputs, self._manner.variant)
        biases: list[Tensor | None] = []
        for ratio, shift in zip(ratios, shifts, strict=True):
            late = ratio is not None and not defer  # the affine that applies the ratio adds the shift too
            biases.append(None if late or shift is None else shift if ratio is None else shift / ratio)
        pieces = []
        sums: dict[tuple[tuple[int, Window], ...], fx.Node] = {}
        for index, own in enumerate(terms):
            node, placed = self._sum(block, crop, own, terms, index, base, biases[index], sums)
            ratio, shift = ratios[index], shifts[index]
            if ratio is not None and not defer:
                node = self._emitter.affine(self._name, node, ratio, shift)
                ratio = None
            elif biases[index] is not None and not placed:
                bias = self._emitter.tensor(f"{self._name}_shift", _column(biases[index]))
                node = self._emitter.call(operator.add, node, bias)
            pieces.append(_Piece(node, block.outputs[index], ratio))
        return pieces

    def _sum(
        self,
        block: Block,
        crop: Crop,
        own: Sequence[tuple[int, Window]],
        terms: Sequence[Sequence[tuple[int, Window]]],
        index: int,
        base: Tensor | None,
        bias: Tensor | None,
        sums: dict[tuple[tuple[int, Window], ...], fx.Node],
    ) -> tuple[fx.Node, bool]:
        """The sum of one window's terms, and whether `bias` found a place in a convolution of its own.

        Terms that begin alike are summed once; a term that only this window has takes the bias along.
        """
        node: fx.Node | None = None
        placed = False
        for count in range(1, len(own) + 1):
            key = tuple(own[:count])
            if key in sums:
                node = sums[key]
                continue
            sign, window = own[count - 1]
            alone = all(own[count - 1] not in other for at, other in enumerate(terms) if at != index)
            takes = bias if alone and not placed else None
            placed = placed or takes is not None
            if takes is None and (own[count - 1],) in sums:
                term = sums[own[count - 1],]
            else:
                factor = (
                    base if sign > 0 else -(torch.ones(len(block.primaries)).to(self._like) if base is None else base)
                )
                term = self._convolved(block, crop, window, factor, takes)
                if takes is None:
                    sums[own[count - 1],] = term
            node = term if node is None else self._emitter.call(operator.add, term, node)
            if not placed:
                sums[key] = node
        if node is None:
            raise ValueError("a window of no channels")
        return node, placed

    def _of(self, values: Tensor | None, block: Block) -> list[Tensor | None]:
        if values is None:
            return [None] * len(block.windows)
        return [values[torch.tensor(outputs, device=values.device)] for outputs in block.outputs]

    def _convolved(
        self, block: Block, crop: Crop, window: Window, factor: Tensor | None, shift: Tensor | None
    ) -> fx.Node:
        geometry, emitter = self._form.geometry, self._emitter
        weight = self._weight(block, crop, window)
        if factor is not None:
            weight = emitter.of_stored(operator.mul, weight, emitter.tensor(f"{self._name}_factor", _column(factor, 4)))
        bias = None if shift is None else emitter.tensor(f"{self._name}_shift", shift)
        inputs, padding = self._input(crop, window)
        return emitter.call(
            F.conv2d, inputs, weight, bias, geometry.stride, padding, geometry.dilation, geometry.groups
        )

    def _weight(self, block: Block, crop: Crop, window: Window) -> fx.Node:
        """A slice of the bank: rows, channels, crop."""
        primaries, bank = block.primaries, self._bank
        first, count = primaries[0], len(primaries)
        rows = slice(None)
        if primaries != tuple(range(first, first + count)):
            at = torch.tensor(primaries, dtype=torch.int32)
            bank = self._emitter.of_stored(torch.index_select, bank, 0, self._emitter.tensor(f"{self._name}_rows", at))
        elif count != len(self._form.bank):
            rows = slice(first, first + count)
        _, channels, kh, kw = self._form.bank.shape
        ends = ((window.start, window.stop, channels), (crop.top, crop.bottom, kh), (crop.left, crop.right, kw))
        index = (rows, *(slice(None) if (a, b) == (0, size) else slice(a, b) for a, b, size in ends))
        while index and index[-1] == slice(None):
            index = index[:-1]
        return self._emitter.of_stored(operator.getitem, bank, index) if index else bank

    def _input(self, crop: Crop, window: Window) -> tuple[fx.Node, tuple[int, int]]:
        """The channels of a window, padded or cut for a crop, and the padding left to the convolution."""
        geometry, emitter = self._form.geometry, self._emitter
        left, right, top, bottom = geometry.padding_before
        (kh, kw), (dh, dw) = geometry.kernel_size, geometry.dilation
        node = self._channels(window)
        if geometry.padding_mode != "zeros":
            node = self._once(
                ("pad", window), lambda: emitter.call(F.pad, node, [left, right, top, bottom], geometry.padding_mode)
            )
            left = right = top = bottom = 0
        left, right = left - crop.left * dw, right - (kw - crop.right) * dw
        top, bottom = top - crop.top * dh, bottom - (kh - crop.bottom) * dh
        if left == right >= 0 and top == bottom >= 0:
            return node, (top, left)
        inside = (slice(None), slice(None), _within(top, bottom), _within(left, right))
        if inside[2:] != (slice(None), slice(None)):
            before = node
            node = self._once((crop, window, "cut"), lambda: emitter.call(operator.getitem, before, inside))
        sides = [max(side, 0) for side in (left, right, top, bottom)]
        if any(sides):
            cut = node
            node = self._once((crop, window, "padded"), lambda: emitter.call(F.pad, cut, sides))
        return node, (0, 0)

    def _channels(self, window: Window) -> fx.Node:
        geometry, emitter = self._form.geometry, self._emitter
        if geometry.groups == 1:
            return self._once(window, lambda: emitter.channels(self._given, window.start, window.stop))
        whole = self._once("whole", lambda: emitter.concatenated(self._given.pieces))
        if window.width == geometry.group_inputs:
            return whole
        starts = range(0, geometry.in_channels, geometry.group_inputs)
        at = torch.tensor([start + k for start in starts for k in range(window.start, window.stop)], dtype=torch.int32)
        return self._once(
            window,
            lambda: emitter.call(torch.index_select, whole, 1, emitter.tensor(f"{self._name}_channels", at)),
        )

    def _once(self, key: Any, make: Any) -> fx.Node:
        if key not in self._inputs:
            self._inputs[key] = make()
        return self._inputs[key]


def _common(factors: Sequence[Tensor | None]) -> Tensor | None:
    """What every window's sum is scaled by: the first window's factors, unless others are much larger."""
    given = [factor for factor in factors if factor is not None]
    if not given:
        return None
    least = torch.stack([factor.abs() for factor in given]).amax(0) / _MOST_RATIO
    first = given[0]
    raised = torch.where(first < 0, -least, least)
    base = torch.where(first.abs() < least, raised, first)
    return torch.where(base == 0, torch.ones_like(base), base)


def _within(before: int, after: int) -> slice:
    """What is left of an axis where padding is negative."""
    return slice(max(-before, 0) or None, min(after, 0) or None)


def _column(values: Tensor | None, dimensions: int = 3) -> Tensor:
    """`(K,)` as it broadcasts over channels, `(K, 1, …)`."""
    if values is None:
        raise ValueError("no values")
    return values.view(-1, *[1] * (dimensions - 1))
