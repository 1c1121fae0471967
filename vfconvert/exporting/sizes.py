"""Whether a network takes other heights and widths than its example's, asked before a file promises it."""

from __future__ import annotations

from torch import Tensor, nn

from vfconvert.analysis.forward import run_once
from vfconvert.errors import ExportError, InputShapeError


def check_other_sizes(model: nn.Module, example: Tensor) -> None:
    """Raise `ExportError` where the network takes the size of `example` `(B, C, H, W)` alone.

    Such a network is traced as if it took any size, and the file would fail when it runs.
    """
    height, width = example.shape[2:]
    try:
        run_once(model, example.new_zeros(1, example.shape[1], height + 32, width + 64))
    except InputShapeError as error:
        raise ExportError(
            f"the network takes {height}x{width} but not {height + 32}x{width + 64}; leave out --dynamic-size"
        ) from error
