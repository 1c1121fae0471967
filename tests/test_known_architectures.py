"""A few small architectures of torchvision and timm, by the benchmark that converts all of them."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.coverage_one import Outcome, judged, outcome_of, settle
from tests.reporting.samples import FULL
from vfconvert.reporting.report import LayerRow


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
