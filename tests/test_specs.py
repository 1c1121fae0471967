import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vfconvert.errors import IllegalSpecError
from vfconvert.specs import ConvGeometry, Crop, VersatileSpec, Window

GEOMETRY = ConvGeometry(in_channels=24, out_channels=10, kernel_size=(3, 3))
FULL, CENTRE = Crop(0, 3, 0, 3), Crop(1, 2, 1, 2)


def _windows(windows, stride):
    return VersatileSpec(crops=(FULL,), levels=((0,),), windows=windows, channel_stride=stride)


def test_geometry_of_reads_every_attribute():
    conv = nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 2), 2, False, "reflect")
    assert ConvGeometry.of(conv) == ConvGeometry(
        in_channels=4,
        out_channels=6,
        kernel_size=(3, 2),
        stride=(2, 1),
        padding=(1, 0),
        dilation=(1, 2),
        groups=2,
        padding_mode="reflect",
        bias=False,
    )
    assert ConvGeometry.of(nn.Conv2d(1, 1, 3, padding="same")).padding == "same"


def test_geometry_counts_by_group():
    geometry = ConvGeometry(in_channels=12, out_channels=6, kernel_size=(3, 5), groups=3)
    assert (geometry.group_inputs, geometry.group_outputs, geometry.weight_numbers) == (4, 2, 6 * 4 * 15)


@pytest.mark.parametrize("padding", ["same", "valid", (2, 1)], ids=str)
def test_padding_before_is_what_conv2d_pads(padding):
    conv = nn.Conv2d(1, 1, (4, 3), padding=padding, dilation=(1, 2), padding_mode="replicate")
    x = torch.randn(1, 1, 6, 6)
    padded = F.pad(x, ConvGeometry.of(conv).padding_before, mode="replicate")
    assert torch.equal(F.conv2d(padded, conv.weight, conv.bias, dilation=(1, 2)), conv(x))


def test_windows_are_the_papers_example():
    # Section 3.2: 24 channels, two windows, stride 2 (counted from 0 here): channels 1-22 and 3-24.
    assert _windows(2, 2).channel_windows(24) == (Window(0, 22), Window(2, 24))
    assert _windows(1, 0).channel_windows(24) == (Window(0, 24),)


def test_windows_of_every_legal_stride_read_every_channel():
    for channels in range(2, 25):
        for windows in range(2, min(channels, 4) + 1):
            for stride in range(1, channels // windows + 1):
                found = _windows(windows, stride).channel_windows(channels)
                assert {c for window in found for c in range(window.start, window.stop)} == set(range(channels))
                assert len({window.width for window in found}) == 1


def test_primaries_round_up_within_each_group():
    spec = VersatileSpec(crops=(FULL, CENTRE), levels=((0,), (1,)), windows=2, channel_stride=1)
    assert spec.outputs_per_primary == 4
    assert spec.primaries(GEOMETRY) == 3
    assert spec.weight_numbers(GEOMETRY) == 3 * 24 * 9
    grouped = ConvGeometry(in_channels=48, out_channels=10, kernel_size=(3, 3), groups=2)
    assert spec.primaries(grouped) == 4


def test_group_convolution_is_recognised():
    assert _windows(2, 12).is_group_convolution(GEOMETRY)
    assert not _windows(2, 11).is_group_convolution(GEOMETRY)
    assert not _windows(1, 0).is_group_convolution(GEOMETRY)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (VersatileSpec(crops=(), levels=()), "at least one crop and one level"),
        (VersatileSpec(crops=(FULL,), levels=((0,), ())), "at least one crop and one level"),
        (VersatileSpec(crops=(Crop(0, 4, 0, 3),), levels=((0,),)), "crop 4x3 lies outside a kernel of 3x3"),
        (VersatileSpec(crops=(Crop(2, 2, 0, 3),), levels=((0,),)), "crop 0x3 lies outside"),
        (VersatileSpec(crops=(Crop(-1, 2, 0, 3),), levels=((0,),)), "lies outside"),
        (VersatileSpec(crops=(FULL,), levels=((0,), (1,))), "beyond the 1 that exist"),
        (VersatileSpec(crops=(FULL,), levels=((-1,),)), "beyond the 1 that exist"),
        (_windows(0, 0), "channel windows: got 0, expected at least 1"),
        (_windows(2, 0), r"channel stride: got 0, expected 1 to 12 \(24 channels, 2 windows\)"),
        (_windows(2, 13), "channel stride: got 13, expected 1 to 12"),
        (_windows(25, 1), "channel stride: got 1, expected 1 to 0"),
    ],
)
def test_check_refuses(spec, said):
    with pytest.raises(IllegalSpecError, match=said):
        spec.check(GEOMETRY)


def test_check_accepts_the_largest_stride():
    _windows(2, 12).check(GEOMETRY)
    _windows(24, 1).check(GEOMETRY)
    assert _windows(24, 1).channel_windows(24)[-1] == Window(23, 24)


def test_specs_are_frozen_and_hashable():
    with pytest.raises(dataclasses.FrozenInstanceError, match="windows"):
        _windows(2, 1).windows = 3
    assert hash(_windows(2, 1)) == hash(_windows(2, 1))


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (_windows(1, 0), "one full filter"),
        (_windows(2, 6), "2 windows, stride 6"),
        (VersatileSpec(crops=(FULL, CENTRE), levels=((0,), (1,))), "crops 3x3 1x1"),
        (
            VersatileSpec(crops=(FULL, CENTRE), levels=((0,), (1,)), windows=2, channel_stride=6),
            "crops 3x3 1x1; 2 windows, stride 6",
        ),
    ],
)
def test_specs_read_as_words(spec, text):
    assert str(spec) == text
