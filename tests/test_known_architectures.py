"""A few small architectures of torchvision and timm, by the benchmark that converts all of them."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.coverage_one import Outcome, judged, outcome_of, settle
from benchmarks.detectors import arguments_of, spread_scores
from tests.reporting.samples import FULL
from vfconvert.data.synthetic import noise_images
from vfconvert.errors import ParityError
from vfconvert.exporting import export_onnx
from vfconvert.loading.architectures import build_architecture
from vfconvert.nn import VersatileConv2d
from vfconvert.ops.crops import crops_and_levels
from vfconvert.reporting.report import LayerRow
from vfconvert.rewriting import replace_module
from vfconvert.specs import ConvGeometry, VersatileSpec
from vfconvert.verification import image_with_detections, verify_detections


@pytest.mark.parametrize(
    "name",
    [
        "torchvision:squeezenet1_1",
        "timm:test_byobnet",  # norms with activations inside
        "timm:test_efficientnet",
        "timm:test_nfnet",  # standardised weights, no norms
    ],
)
def test_architecture_is_converted_and_verified(name):
    found = outcome_of(name)
    assert (found.status, found.reason, found.form) == ("converted", "", "traced")
    assert found.share > 0.9
    assert found.parity is not None
    assert found.parity < 1e-4
    assert found.parameters[1] < found.parameters[0]


def test_a_detector_of_torchvision_is_written_and_compared(tmp_path):
    """Without a fit, which takes minutes: wide convolutions are versatile ones of random banks."""
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"  # of ssdlite rounding decides too much
    torch.manual_seed(0)
    model = build_architecture(f"torchvision:{name}", arguments_of("torchvision", name)).eval()
    convs = [(n, m) for n, m in model.named_modules() if type(m) is nn.Conv2d and m.groups == 1 and m.in_channels > 63]
    for layer, conv in convs[-4:]:
        crops, levels = crops_and_levels(conv.kernel_size)
        spec = VersatileSpec(crops=crops, levels=levels, windows=2, channel_stride=conv.in_channels // 2)
        replace_module(model, layer, VersatileConv2d(ConvGeometry.of(conv), spec))
    images = noise_images((3, 64, 64), 6, 1)
    settle(model, images)
    spread_scores(model, images)
    model.eval()
    example = image_with_detections(model, images)
    export_onnx(model, example, tmp_path / "a.onnx", metadata={}, varying=True)
    numbers = sum(tensor.numel() for tensor in model.parameters())
    assert (tmp_path / "a.onnx").stat().st_size < 4 * numbers + 700_000
    parity = verify_detections(tmp_path / "a.onnx", model, images, wanted=2)
    assert {each.output for each in parity.comparisons} == {"boxes", "scores", "labels"}
    assert parity.relative_error < 1e-4
    with torch.no_grad():
        next(model.parameters()).mul_(1.1)
    with pytest.raises(ParityError, match="write --format safetensors"):
        verify_detections(tmp_path / "a.onnx", model, images, wanted=2)


def test_dry_run_plans_and_writes_nothing():
    found = outcome_of("timm:test_resnet", dry_run=True)
    assert (found.status, found.share, found.parity) == ("planned", 1.0, None)


def test_quantizable_networks_are_refused_with_a_reason():
    found = outcome_of("torchvision:quantized_shufflenet_v2_x0_5")
    assert found.status == "refused"
    assert "is a network made for quantization" in found.reason


def test_networks_without_2d_convolutions_do_not_count():
    assert outcome_of("torchvision:r3d_18") == Outcome("no Conv2d")


def test_too_little_is_not_called_converted():
    def row(decision: str, code: str | None, weights: int) -> LayerRow:
        return LayerRow(name=f"{code}", decision=decision, code=code, shape="", weights_before=weights)

    rows = row("convert", None, 40), row("keep", "subclass", 60), row("keep", "depthwise", 1000)
    assert judged(replace(FULL, layers=rows)).status == "too little"
    assert judged(replace(FULL, layers=(*rows, row("convert", None, 20)))).status == "converted"
    assert judged(replace(FULL, layers=rows)).kept == ("subclass (60)",)


@torch.no_grad()
def test_settled_norms_remember_the_images():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
    nn.init.zeros_(model[1].weight)
    settle(model, 5 + torch.randn(16, 3, 12, 12))
    assert not model.training
    assert bool((model[1].weight > 0).all())
    assert model[0](5 + torch.randn(64, 3, 12, 12)).mean((0, 2, 3)) == pytest.approx(model[1].running_mean, abs=0.1)
