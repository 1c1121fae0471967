"""The wish turned into a spec per layer, its illegal numbers, and the errors of a plan with nothing in it."""

import pytest
import torch
from torch import nn

from tests.test_eligibility import plan_of
from vfconvert.errors import IllegalSpecError, NoConvolutionError, NothingEligibleError, SelectionError
from vfconvert.planning import Wish, no_gain
from vfconvert.specs import ConvGeometry


def geometry(inputs: int, kernel: int = 3, groups: int = 1) -> ConvGeometry:
    return ConvGeometry(in_channels=inputs, out_channels=8, kernel_size=(kernel, kernel), groups=groups)


@pytest.mark.parametrize(
    ("stride", "channels", "expected"),
    [(0.25, 64, 16), (0.25, 6, 1), (0.5, 64, 32), (0.25, 3, 1), (12, 64, 12), (40, 64, 0), (0.25, 1, 0)],
    ids=str,
)
def test_channel_stride_of_a_layer(stride: int | float, channels: int, expected: int) -> None:
    assert Wish(channel=True, channel_stride=stride).stride_of(channels) == expected


def test_layer_that_takes_no_window_is_only_cropped() -> None:
    spec = Wish(channel=True, channel_stride=40).spec_of(geometry(64))
    assert (len(spec.crops), spec.windows) == (2, 1)


def test_windows_count_within_a_group() -> None:
    assert Wish(channel=True).spec_of(geometry(64, groups=4)).channel_stride == 4


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"windows": 1}, "--windows: got 1, expected at least 2"),
        ({"channel_stride": 0}, "--channel-stride: got 0 channels, expected at least 1"),
        ({"channel_stride": 0.6}, "got 0.6 of the channels, expected above 0 and at most 1/2 with 2 windows"),
        ({"channel_stride": -0.1}, "got -0.1 of the channels"),
        ({"windows": 4, "channel_stride": 0.3}, "at most 1/4 with 4 windows"),
        ({"crops": "circles"}, "--crops: got 'circles', expected one of squares, lines"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_wish_refuses_numbers_no_layer_can_have(wish: dict[str, object], message: str) -> None:
    with pytest.raises(IllegalSpecError, match=message):
        Wish(channel=True, **wish)  # type: ignore[arg-type]


def test_stride_that_fits_no_layer_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)).eval()
    with pytest.raises(IllegalSpecError, match=r"fits no layer: the widest filter has 8 channels, .* at most 4"):
        plan_of(model, Wish(channel=True, channel_stride=5))


def test_network_without_convolution_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2)).eval()
    with pytest.raises(NoConvolutionError, match="Sequential has no Conv2d layer"):
        plan_of(model)


def test_network_with_nothing_eligible_is_refused_with_the_reasons() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)).eval()
    with pytest.raises(NothingEligibleError, match=r"none of the 3 .*nothing-to-share: 2, first: 1"):
        plan_of(model)


def test_plan_is_the_same_for_the_same_network() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert plan_of(model) == plan_of(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_glob_that_matches_nothing_is_refused_with_the_nearest_name() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)).eval()
    with pytest.raises(SelectionError, match=r"no Conv2d layer matches .layr\.1."):
        plan_of(model, exclude=["layr.1"])


def test_filter_too_large_to_fit_is_kept() -> None:
    geometry = ConvGeometry(in_channels=1024, out_channels=64, kernel_size=(9, 9))
    wish = Wish()
    reason = no_gain(geometry, wish.spec_of(geometry), channel=wish.channel, norm=True)
    assert reason == ("too-large", "a filter of 82,944 weights; up to 65,536 can be fitted")


def test_scales_biases_and_rows_count_against_the_saving() -> None:
    tiny = ConvGeometry(in_channels=16, out_channels=32, kernel_size=(1, 1), groups=8, bias=False)
    wish = Wish(spatial=False, channel=True)
    assert wish.spec_of(tiny).weight_numbers(tiny) < tiny.weight_numbers
    reason = no_gain(tiny, wish.spec_of(tiny), channel=wish.channel, norm=False)
    assert reason is not None
    assert reason[0] == "would-not-shrink"
