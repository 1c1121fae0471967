import pytest

from vfconvert.ops.crops import CROP_FAMILIES, crops_and_levels, line_crops, spatial_levels, square_crops
from vfconvert.specs import ConvGeometry, Crop, VersatileSpec

SQUARES = {
    (1, 1): ["1x1"],
    (2, 2): ["2x2"],
    (3, 3): ["3x3", "1x1"],
    (4, 4): ["4x4", "2x2"],
    (5, 5): ["5x5", "3x3", "1x1"],
    (7, 7): ["7x7", "5x5", "3x3", "1x1"],
    (1, 7): ["1x7", "1x5", "1x3", "1x1"],
    (3, 5): ["3x5", "1x3", "1x1"],
    (2, 5): ["2x5", "2x3", "2x1"],
}


@pytest.mark.parametrize(("kernel", "expected"), SQUARES.items(), ids=lambda value: str(value))
def test_squares_are_the_papers_levels(kernel, expected):
    assert [str(crop) for crop in square_crops(kernel)] == expected
    assert spatial_levels(kernel) == len(expected)


@pytest.mark.parametrize("kernel", [(kh, kw) for kh in range(1, 8) for kw in range(1, 8)], ids=str)
def test_crops_of_every_kernel_are_legal_centred_and_distinct(kernel):
    for family in CROP_FAMILIES:
        crops, levels = crops_and_levels(kernel, family)
        VersatileSpec(crops=crops, levels=levels).check(ConvGeometry(in_channels=1, out_channels=1, kernel_size=kernel))
        assert levels[0] == (0,)
        assert crops[0] == Crop(0, kernel[0], 0, kernel[1])
        assert len(set(crops)) == len(crops)
        assert {index for level in levels for index in level} == set(range(len(crops)))
        for crop in crops:
            assert crop.top == kernel[0] - crop.bottom
            assert crop.left == kernel[1] - crop.right


def test_lines_are_the_central_row_and_column():
    assert line_crops((3, 3)) == (Crop(1, 2, 0, 3), Crop(0, 3, 1, 2))
    assert line_crops((4, 4)) == (Crop(1, 3, 0, 4), Crop(0, 4, 1, 3))
    assert line_crops((3, 5)) == (Crop(1, 2, 0, 5), Crop(0, 3, 2, 3))
    assert line_crops((1, 7)) == ()


def test_lines_stand_beside_the_square_of_every_level_but_the_first():
    crops, levels = crops_and_levels((5, 5), "lines")
    assert [str(crop) for crop in crops] == ["5x5", "3x3", "1x1", "1x5", "5x1"]
    assert levels == ((0,), (1, 3, 4), (2, 3, 4))
    assert crops_and_levels((1, 1), "lines") == crops_and_levels((1, 1), "squares")
