"""Factors of matrices that are, are nearly, and are not positive definite."""

import pytest
import torch

from tests.references import assert_close_enough
from vfconvert.errors import FitError
from vfconvert.ops.cholesky import cholesky


def test_factor_of_a_positive_definite_matrix_is_torchs() -> None:
    root = torch.randn(6, 6, dtype=torch.float64)
    matrix = root @ root.T + torch.eye(6, dtype=torch.float64)
    assert torch.equal(cholesky(matrix), torch.linalg.cholesky(matrix))


def test_factor_of_a_singular_matrix_is_near_it() -> None:
    column = torch.randn(40, 1)
    matrix = column @ column.T
    matrix.diagonal().sub_(1e-6)
    factor = cholesky(matrix)
    assert_close_enough(factor @ factor.T, matrix, tolerance=1e-3)


def test_factor_of_an_indefinite_matrix_is_refused() -> None:
    with pytest.raises(FitError, match="no usable covariance"):
        cholesky(torch.diag(torch.tensor([5.0, 5.0, -1.0])))
