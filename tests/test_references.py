"""Twins: the comparison that all tests share fails where it should, and the loops agree with torch on plain layers."""

import pytest
import torch
from torch import nn

from tests.references import Secondary, assert_close_enough, versatile_convolution
from vfconvert.specs import ConvGeometry, Crop, Window

EXPECTED = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def test_assert_close_enough_accepts_rounding():
    assert_close_enough(EXPECTED * (1 + 1e-6), EXPECTED)
    assert_close_enough(EXPECTED.numpy(), EXPECTED.double())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (EXPECTED * 1.001, "differs"),
        (EXPECTED + 0.001, "differs"),
        (EXPECTED.flip(1), "differs"),
        (-EXPECTED, "differs"),
        (torch.zeros_like(EXPECTED), "differs"),
        (EXPECTED.where(EXPECTED < 1, torch.nan), "not finite"),
        (EXPECTED[:, :, :1], "shape"),
        (EXPECTED.half() * 1.05, "differs"),
    ],
    ids=["scaled", "shifted", "permuted", "negated", "zero", "nan", "broadcastable", "half-scaled"],
)
def test_assert_close_enough_refuses(wrong, said):
    with pytest.raises(AssertionError, match=said):
        assert_close_enough(wrong, EXPECTED)


def test_assert_close_enough_wants_exact_zeros():
    with pytest.raises(AssertionError, match="differs"):
        assert_close_enough(torch.full((2,), 1e-30), torch.zeros(2))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_loops_are_conv2d_where_every_filter_is_full(mode):
    conv = nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1), groups=2, padding_mode=mode)
    conv = conv.double()
    x = torch.randn(2, 4, 7, 6, dtype=torch.float64)
    full = [Secondary(output, Crop(0, 3, 0, 2), Window(0, 2)) for output in range(6)]
    assert_close_enough(versatile_convolution(x, conv.weight, ConvGeometry.of(conv), full, None, conv.bias), conv(x))


def test_loops_by_hand():
    geometry = ConvGeometry(in_channels=2, out_channels=2, kernel_size=(3, 3), padding=(1, 1))
    bank = torch.arange(18.0, dtype=torch.float64).view(1, 2, 3, 3)
    x = torch.ones(1, 2, 2, 2, dtype=torch.float64)
    centre = [Secondary(0, Crop(1, 2, 1, 2), Window(0, 2)), Secondary(0, Crop(1, 2, 0, 3), Window(1, 2))]
    output = versatile_convolution(x, bank, geometry, centre)
    # 4 + 13 are the two centres; of the middle row 12, 13, 14 of channel 1 the left place sees 13 + 14.
    assert output.tolist() == [[[[17.0, 17.0], [17.0, 17.0]], [[27.0, 25.0], [27.0, 25.0]]]]
