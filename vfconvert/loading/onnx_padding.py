"""The padding of ONNX's convolutions and pooling, stated or automatic, as torch's layers have it."""

from __future__ import annotations

from collections.abc import Sequence

from torch.nn import functional as F

from vfconvert.loading.exported_graph import UnknownGraphError
from vfconvert.loading.onnx_values import Call, Value


def padded(
    call: Call, kernel: Sequence[int], fill: float = 0.0, *, at_most: Sequence[int] | None = None
) -> tuple[Value, tuple[int, ...]]:
    """The first input, padded with `fill` where no layer pads so, and the padding that is left to the layer.

    A layer pads both ends of an axis alike, and by no more than `at_most`.
    """
    begins, ends = stated_padding(call, kernel)
    if begins == ends and all(one <= most for one, most in zip(begins, at_most or begins, strict=True)):
        return call.inputs[0], tuple(begins)
    return F.pad(call.inputs[0], flat_padding(begins, ends), "constant", fill), (0,) * len(kernel)


def flat_padding(begins: Sequence[int], ends: Sequence[int]) -> list[int]:
    """As `torch.nn.functional.pad` takes it: the last axis first."""
    return [size for pair in zip(reversed(begins), reversed(ends), strict=True) for size in pair]


def stated_padding(call: Call, kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """What is added at the begin and the end of each axis."""
    axes = len(kernel)
    strides, dilations = (list(call.attributes.get(key) or [1] * axes) for key in ("strides", "dilations"))
    auto = call.expect("auto_pad", "NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    if auto == "VALID":
        return [0] * axes, [0] * axes
    if auto == "NOTSET":
        pads = list(call.attributes.get("pads") or [0] * (2 * axes))
        return pads[:axes], pads[axes:]
    shape = call.shapes[0]
    sizes = shape[2:] if shape is not None else (None,) * axes
    begins, ends = list[int](), list[int]()
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        if size is None and stride > 1:
            raise UnknownGraphError(f"{call.kind}: auto_pad {auto} of an image of any size")
        reach = dilation * (width - 1) + 1
        total = reach - 1 if size is None else max((-(-size // stride) - 1) * stride + reach - size, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if auto == "SAME_UPPER" else large)
        ends.append(large if auto == "SAME_UPPER" else small)
    return begins, ends
