"""ONNX's Resize and Upsample: torch's interpolation where that places pixels alike, else a matrix for each axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vfconvert.loading.exported_graph import UnknownGraphError
from vfconvert.loading.onnx_values import Call, Value

_TORCH_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
_OLD = "floor where larger, ceil where smaller"
_ROUNDING: dict[str, Callable[[float], int]] = {
    "round_prefer_floor": lambda x: math.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: math.floor(x + 0.5),
    "floor": math.floor,
    "ceil": math.ceil,
}


def _resize(call: Call) -> Value:
    mode = call.expect("mode", "nearest", "nearest", "linear", "cubic")
    if call.opset < 11:  # places and rounding were not said yet; as ONNX Runtime has them
        place, rounding = "asymmetric", _OLD
    else:
        place = call.attributes.get("coordinate_transformation_mode", "half_pixel")
        rounding = call.attributes.get("nearest_mode", "round_prefer_floor")
    if call.attributes.get("antialias") or call.attributes.get("exclude_outside"):
        raise UnknownGraphError("Resize: antialias or exclude_outside")
    if call.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnknownGraphError("Resize: an aspect ratio that is kept")
    scales, sizes = _wanted(call)
    places = len(scales or sizes or [])
    if not places:
        raise UnknownGraphError("Resize: of other axes than height and width")
    aligned = place == "align_corners"
    if mode == "nearest":
        how = _nearest(place, rounding, scales)
    elif aligned or place == "half_pixel" or (place == "pytorch_half_pixel" and 1 not in (sizes or [])):
        plain = mode == "linear" or (places == 2 and call.attributes.get("cubic_coeff_a", -0.75) == -0.75)
        how = ("bicubic" if mode == "cubic" else _TORCH_MODES[places]) if plain else None
    else:
        how = None
    if how is None:
        return _by_matrices(call, mode, place, rounding, scales, sizes)
    corners = None if mode == "nearest" else aligned
    if sizes is not None:
        return F.interpolate(call.inputs[0], size=sizes, mode=how, align_corners=corners)
    return F.interpolate(call.inputs[0], scale_factor=scales, mode=how, align_corners=corners)


def _wanted(call: Call) -> tuple[list[float] | None, list[Any] | None]:
    """Scales or sizes of the axes after the first two, which alone may change."""
    early = call.kind == "Upsample" or call.opset < 11
    scales = (call.numbers(1, "scales") if early else call.numbers(2)) or None
    sizes = call.numbers(3) if call.get(3) is not None else None
    given: list[Any] = list(sizes or scales or [])
    axes = call.attributes.get("axes")
    if axes is not None:
        order = [axis % call.rank for axis in axes]
        if order != list(range(2, call.rank)):
            raise UnknownGraphError("Resize: of other axes than height and width")
    elif not _kept(call, given[:2], sizes is not None):
        raise UnknownGraphError("Resize: of other axes than height and width")
    else:
        given = given[2:]
    return (None, given) if sizes is not None else (given, None)


def _kept(call: Call, given: Sequence[Any], as_sizes: bool) -> bool:
    if not as_sizes:
        return list(given) == [1.0, 1.0]
    shape = call.shapes[0] or (None, None)
    known = [(size, wanted) for size, wanted in zip(shape, given, strict=False) if isinstance(wanted, int) and size]
    return all(size == wanted for size, wanted in known)


def _nearest(place: str, rounding: str, scales: list[float] | None) -> str | None:
    """The mode of torch that takes the same pixels; None where none does."""
    if (place, rounding) == ("asymmetric", "floor"):
        return "nearest"
    if scales is None or not all(scale >= 1 and scale == int(scale) for scale in scales):
        return None
    halves = place in ("half_pixel", "pytorch_half_pixel") and rounding.startswith("round_prefer")
    floors = place == "tf_half_pixel_for_nn" and rounding == "floor"
    return "nearest" if halves or floors or rounding == _OLD else None


def _by_matrices(
    call: Call, mode: str, place: str, rounding: str, scales: list[float] | None, sizes: list[Any] | None
) -> Value:
    shape = call.shapes[0]
    known = shape is not None and None not in shape[2:] and all(isinstance(size, int) for size in sizes or ())
    if not known or shape is None:
        raise UnknownGraphError(f"Resize: {mode} of {place}, {rounding} for images of any size")
    value: Value = call.inputs[0]
    for axis, size in enumerate(shape[2:]):
        before = size or 0
        after = sizes[axis] if sizes is not None else math.floor(before * (scales or [])[axis])
        scale = after / before if sizes is not None else (scales or [])[axis]
        at = [_place(index, scale, before, after, place) for index in range(after)]
        if at == list(range(before)):
            continue
        how = rounding if rounding != _OLD else "floor" if scale >= 1 else "ceil"
        weights = _weights(at, before, mode, how, call.attributes.get("cubic_coeff_a", -0.75))
        last = axis == len(shape) - 3
        turned = value if last else torch.transpose(value, axis + 2, -1)
        turned = torch.matmul(turned, call.constant(weights.T.contiguous()))
        value = turned if last else torch.transpose(turned, axis + 2, -1)
    return value


def _place(index: int, scale: float, before: int, after: int, place: str) -> float:
    """Where among the old pixels a new one lies, in single precision, which decides what is half way."""
    at, by = np.float32(index), np.float32(scale)
    if place == "align_corners":
        return float(at * np.float32(before - 1) / np.float32(after - 1)) if after > 1 else 0.0
    if place == "asymmetric":
        return float(at / by)
    if place == "tf_half_pixel_for_nn":
        return float((at + np.float32(0.5)) / by)
    if place == "half_pixel" or (place == "pytorch_half_pixel" and after > 1):
        return float((at + np.float32(0.5)) / by - np.float32(0.5))
    if place == "pytorch_half_pixel":
        return 0.0
    raise UnknownGraphError(f"Resize: coordinate_transformation_mode {place!r} is not known here")


def _weights(at: list[float], before: int, mode: str, rounding: str, slope: float) -> Tensor:
    """How much of each old pixel `(new, old)` each new one is."""
    found = torch.zeros(len(at), before)
    for index, x in enumerate(at):
        base = math.floor(x)
        if mode == "nearest":
            taken = {_ROUNDING[rounding](x): 1.0}
        elif mode == "linear":
            inside = min(max(x, 0.0), before - 1.0)
            base = math.floor(inside)
            taken = {base: 1 - (inside - base), base + 1: inside - base}
        else:
            taken = {base + step: _cubic(abs(x - base - step), slope) for step in (-1, 0, 1, 2)}
        for old, share in taken.items():
            found[index, min(max(old, 0), before - 1)] += share
    return found


def _cubic(distance: float, slope: float) -> float:
    """Keys' kernel (1981)."""
    if distance <= 1:
        return ((slope + 2) * distance - (slope + 3)) * distance**2 + 1
    return ((distance - 5) * distance + 8) * distance * slope - 4 * slope if distance < 2 else 0.0


RESIZING: dict[str, Callable[[Call], Value]] = {"Resize": _resize, "Upsample": _resize}
