"""The input shapes that all files of a bench are run on, from what they say and what was asked for."""

from __future__ import annotations

from collections.abc import Sequence

from vfconvert.benching.runners import Lengths, Runner
from vfconvert.errors import InputShapeError

_SPATIAL_RANK = 4  # batch, channels, height, width

Shape = tuple[int, int, int]


def common_shapes(
    runners: Sequence[Runner],
    *,
    batch: int,
    size: tuple[int, int] | None = None,
    input_shapes: Sequence[Shape] = (),
) -> tuple[tuple[int, ...], ...]:
    """The shape `(batch, …)` of every input; lengths left open are of `input_shapes` `(C, H, W)` and `size` `(H, W)`.

    A file that tells no shapes takes the others'. Raises `InputShapeError` where a length is not positive, stays open
    or contradicts a file, where files differ, and where there are not as many shapes as inputs.
    """
    asked = [batch, *(length for shape in input_shapes for length in shape), *(size or ())]
    if min(asked) < 1:
        raise InputShapeError(f"input: got {_shown(asked)}, expected positive numbers")
    for runner in runners:
        _check_count(runner, runners[0], input_shapes)
    told = [(runner, _shapes_of(runner, batch, size, input_shapes)) for runner in runners if None not in runner.shapes]
    if not told:
        if not input_shapes:
            raise InputShapeError(
                f"{runners[0].path}: the file does not tell its input's shape; add --input-shape C,H,W"
                f"{' for each input' if len(runners[0].shapes) > 1 else ''}"
            )
        return tuple((batch, shape[0], *(size or shape[1:])) for shape in input_shapes)
    first, shapes = told[0]
    for runner, other in told[1:]:
        if other != shapes:
            raise InputShapeError(
                f"{runner.path}: takes {_all(other)}, and {first.path} takes {_all(shapes)}; "
                "compare files of the same input"
            )
    return shapes


def _check_count(runner: Runner, first: Runner, shapes: Sequence[Shape]) -> None:
    inputs = len(runner.shapes)
    if inputs != len(first.shapes):
        raise InputShapeError(
            f"{runner.path}: takes {inputs} input(s), and {first.path} takes {len(first.shapes)}; "
            "compare files of the same inputs"
        )
    if shapes and len(shapes) != inputs:
        raise InputShapeError(f"{runner.path}: takes {inputs} input(s), got {len(shapes)} --input-shape; give {inputs}")


def _shapes_of(
    runner: Runner, batch: int, size: tuple[int, int] | None, shapes: Sequence[Shape]
) -> tuple[tuple[int, ...], ...]:
    asked: Sequence[Shape | None] = shapes or [None] * len(runner.shapes)
    return tuple(
        _shape_of(runner, lengths or (), batch, size, shape)
        for lengths, shape in zip(runner.shapes, asked, strict=True)
    )


def _shape_of(
    runner: Runner, lengths: Lengths, batch: int, size: tuple[int, int] | None, input_shape: Shape | None
) -> tuple[int, ...]:
    wanted: list[int | None] = [batch, *(input_shape or (None,) * (len(lengths) - 1))]
    if size is not None and len(wanted) == _SPATIAL_RANK:
        wanted[2:] = size
    flag = "--size" if size is not None and input_shape is None else "--input-shape"
    if len(wanted) != len(lengths) or (size is not None and len(lengths) != _SPATIAL_RANK):
        raise InputShapeError(
            f"{runner.path}: its input has {len(lengths)} dimensions, expected 4 with {flag}; drop it"
        )
    return tuple(
        _length(runner, lengths, index, fixed, asked)
        for index, (fixed, asked) in enumerate(zip(lengths, wanted, strict=True))
    )


def _length(runner: Runner, lengths: Lengths, index: int, fixed: int | None, asked: int | None) -> int:
    if fixed is None and asked is None:
        if index >= 2 and len(lengths) == _SPATIAL_RANK:
            raise InputShapeError(f"{runner.path}: takes any height or width; add --size HxW")
        raise InputShapeError(f"{runner.path}: takes any length at dimension {index}; add --input-shape C,H,W")
    if fixed is not None and asked is not None and fixed != asked:
        if index == 0:
            raise InputShapeError(f"{runner.path}: takes batches of {fixed}, got {asked}; choose --batch {fixed}")
        takes = _shown(["any" if length is None else length for length in lengths])
        raise InputShapeError(f"{runner.path}: takes {takes}, got {asked} at dimension {index}; choose {fixed}")
    return fixed if fixed is not None else asked or 0


def _all(shapes: Sequence[Sequence[object]]) -> str:
    return " and ".join(map(_shown, shapes))


def _shown(lengths: Sequence[object]) -> str:
    return " x ".join(str(length) for length in lengths)
