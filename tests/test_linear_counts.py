"""The paper's VGG-16: 13 convolutions and the first Linear as a 7x7 convolution, of nested crops, counted by hand."""

import pytest

from vfconvert.specs import ConvGeometry
from vfconvert.wishes import Wish

# in, out, and half of in * out * 9: a 3x3 kernel and its 1x1 centre share each primary
CONVOLUTIONS = (
    (3, 64, 864),
    (64, 64, 18_432),
    (64, 128, 36_864),
    (128, 128, 73_728),
    (128, 256, 147_456),
    (256, 256, 294_912),
    (256, 256, 294_912),
    (256, 512, 589_824),
    (512, 512, 1_179_648),
    (512, 512, 1_179_648),
    (512, 512, 1_179_648),
    (512, 512, 1_179_648),
    (512, 512, 1_179_648),
)
ORDINARY = 14_710_464 + 102_760_448
VERSATILE = 7_355_232 + 25_690_112  # 4096 / 4 = 1,024 primaries of 512 * 7 * 7 = 25,088 numbers


def weights(crops: bool) -> int:
    kinds = [ConvGeometry(in_channels=i, out_channels=o, kernel_size=(3, 3)) for i, o, _ in CONVOLUTIONS]
    kinds.append(ConvGeometry(in_channels=512, out_channels=4096, kernel_size=(7, 7)))
    wish = Wish(spatial=crops, channel=not crops, windows=2)
    return sum(wish.spec_of(kind).weight_numbers(kind) for kind in kinds)


def test_first_linear_of_vgg16_has_four_levels() -> None:
    geometry = ConvGeometry(in_channels=512, out_channels=4096, kernel_size=(7, 7))
    spec = Wish().spec_of(geometry)
    assert [str(crop) for crop in spec.crops] == ["7x7", "5x5", "3x3", "1x1"]
    assert spec.primaries(geometry) == 1024
    assert spec.weight_numbers(geometry) == 25_690_112


def test_weights_of_vgg16_are_those_of_the_paper() -> None:
    assert sum(half for *_, half in CONVOLUTIONS) == 7_355_232
    assert sum(i * o * 9 for i, o, _ in CONVOLUTIONS) + 512 * 49 * 4096 == ORDINARY
    assert weights(crops=True) == VERSATILE
    assert weights(crops=True) / ORDINARY == pytest.approx(0.2813, abs=1e-4)


def test_meta_windows_have_other_counts_than_crops() -> None:
    assert weights(crops=False) != VERSATILE
