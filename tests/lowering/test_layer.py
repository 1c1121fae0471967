"""One layer lowered, against the trainable layer, over random legal geometries; and its products."""

import copy

import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.nn.strategies import cases
from tests.references import assert_close_enough
from vfconvert.analysis.graph import trace
from vfconvert.lowering.network import Lowered, lower
from vfconvert.nn import VersatileConv2d
from vfconvert.ops.blocks import VARIANTS, blocks_of, products
from vfconvert.specs import ConvGeometry, Crop, VersatileSpec

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths and odd dilation")


def lowered(layer: nn.Module, x: torch.Tensor, variant: str) -> Lowered:
    model = nn.Sequential(layer).eval()
    network = trace(model, x)
    assert network is not None
    return lower(model, network, {"0": variant})


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from(VARIANTS))
def test_lowered_is_the_trainable_layer(case, variant):
    layer = case.layer
    layer.order = torch.randperm(layer.geometry.group_inputs)
    made = lowered(layer, case.x, variant)
    event(f"{made.variants['0']}, groups {layer.geometry.groups > 1}")
    with torch.no_grad():
        expected = layer(case.x)
        assert_close_enough(made.model(case.x), expected, tolerance=1e-10)
        smaller = case.x[:1, :, :-1] if case.x.shape[2] > 3 and layer.geometry.padding_mode == "zeros" else case.x[:1]
        try:
            expected = layer(smaller)
        except RuntimeError:  # the kernel does not fit into it
            return
        assert_close_enough(made.model(smaller), expected, tolerance=1e-10)


def test_meta_another_bank_is_seen():
    layer = _layer(VersatileSpec(crops=(Crop(0, 3, 0, 3), Crop(1, 2, 1, 2)), levels=((0,), (1,))))
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    made = lowered(layer, x, "segments")
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.weight[0, 0, 1, 1] += 1e-6
    with pytest.raises(AssertionError, match="differs by"):
        assert_close_enough(made.model(x), other(x), tolerance=1e-10)


def _layer(spec: VersatileSpec, channels: int = 8, outputs: int = 8) -> VersatileConv2d:
    torch.manual_seed(0)
    geometry = ConvGeometry(in_channels=channels, out_channels=outputs, kernel_size=(3, 3), padding=(1, 1), bias=False)
    return VersatileConv2d(geometry, spec, dtype=torch.float64)


@pytest.mark.parametrize("windows", [2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_products_are_those_of_the_scheme(windows, stride):
    full = (Crop(0, 3, 0, 3),)
    spec = VersatileSpec(crops=full, levels=((0,),), windows=windows, channel_stride=stride)
    layer = _layer(spec, channels=16, outputs=12)
    primaries, positions = spec.primaries(layer.geometry), 6 * 6
    expected = {
        "segments": primaries * 16 * 9,
        "full": primaries * (16 + 2 * (windows - 1) * stride) * 9,
        "separate": 12 * (16 - (windows - 1) * stride) * 9,
    }
    blocks = blocks_of(layer.geometry, spec, layer.rows.tolist())
    x = torch.randn(1, 16, 6, 6, dtype=torch.float64)
    for variant, macs in expected.items():
        assert products(blocks, spec, 16, variant) == macs
        model = lowered(layer, x, variant).model
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(x)
        assert counter.get_total_flops() == 2 * macs * positions


def test_blocks_hold_every_output_once():
    spec = VersatileSpec(crops=(Crop(0, 3, 0, 3), Crop(1, 2, 1, 2)), levels=((0,), (1,)), windows=2, channel_stride=2)
    layer = _layer(spec, outputs=10)  # 3 primaries of 4: two outputs are dropped
    layer.rows.copy_(layer.rows[torch.randperm(10)])
    blocks = blocks_of(layer.geometry, spec, layer.rows.tolist())
    assert sorted(output for block in blocks for outputs in block.outputs for output in outputs) == list(range(10))
    assert {block.windows for block in blocks} == {(0, 1), (0,)}


def test_groups_of_different_structure_stay_plain():
    geometry = ConvGeometry(in_channels=8, out_channels=8, kernel_size=(3, 3), groups=2, bias=False)
    crops = (Crop(0, 3, 0, 3), Crop(1, 2, 1, 2), Crop(1, 2, 0, 3))
    layer = VersatileConv2d(geometry, VersatileSpec(crops=crops, levels=((0,), (1, 2))), dtype=torch.float64)
    layer.rows[-1] += 4  # the last output of the second group: the line, not the centre
    x = torch.randn(1, 8, 5, 5, dtype=torch.float64)
    made = lowered(layer, x, "segments")
    assert made.variants == {"0": "plain"}
    assert_close_enough(made.model(x), layer(x), tolerance=1e-10)
