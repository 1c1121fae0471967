"""`VersatileConv2d` against its definition in loops, over random legal geometries."""

import copy

import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import nn

from tests.nn.strategies import Case, cases, geometries
from tests.references import assert_close_enough, versatile_convolution
from vfconvert.errors import IllegalSpecError
from vfconvert.nn import VersatileConv2d
from vfconvert.specs import ConvGeometry, Crop, VersatileSpec

# torch says this of plain Conv2d too.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths and odd dilation")


def _reference(case: Case, layer: VersatileConv2d, x: torch.Tensor) -> torch.Tensor:
    return versatile_convolution(x, layer.weight, layer.geometry, case.secondaries, layer.scale, layer.bias)


@settings(max_examples=150)
@given(cases())
def test_versatile_is_its_definition_with_gradients(case):
    layer, twin = case.layer, copy.deepcopy(case.layer)
    x, twin_x = case.x.clone().requires_grad_(), case.x.clone().requires_grad_()
    output, expected = layer(x), _reference(case, twin, twin_x)
    event(f"{len(layer.spec.levels)} levels, {layer.spec.windows} windows")
    assert_close_enough(output, expected)
    towards = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    output.backward(towards)
    expected.backward(towards)
    assert_close_enough(x.grad, twin_x.grad)
    for (name, parameter), other in zip(layer.named_parameters(), twin.parameters(), strict=True):
        assert parameter.grad is not None, name
        assert_close_enough(parameter.grad, other.grad, tolerance=1e-10)


@settings(max_examples=40)
@given(cases(), st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
def test_versatile_runs_in_every_dtype(case, dtype):
    layer = case.layer.to(dtype)
    x = case.x.to(dtype)
    output = layer(x)
    assert output.dtype == dtype
    assert layer.rows.dtype == torch.int64
    assert_close_enough(output, _reference(case, copy.deepcopy(layer).double(), x.double()))


@settings(max_examples=40)
@given(geometries(), st.integers(0, 3))
def test_one_full_filter_is_conv2d_to_the_bit(geometry, extra):
    kh, kw = geometry.kernel_size
    spec = VersatileSpec(crops=(Crop(0, kh, 0, kw),), levels=((0,),))
    layer = VersatileConv2d(geometry, spec)
    conv = nn.Conv2d(
        geometry.in_channels,
        geometry.out_channels,
        geometry.kernel_size,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        geometry.groups,
        geometry.bias,
        geometry.padding_mode,
    )
    layer.load_state_dict(conv.state_dict() | {"rows": layer.rows})
    assert ConvGeometry.of(conv) == geometry
    x = torch.randn(2, geometry.in_channels, 9 + extra, 9 + 2 * extra)
    assert torch.equal(layer(x), conv(x))
    assert torch.equal(layer(x[0]), conv(x[0]))  # unbatched


@settings(max_examples=40)
@given(cases())
def test_expanded_weight_is_the_weight_of_an_ordinary_convolution(case):
    layer, geometry = case.layer, case.layer.geometry
    conv = nn.Conv2d(
        geometry.in_channels,
        geometry.out_channels,
        geometry.kernel_size,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        geometry.groups,
        geometry.bias,
        geometry.padding_mode,
        dtype=torch.float64,
    )
    numbers = {"weight": layer.expanded_weight()} | ({} if layer.bias is None else {"bias": layer.bias})
    conv.load_state_dict(numbers)
    assert_close_enough(layer(case.x), conv(case.x))


def test_the_paper_spec_is_the_default():
    layer = VersatileConv2d(ConvGeometry(in_channels=3, out_channels=9, kernel_size=(5, 5)))
    assert [str(crop) for crop in layer.spec.crops] == ["5x5", "3x3", "1x1"]
    assert layer.weight.shape == (3, 3, 5, 5)
    assert layer.rows.tolist() == list(range(9))


def test_versatile_survives_a_state_dict_a_copy_and_the_meta_device():
    geometry = ConvGeometry(in_channels=8, out_channels=5, kernel_size=(3, 3))
    layer = VersatileConv2d(geometry, scale=True)
    layer.rows.copy_(layer.rows.flip(0))
    other = VersatileConv2d(geometry, scale=True)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(1, 8, 5, 5)
    assert torch.equal(other(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    with torch.device("meta"):
        assert VersatileConv2d(geometry)(torch.empty(1, 8, 5, 5)).shape == (1, 5, 3, 3)
    assert VersatileConv2d(geometry, device="meta")(torch.empty(1, 8, 5, 5, device="meta")).shape == (1, 5, 3, 3)


def test_versatile_refuses_an_illegal_spec():
    geometry = ConvGeometry(in_channels=4, out_channels=4, kernel_size=(1, 1))
    spec = VersatileSpec(crops=(Crop(0, 1, 0, 1),), levels=((0,),), windows=2, channel_stride=3)
    with pytest.raises(IllegalSpecError, match="channel stride: got 3, expected 1 to 2"):
        VersatileConv2d(geometry, spec)


def test_repr_names_geometry_and_spec():
    text = repr(VersatileConv2d(ConvGeometry(in_channels=3, out_channels=8, kernel_size=(3, 3))))
    assert text == "VersatileConv2d(3, 8, kernel_size=(3, 3), crops 3x3 1x1)"


@pytest.mark.parametrize("way", ["masks", "weight"])
@settings(max_examples=100)
@given(case=cases(), moved=st.booleans())
def test_ways_of_training_are_the_same_with_gradients(way, case, moved):
    layer, x = case.layer, case.x.clone().requires_grad_()
    if moved:  # windows lie on channels in another order
        channels = layer.geometry.group_inputs
        layer.order = torch.randperm(channels, generator=torch.Generator().manual_seed(channels))
    twin, twin_x = copy.deepcopy(layer), case.x.clone().requires_grad_()
    layer.compute_by(way)
    event(f"groups {layer.geometry.groups}")
    output, expected = layer(x), twin(twin_x)
    assert_close_enough(output, expected)
    towards = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    output.backward(towards)
    expected.backward(towards)
    assert_close_enough(x.grad, twin_x.grad)
    for parameter, other in zip(layer.parameters(), twin.parameters(), strict=True):
        assert_close_enough(parameter.grad, other.grad, tolerance=1e-10)
    layer.compute_by(None)
    assert torch.equal(layer(x), twin(x))


@pytest.mark.parametrize("way", ["masks", "weight"])
def test_meta_moved_outputs_are_seen(way):
    layer = VersatileConv2d(ConvGeometry.of(nn.Conv2d(4, 8, 3, padding=1)))
    x = torch.randn(2, 4, 6, 6)
    before = layer(x)
    layer.compute_by(way)
    torch.testing.assert_close(layer(x), before)
    layer.rows.copy_(layer.rows.roll(1))
    layer.compute_by(way)
    assert not torch.allclose(layer(x), before)


@pytest.mark.parametrize("way", ["masks", "weight"])
def test_a_layer_that_is_moved_or_loaded_computes_by_what_it_then_holds(way):
    layer = VersatileConv2d(ConvGeometry.of(nn.Conv2d(4, 8, 3, padding=1)), scale=True)
    other, x = copy.deepcopy(layer), torch.randn(2, 4, 6, 6)
    other.rows.copy_(layer.rows.roll(1))
    layer.compute_by(way)
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer(x), other(x))
    layer.compute_by(way)
    assert layer.double()(x.double()).dtype == torch.float64
    layer.compute_by(way)
    layer.rows.copy_(layer.rows.roll(1))
    assert torch.equal(layer.as_conv2d().weight, layer.expanded_weight())
    with pytest.raises(ValueError, match=r"^compute_by\(\): got 'mask', expected 'masks', 'weight' or None$"):
        layer.compute_by("mask")


def test_code_around_the_layer_reads_the_hyper_parameters_of_a_convolution():
    conv = nn.Conv2d(8, 12, (3, 5), stride=(2, 1), padding=(1, 2), dilation=2, groups=2, padding_mode="circular")
    layer = VersatileConv2d(ConvGeometry.of(conv))
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
        assert getattr(layer, name) == getattr(conv, name)
    assert layer.padding_mode == "circular"
    assert copy.deepcopy(layer).kernel_size == (3, 5)
    with pytest.raises(AttributeError, match="'VersatileConv2d' object has no attribute 'transposed_by'"):
        _ = layer.transposed_by
