"""The padding of TensorFlow's "SAME" convolutions, which depends on the size of the input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vfconvert.specs import Pair


class SamePadding(nn.Module):
    """Zeros around `(B, C, H, W)` such that a convolution without padding gives `(ceil(H / stride), ceil(W / stride))`.

    An odd one goes to the bottom and the right.
    """

    def __init__(self, kernel_size: Pair, stride: Pair, dilation: Pair) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.dilation = kernel_size, stride, dilation

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, C, H + top + bottom, W + left + right)`."""
        (top, bottom), (left, right) = (self._around(axis, x.shape[2 + axis]) for axis in (0, 1))
        return F.pad(x, (left, right, top, bottom))

    def _around(self, axis: int, size: int) -> tuple[Any, Any]:
        stride, reach = self.stride[axis], self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
        # Never a quotient of something negative, which ONNX rounds towards zero.
        wanted = torch.sym_max((size + stride - 1) // stride * stride - stride + reach - size, 0)
        return wanted // 2, wanted - wanted // 2

    def extra_repr(self) -> str:
        """What the padding is for."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, dilation={self.dilation}"
