"""Streamed moments against one-piece covariances, and unfolded inputs against the convolution itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.nn.strategies import geometries
from tests.references import assert_close_enough
from vfconvert.ops.moments import MomentSum, patches
from vfconvert.specs import ConvGeometry


@pytest.mark.parametrize("inputs", [7, 257, 1100], ids=["one strip", "two, of one a column", "four"])
def test_moments_of_batches_equal_those_of_the_whole(inputs: int) -> None:
    x, t = torch.randn(300, inputs) * 2 + 50, torch.randn(300, 3) - 20
    total = MomentSum(inputs, 3)
    for at in range(0, 300, 64):
        total.add(x[at : at + 64], t[at : at + 64])
    found = total.result()
    joint = torch.cat([x, t], 1).double().T.cov(correction=0)
    assert_close_enough(found.covariance, joint[:inputs, :inputs], tolerance=1e-5)
    assert_close_enough(found.cross, joint[:inputs, inputs:], tolerance=1e-5)
    assert_close_enough(found.target_variance, joint.diagonal()[inputs:], tolerance=1e-5)
    assert_close_enough(found.input_mean, x.double().mean(0), tolerance=1e-6)
    assert_close_enough(found.target_mean, t.double().mean(0), tolerance=1e-6)
    assert found.count == 300


def test_moments_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        MomentSum(2, 2).result()
    total = MomentSum(2, 2)
    total.add(torch.randn(4, 2), torch.randn(4, 2))
    total.result()
    with pytest.raises(ValueError, match="taken twice"):
        total.result()


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(max_examples=60)
@given(geometry=geometries(), seed=st.integers(0, 99))
def test_patches_times_filters_are_the_convolution(geometry: ConvGeometry, seed: int) -> None:
    torch.manual_seed(seed)
    conv = nn.Conv2d(
        geometry.in_channels,
        geometry.out_channels,
        geometry.kernel_size,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        geometry.groups,
        bias=False,
        padding_mode=geometry.padding_mode,
        dtype=torch.float64,
    )
    x = torch.randn(2, geometry.in_channels, 11, 12, dtype=torch.float64)
    with torch.no_grad():
        y = conv(x)
    rows, columns = torch.meshgrid(torch.arange(y.shape[2]), torch.arange(y.shape[3]), indexing="ij")
    chosen = torch.randperm(rows.numel())[:5]
    rows, columns = rows.flatten()[chosen], columns.flatten()[chosen]
    unfolded = patches(x, geometry, rows, columns)  # (B, n, C, kh, kw)
    filters = conv.weight.detach().unflatten(0, (geometry.groups, -1))
    grouped = unfolded.unflatten(2, (geometry.groups, -1))
    products = torch.einsum("bngcij,gocij->bgon", grouped, filters).flatten(1, 2)
    assert_close_enough(products, y[:, :, rows, columns])
