"""Files that take channels last beside files that take them first: the same images, each in its own layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vfconvert.benching.runners import Lengths, Runner

if TYPE_CHECKING:
    from vfconvert.benching.runners import Arrays

_LAST = (0, 2, 3, 1)  # (B, C, H, W) to (B, H, W, C)


def channels_first(runners: Sequence[Runner]) -> list[Runner]:
    """The runners, each taking all its inputs as `(B, C, H, W)`.

    An input has its channels last if its lengths are those of another file's but for that. Files that are all alike
    stay as they are, whatever their layout.
    """
    return [_turned(runner, tuple(_is_last(runner, place, runners) for place in _inputs(runner))) for runner in runners]


def own_shapes(runner: Runner, shapes: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """What the file itself takes where all files are given `shapes` `(B, C, H, W)`."""
    turned = runner.channels_last or (False,) * len(shapes)
    return tuple(
        tuple(shape[index] for index in _LAST) if last else shape for shape, last in zip(shapes, turned, strict=True)
    )


def _inputs(runner: Runner) -> range:
    return range(len(runner.shapes))


def _is_last(runner: Runner, place: int, runners: Sequence[Runner]) -> bool:
    own = _four(runner, place)
    others = [lengths for one in runners if (lengths := _four(one, place))]
    return bool(own) and any(_turns_into(own, lengths) for lengths in others)


def _turns_into(own: Lengths, first: Lengths) -> bool:
    """Whether `(B, H, W, C)` are the lengths of a file that takes `(B, C, H, W)`, and are not so as they are."""
    sizes = all(None in pair or pair[0] == pair[1] for pair in zip(own[1:3], first[2:], strict=True))
    return first[1] is not None and own[1] != first[1] == own[3] and sizes


def _four(runner: Runner, place: int) -> Lengths:
    """The lengths of one input where the file tells them and they are four, else none."""
    lengths = runner.shapes[place] if place < len(runner.shapes) else None
    return lengths if lengths is not None and len(lengths) == len(_LAST) else ()


def _turned(runner: Runner, last: tuple[bool, ...]) -> Runner:
    if not any(last):
        return runner
    prepare = runner.prepare
    shapes = tuple(
        (lengths[0], lengths[3], *lengths[1:3]) if lengths is not None and turned else lengths
        for lengths, turned in zip(runner.shapes, last, strict=True)
    )

    def prepare_turned(arrays: Arrays) -> Callable[[], object]:
        pairs = zip(arrays, last, strict=True)
        return prepare([np.ascontiguousarray(array.transpose(_LAST)) if turned else array for array, turned in pairs])

    return replace(runner, shapes=shapes, prepare=prepare_turned, channels_last=last)
