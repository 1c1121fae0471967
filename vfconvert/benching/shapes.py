"""The one input shape that all files of a bench are run on, from what they say and what was asked for."""

from __future__ import annotations

from collections.abc import Sequence

from vfconvert.benching.runners import Runner
from vfconvert.errors import InputShapeError

_SPATIAL_RANK = 4  # batch, channels, height, width


def common_shape(
    runners: Sequence[Runner],
    *,
    batch: int,
    size: tuple[int, int] | None = None,
    input_shape: tuple[int, int, int] | None = None,
) -> tuple[int, ...]:
    """The shape `(batch, …)`: lengths that a file leaves open come from `input_shape` `(C, H, W)` and `size` `(H, W)`.

    A file that tells no shape takes the others'. Raises `InputShapeError` where a length is not positive, stays open
    or contradicts a file, and where files differ.
    """
    asked = [batch, *(input_shape or ()), *(size or ())]
    if min(asked) < 1:
        raise InputShapeError(f"input: got {_shown(asked)}, expected positive numbers")
    told = [(runner, _shape_of(runner, batch, size, input_shape)) for runner in runners if runner.shape is not None]
    if not told:
        if input_shape is None:
            raise InputShapeError(
                f"{runners[0].path}: the file does not tell its input's shape; add --input-shape C,H,W"
            )
        return (batch, input_shape[0], *(size or input_shape[1:]))
    first, shape = told[0]
    for runner, other in told[1:]:
        if other != shape:
            raise InputShapeError(
                f"{runner.path}: takes {_shown(other)}, and {first.path} takes {_shown(shape)}; "
                "compare files of the same input"
            )
    return shape


def _shape_of(
    runner: Runner, batch: int, size: tuple[int, int] | None, input_shape: tuple[int, int, int] | None
) -> tuple[int, ...]:
    lengths = runner.shape or ()
    wanted: list[int | None] = [batch, *(input_shape or (None,) * (len(lengths) - 1))]
    if size is not None and len(wanted) == _SPATIAL_RANK:
        wanted[2:] = size
    flag = "--size" if size is not None and input_shape is None else "--input-shape"
    if len(wanted) != len(lengths) or (size is not None and len(lengths) != _SPATIAL_RANK):
        raise InputShapeError(
            f"{runner.path}: its input has {len(lengths)} dimensions, expected 4 with {flag}; drop it"
        )
    return tuple(
        _length(runner, index, fixed, asked) for index, (fixed, asked) in enumerate(zip(lengths, wanted, strict=True))
    )


def _length(runner: Runner, index: int, fixed: int | None, asked: int | None) -> int:
    if fixed is None and asked is None:
        if index >= 2 and len(runner.shape or ()) == _SPATIAL_RANK:
            raise InputShapeError(f"{runner.path}: takes any height or width; add --size HxW")
        raise InputShapeError(f"{runner.path}: takes any length at dimension {index}; add --input-shape C,H,W")
    if fixed is not None and asked is not None and fixed != asked:
        if index == 0:
            raise InputShapeError(f"{runner.path}: takes batches of {fixed}, got {asked}; choose --batch {fixed}")
        takes = _shown(["any" if length is None else length for length in runner.shape or ()])
        raise InputShapeError(f"{runner.path}: takes {takes}, got {asked} at dimension {index}; choose {fixed}")
    return fixed if fixed is not None else asked or 0


def _shown(lengths: Sequence[object]) -> str:
    return " x ".join(str(length) for length in lengths)
