"""Cholesky factors of covariances, which rounding can leave a little short of positive definite."""

from __future__ import annotations

import torch
from torch import Tensor

from vfconvert.errors import FitError

_FIRST_SHIFT, _TRIES = 1e-6, 6  # of the mean diagonal; ten times more at each try


def cholesky(matrix: Tensor) -> Tensor:
    """The lower factor of `matrix` `(D, D)`, its diagonal raised by as little as makes it positive definite.

    Raises `FitError` where even a tenth of the mean diagonal does not.
    """
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(matrix)
    shift = _FIRST_SHIFT * matrix.diagonal().mean()
    for _ in range(_TRIES):
        if int(failed) == 0:
            return factor
        raised = matrix.clone()
        raised.diagonal().add_(shift)
        factor, failed = torch.linalg.cholesky_ex(raised)
        shift = 10 * shift
    if int(failed) == 0:
        return factor
    raise FitError("a layer's inputs have no usable covariance on the calibration images: give other images")
