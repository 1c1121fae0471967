from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn

from tests.analysis.nets import PlainNet, RepeatedNet
from vfconvert.analysis.counting import count_macs
from vfconvert.analysis.graph import trace
from vfconvert.analysis.profile import profile
from vfconvert.analysis.totals import measure, ordinary_macs, planned, versatile_macs
from vfconvert.lowering.network import lower
from vfconvert.nn import VersatileConv2d
from vfconvert.ops.crops import crops_and_levels
from vfconvert.planning import Convert, Plan
from vfconvert.rewriting import rewrite
from vfconvert.specs import ConvGeometry, VersatileSpec

MIB = 2**20


def _spec(kernel, family="squares", windows=1, stride=0, *, spatial=True):
    crops, levels = crops_and_levels(kernel, family)
    if not spatial:
        crops, levels = crops[:1], ((0,),)
    return VersatileSpec(crops=crops, levels=levels, windows=windows, channel_stride=stride)


GEOMETRY = ConvGeometry(in_channels=4, out_channels=4, kernel_size=(3, 3))


@pytest.mark.parametrize(
    ("spec", "rows", "expected"),
    [
        (_spec((3, 3), spatial=False), None, 4 * 9 * 4),  # four full filters
        (_spec((3, 3)), None, (2 * 9 + 2 * 1) * 4),
        (_spec((3, 3), windows=2, stride=1), None, (2 * 9 + 2 * 1) * 3),  # one primary, windows of 3
        (_spec((3, 3), windows=2, stride=2), None, (2 * 9 + 2 * 1) * 2),
        (_spec((3, 3), "lines"), None, (2 * 9 + 2 * 1) * 4),  # by default a level's first crop
        (_spec((3, 3), "lines"), [0, 1, 4, 7], (2 * 9 + 2 * 3) * 4),  # rows: crop 0 0, then 1x3 and 3x1
        (_spec((3, 3), "lines"), torch.tensor([6, 3, 0, 1]), (2 * 9 + 3 + 1) * 4),
    ],
    ids=["full", "squares", "both", "both-half", "lines-default", "lines-fitted", "lines-tensor"],
)
def test_versatile_macs_are_those_made_by_hand(spec, rows, expected):
    assert versatile_macs(GEOMETRY, spec, 1, rows=rows) == expected
    assert versatile_macs(GEOMETRY, spec, 50, rows=rows) == 50 * expected


def test_versatile_macs_of_groups_and_a_surplus():
    geometry = ConvGeometry(in_channels=6, out_channels=6, kernel_size=(5, 5), groups=2)
    # Every group: 3 outputs of 1 primary at 5x5, 3x3 and 1x1, of 3 channels each.
    assert versatile_macs(geometry, _spec((5, 5)), 7) == 7 * 2 * (25 + 9 + 1) * 3
    # 4 outputs of 2 primaries: the 1x1 falls out.
    geometry = ConvGeometry(in_channels=1, out_channels=4, kernel_size=(5, 5))
    assert versatile_macs(geometry, _spec((5, 5)), 1) == 2 * 25 + 2 * 9


def test_measure_of_an_ordinary_network_has_one_count():
    totals = measure(PlainNet(), torch.randn(2, 3, 6, 6))
    assert totals.macs_method == totals.macs_executed == 15712
    assert totals.flops_method == totals.flops_executed == 31424
    assert totals.numbers.parameters == 330
    assert totals.uncounted == {}


def test_ordinary_macs_are_those_of_the_operators():
    model, x = RepeatedNet(), torch.randn(3, 2, 16, 16)
    (conv, unused), count = profile(model, x).layers, count_macs(model, x)
    assert ordinary_macs(conv) == count.by_module["conv"] == 3 * 3024
    assert ordinary_macs(unused) == 0


def test_measure_of_a_converted_network_follows_its_rows():
    layer = VersatileConv2d(GEOMETRY, _spec((3, 3), "lines"))
    x = torch.randn(1, 4, 7, 7)
    totals = measure(layer, x)
    assert totals.macs_executed == 25 * 4 * 9 * 4
    assert totals.macs_method == 25 * (2 * 9 + 2 * 1) * 4
    layer.rows.copy_(torch.tensor([0, 1, 4, 7]))
    totals = measure(layer, x)
    assert totals.macs_executed == 25 * 4 * 9 * 4
    assert totals.macs_method == 25 * (2 * 9 + 2 * 3) * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_planned_totals_are_those_of_the_rewritten_network(dtype):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 12, 3, groups=2, bias=False),
        nn.Conv2d(12, 5, 1),
    ).to(dtype)
    x = torch.randn(2, 3, 9, 9, dtype=dtype)
    specs = {
        "0": _spec((5, 5), "lines"),
        "2": _spec((3, 3), windows=2, stride=1),
        "3": _spec((1, 1), windows=3, stride=2),
    }
    plan = Plan(
        decisions=tuple(
            Convert(
                layer=name,
                geometry=ConvGeometry.of(model.get_submodule(name)),
                spec=spec,
                norm="1" if name == "0" else None,
            )
            for name, spec in specs.items()
        )
    )
    before = measure(model, x)
    after = planned(model, before, profile(model, x), plan.converted)
    student, network = rewrite(model, plan), trace(model, x)
    assert after == replace(measure(student, x), macs_executed=count_macs(lower(student, network).model, x).total)
    assert after.macs_method < before.macs_method
    assert after.macs_executed < before.macs_executed
    assert after.numbers.parameters < before.numbers.parameters


@pytest.fixture(scope="module")
def resnet50():
    """On the meta device, where shapes and counts are all there is: model, example and totals."""
    with torch.device("meta"):
        model = torchvision.models.resnet50(weights=None)
    example = torch.empty(1, 3, 224, 224, device="meta")
    return model, profile(model, example), measure(model, example)


def _resnet50_totals(resnet50, *, windows, stride):
    """Every convolution converted, the stem too, each with a BatchNorm behind it: the classifier is no Conv2d."""
    model, layers, before = resnet50
    conversions = []
    for layer in layers.layers:
        stride_here = stride(layer.geometry.in_channels) if windows > 1 else 0
        conversions.append(
            Convert(
                layer=layer.name,
                geometry=layer.geometry,
                spec=_spec(layer.geometry.kernel_size, windows=windows, stride=stride_here),
                norm="the one behind it",
            )
        )
    return planned(model, before, layers, conversions)


# Published arithmetic. The conventions that reproduce it to the last digit given:
# * numbers are the weights of all convolutions and of the classifier, no biases, nothing of the norms; MiB = 2^20
#   bytes at 4 bytes each, M and G are 10^6 and 10^9;
# * MACs are the products of those weights at 224x224, no bias, norm or pooling, every secondary filter by the area of
#   its crop times the width of its window, so no sums are shared;
# * v1 takes the squares on every kernel larger than 1x1, the 7x7 stem (4 levels) too; 1x1 layers have one level and
#   stay as they are. v2 adds two windows on every convolution, so also on the 1x1 and on the stem's 3 channels (where
#   the only legal stride is 1).
# * The published 3.0 GMAC of v2 says nothing of the stride: it is what strides from C/21 to C/13 round to (a constant
#   stride of 9 to 14 as well). The default C/4 gives 2.40, the smallest stride 3.17 and C/2 1.61.


def test_resnet50_before(resnet50):
    _, _, before = resnet50
    assert before.numbers.layer_weights == 25_502_912
    assert before.numbers.parameters == 25_557_032
    assert before.macs_method == before.macs_executed == 4_089_184_256


def test_resnet50_v1_is_the_published_arithmetic(resnet50):
    after = _resnet50_totals(resnet50, windows=1, stride=None)
    assert after.numbers.layer_weights == 19_837_232
    assert after.macs_method == 3_199_664_128
    assert f"{after.numbers.layer_weights / 1e6:.2f}" == "19.84"
    assert f"{4 * after.numbers.layer_weights / MIB:.2f}" == "75.67"
    assert f"{after.macs_method / 1e9:.2f}" == "3.20"
    assert after.macs_executed == after.macs_method  # nothing but crops: no window shares a sum


@pytest.mark.parametrize(
    ("stride", "gmacs"),
    [
        (lambda channels: max(1, channels // 16), "2.99"),
        (lambda channels: max(1, channels // 20), "3.03"),
        (lambda channels: max(1, channels // 14), "2.96"),
        (lambda channels: min(12, channels // 2), "2.99"),
        (lambda channels: 1, "3.17"),
        (lambda channels: max(1, channels // 4), "2.40"),
        (lambda channels: channels // 2, "1.61"),
    ],
    ids=["C/16", "C/20", "C/14", "12", "1", "C/4", "C/2"],
)
def test_resnet50_v2_is_the_published_arithmetic(resnet50, stride, gmacs):
    after = _resnet50_totals(resnet50, windows=2, stride=stride)
    assert after.numbers.layer_weights == 10_942_616
    assert f"{after.numbers.layer_weights / 1e6:.2f}" == "10.94"
    assert f"{4 * after.numbers.layer_weights / MIB:.2f}" == "41.74"
    assert f"{after.macs_method / 1e9:.2f}" == gmacs


def test_resnet50_v2_published_macs_lie_within_the_strides(resnet50):
    found = []
    for divisor in range(10, 26):
        after = _resnet50_totals(resnet50, windows=2, stride=lambda channels, d=divisor: max(1, channels // d))
        if f"{after.macs_method / 1e9:.1f}" == "3.0":
            found.append(divisor)
    assert found == list(range(13, 22))
