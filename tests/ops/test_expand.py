"""The masked copies of a bank, the rows that address them, and the paper's order of rows."""

import pytest
import torch

from tests.references import assert_close_enough, paper_order
from vfconvert.ops.crops import crops_and_levels
from vfconvert.ops.expand import default_rows, expand, masked_bank, row_of
from vfconvert.specs import ConvGeometry, Crop, VersatileSpec, Window


def _spec(kernel=(3, 3), family="squares", windows=1, stride=0, **fields):
    crops, levels = crops_and_levels(kernel, family)
    return VersatileSpec(crops=crops, levels=levels, windows=windows, channel_stride=stride, **fields)


def test_masked_bank_keeps_crop_and_window_and_nothing_else():
    bank = torch.arange(1.0, 1 + 2 * 4 * 3 * 3).view(2, 4, 3, 3)
    masked = masked_bank(bank, Crop(1, 3, 0, 1), Window(2, 3))
    mask = torch.zeros(4, 3, 3)
    mask[2, 1:, 0] = 1
    assert torch.equal(masked, bank * mask)


def test_masked_bank_is_the_bank_where_nothing_is_cut():
    bank = torch.randn(2, 4, 3, 3)
    assert masked_bank(bank, Crop(0, 3, 0, 3), Window(0, 4)) is bank


def test_default_rows_are_slot_after_slot():
    spec = _spec(windows=2, stride=1)  # crops 3x3, 1x1 by windows 0, 1; 7 outputs of 2 primaries
    geometry = ConvGeometry(in_channels=4, out_channels=7, kernel_size=(3, 3))
    assert default_rows(geometry, spec).tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_default_rows_stay_within_their_group():
    geometry = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 3), groups=2)
    spec = _spec()  # 2 primaries for each group's 3 outputs: rows 0-3 are the full ones, 4-7 the centres
    assert spec.primaries(geometry) == 4
    assert default_rows(geometry, spec).tolist() == [0, 1, 4, 2, 3, 6]


def test_default_rows_take_the_first_crop_of_a_level():
    geometry = ConvGeometry(in_channels=1, out_channels=4, kernel_size=(3, 3))
    assert default_rows(geometry, _spec(family="lines")).tolist() == [0, 1, 2, 3]


def test_default_rows_take_the_whole_filter_for_the_first_window():
    geometry = ConvGeometry(in_channels=4, out_channels=8, kernel_size=(3, 3))
    spec = _spec(windows=2, stride=1, whole_window=True)  # 2 primaries; windows 0, 1, whole under each crop
    assert default_rows(geometry, spec).tolist() == [4, 5, 2, 3, 10, 11, 8, 9]


def test_default_rows_of_more_primaries_than_needed_use_fewer_slots():
    geometry = ConvGeometry(in_channels=4, out_channels=8, kernel_size=(3, 3), groups=2)
    rows = default_rows(geometry, _spec(group_primaries=3))  # 6 primaries: of a group's 4 outputs one is a centre
    assert rows.tolist() == [0, 1, 2, 6, 3, 4, 5, 9]
    assert default_rows(geometry, _spec(group_primaries=4)).tolist() == list(range(8))


@pytest.mark.parametrize("whole", [False, True], ids=["windows", "whole besides"])
def test_row_of_counts_primary_then_window_then_crop(whole):
    spec = _spec(windows=2, stride=1, whole_window=whole)
    rows = [
        row_of(spec, 3, crop=crop, window=window, primary=primary)
        for crop in range(2)
        for window in range(spec.window_choices)
        for primary in range(3)
    ]
    assert rows == list(range(18 if whole else 12))


@pytest.mark.parametrize("family", ["squares", "lines"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("fields", [{}, {"group_primaries": 4, "whole_window": True}], ids=["fewest", "more and whole"])
def test_expand_places_every_secondary_filter(family, groups, fields):
    geometry = ConvGeometry(in_channels=6 * groups, out_channels=5 * groups, kernel_size=(5, 4), groups=groups)
    spec = _spec((5, 4), family, windows=2, stride=2, **fields)
    bank, scale = torch.randn(spec.primaries(geometry), 6, 5, 4), torch.randn(5 * groups)
    weight = expand(bank, spec, default_rows(geometry, spec), scale)
    expected = torch.zeros(5 * groups, 6, 5, 4)
    for output, (secondary, factor) in enumerate(zip(paper_order(geometry, spec), scale, strict=True)):
        crop, window = secondary.crop, secondary.window
        place = slice(window.start, window.stop), slice(crop.top, crop.bottom), slice(crop.left, crop.right)
        expected[output][place] = factor * bank[secondary.primary][place]
    assert_close_enough(weight, expected)
    assert_close_enough(expand(bank, spec, default_rows(geometry, spec)) * scale.view(-1, 1, 1, 1), expected)


def test_every_primary_serves_an_output_and_no_secondary_serves_two():
    for outputs in range(1, 30):
        geometry = ConvGeometry(in_channels=4, out_channels=outputs, kernel_size=(5, 5))
        spec = _spec((5, 5), windows=2, stride=1)
        rows = default_rows(geometry, spec)
        assert len(rows.unique()) == len(rows) == outputs
        assert {int(row) % spec.primaries(geometry) for row in rows} == set(range(spec.primaries(geometry)))
