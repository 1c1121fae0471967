"""Kinds of networks that users have, each through the product's own door to a verified ONNX file, or refused."""

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import timm.layers as timm
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.cli.conftest import write_images
from tests.cli.test_training_detectors import Regions
from tests.detectors import Places
from vfconvert.errors import ExportError, NothingEligibleError, ParityError
from vfconvert.options import ConversionOptions
from vfconvert.pipeline import convert
from vfconvert.reporting.report import ConversionReport

SIDE = 12


class Door:
    """Converts a network from a file, with a folder of images, to a verified ONNX file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        write_images(folder / "images", 30, 0)

    def __call__(self, model: nn.Module, **options: object) -> ConversionReport:
        torch.save(model.state_dict() if "arch" in options else model, self._folder / "m.pt")
        given: dict[str, object] = {
            "model": self._folder / "m.pt",
            "output": self._folder / "m.onnx",
            "data": self._folder / "images",
            "spatial": True,
            "reconstruct": False,
            "measure": False,
            "trust_pickle": True,
        }
        report = convert(ConversionOptions(**(given | options)))  # type: ignore[arg-type]
        assert report is not None
        assert report.parity is not None
        assert report.parity.relative_error < 1e-4
        (written,) = report.artefacts
        assert Path(written.path).parent == self._folder
        assert Path(written.path).stat().st_size == written.bytes
        return report


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def decisions(report: ConversionReport) -> dict[str, str]:
    """Every layer's name, and "convert" or the code for which it is kept."""
    return {row.name: row.code or row.decision for row in report.layers}


def network(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_grouped_convolutions_are_converted(door):
    assert decisions(door(network(nn.Conv2d(16, 32, 3, groups=2)), channel=True)) == {"0": "first", "2": "convert"}


def test_depthwise_convolutions_are_refused_with_a_reason(door):
    model = network(nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 16, 3))
    report = door(model)
    assert decisions(report) == {"0": "first", "2": "depthwise", "3": "convert"}
    assert report.layers[1].reason == "each of the 16 groups has one output, so no two share a filter"
    with pytest.raises(NothingEligibleError, match=re.escape("(first: 1, depthwise: 1)")):
        door(model[:3])


@pytest.mark.parametrize("kind", [timm.StdConv2d, timm.ScaledStdConv2d])
def test_weight_standardised_convolutions_are_converted(door, kind):
    report = door(network(kind(16, 32, 3)))
    assert decisions(report) == {"0": "first", "2": "convert"}
    assert any(
        text.startswith("plain layers that compute the same stand in for 1 layer of") for text in report.warnings
    )


@pytest.mark.parametrize("kind", [timm.Conv2dSame, timm.StdConv2dSame])
def test_same_padding_convolutions_are_converted(door, kind):
    report = door(network(kind(16, 32, 3, stride=2)), dynamic_size=True)
    assert decisions(report) == {"0": "first", "2.conv": "convert"}


def test_norms_with_an_activation_inside_take_the_scales(door):
    layers = nn.Conv2d(16, 32, 3, bias=False), timm.BatchNormAct2d(32)
    plain, apart = door(network(*layers)), door(network(layers[0], nn.BatchNorm2d(32), nn.ReLU()))
    assert plain.after.parameters == apart.after.parameters  # no scale and bias of the layer's own
    assert decisions(plain) == {"0": "first", "2": "convert"}


def parametrized() -> nn.Module:
    return network(parametrizations.weight_norm(nn.Conv2d(16, 32, 3)))


def test_parametrized_weights_are_converted(door):
    report = door(parametrized(), arch=f"{__file__}:parametrized")
    assert decisions(report) == {"0": "first", "2": "convert"}
    assert report.before.parameters == 3 * 16 * 9 + 16 + (16 * 32 * 9 + 32) + 32  # of the original: with magnitudes


def test_subclasses_with_a_way_of_their_own_are_refused_with_a_reason(door):
    report = door(network(Rectified(16, 16, 3), nn.Conv2d(16, 16, 3)))
    assert decisions(report) == {"0": "first", "2": "subclass", "3": "convert"}
    assert "forward is not seen to be the same" in str(report.layers[1].reason)


class Rectified(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def test_shared_modules_are_kept_with_a_reason(door):
    shared = nn.Conv2d(16, 16, 3, padding=1)
    report = door(network(shared, nn.ReLU(), shared, nn.Conv2d(16, 16, 3)))
    assert decisions(report) == {"0": "first", "2": "shared", "5": "convert"}
    assert "the same module is also 4" in str(report.layers[1].reason)


class Collections(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.listed = nn.ModuleList([nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)])
        self.named = nn.ModuleDict({"deep": nn.ModuleList([nn.Conv2d(16, 16, 3)])})

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.listed, *self.named["deep"]):
            x = layer(x).relu()
        return x.mean((2, 3))


def test_modules_in_lists_and_dicts_are_converted(door):
    expected = {"listed.0": "first", "listed.1": "convert", "named.deep.0": "convert"}
    assert decisions(door(Collections())) == expected


class Answers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = network(nn.Conv2d(16, 32, 3))

    def forward(self, x: Tensor) -> dict[str, object]:
        y = self.body(x)
        return {"out": y, "more": [y * 2, {"last": y.sum(1)}], "silent": None}


def test_networks_that_return_dicts_are_converted(door):
    assert decisions(door(Answers())) == {"body.0": "first", "body.2": "convert"}


class Deciding(nn.Module):
    """Goes on by what it has computed, which no trace can follow; the same way on all but absurd inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = network(nn.Conv2d(16, 32, 3)), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if torch.jit.is_tracing() or torch.compiler.is_exporting() or y.abs().max() < 1e9:
            return self.last(y)
        return y[:, :5]


def test_dynamic_control_flow_is_converted_layer_by_layer(door):
    report = door(Deciding())
    assert decisions(report) == {"body.0": "first", "body.2": "convert"}
    assert any("control flow cannot be traced" in text for text in report.warnings)


class Opaque(nn.Module):
    """No convolution inside, and no trace can follow it."""

    def forward(self, x: Tensor) -> Tensor:
        return x if sum(x.shape) > 10 else -x


def test_modules_that_cannot_be_traced_are_passed_over_where_no_convolution_is_inside(door):
    report = door(network(nn.Conv2d(16, 32, 3), Opaque(), nn.Conv2d(32, 32, 3)))
    assert decisions(report) == {"0": "first", "2": "convert", "4": "convert"}
    assert not any("control flow" in text for text in report.warnings)


class OpaqueWriter(Opaque):
    """The same, and it writes into what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(2))


def test_modules_that_cannot_be_traced_and_write_into_their_input_forbid_a_trace(door):
    report = door(network(nn.Conv2d(16, 32, 3), OpaqueWriter(), nn.Conv2d(32, 32, 3)))
    assert decisions(report) == {"0": "first", "2": "convert", "4": "convert"}
    assert any("control flow cannot be traced" in text for text in report.warnings)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda model: model.to(memory_format=torch.channels_last), id="channels last"),
        pytest.param(lambda model: model.train(), id="train mode"),
    ],
)
def test_how_a_network_was_saved_changes_nothing(door, change: Callable[[nn.Module], nn.Module]):
    model = network(nn.Conv2d(16, 32, 3, bias=False), nn.BatchNorm2d(32)).eval()
    plain, other = door(model), door(change(copy.deepcopy(model)))
    assert decisions(plain) == decisions(other) == {"0": "first", "2": "convert"}
    assert other.layers[1].unexplained == pytest.approx(plain.layers[1].unexplained, rel=1e-4)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted_with_a_note(door, kind):
    report = door(network(nn.Conv2d(16, 32, 3)).to(kind))
    assert decisions(report) == {"0": "first", "2": "convert"}
    assert any(f"{kind} weights were converted to float32" in text for text in report.warnings)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator on this machine")
def test_networks_on_an_accelerator_are_converted(door):
    report = door(network(nn.Conv2d(16, 32, 3)).cuda(), device="cuda")
    assert decisions(report) == {"0": "first", "2": "convert"}


def test_detectors_are_fitted_and_written_as_a_recipe(door):
    """Regions of one image are rows of a batch, and other ones in the student."""
    report = door(Regions(), formats=("safetensors",))
    assert decisions(report) == {"body.0": "first", "body.2": "convert", "head": "convert"}
    assert report.agreement is None
    assert any("outputs vary in number" in text for text in report.warnings)


def test_detectors_are_written_for_one_image(door):
    report = door(Places())
    assert decisions(report) == {"body.0": "first", "body.3": "convert", "boxes": "convert", "scores": "convert"}
    assert report.agreement is None
    assert report.parity is not None
    assert report.parity.batch_sizes == (1,)
    assert not report.parity.dynamic_batch


def test_detectors_are_timed(door):
    report = door(Places(), measure=True)
    assert report.latency is not None
    assert report.latency.after > 0


def test_a_file_that_has_fixed_what_python_decides_is_refused(door):
    """The number of regions comes of `int(…)`, which a trace holds as it was for one image."""
    with pytest.raises(ParityError, match=r"the file finds .* objects, the converted network .*--format safetensors"):
        door(Regions())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"formats": ("onnx", "torchscript")}, "--format torchscript"),
        ({"formats": ("pt2",)}, "--format pt2"),
        ({"precision": "fp16"}, "--precision fp16"),
        ({"int8": True}, "--int8"),
        ({"dynamic_size": True}, "--dynamic-size"),
    ],
)
def test_what_detectors_cannot_be_written_as_is_told_before_the_fit(door, monkeypatch, options, named):
    monkeypatch.setattr("vfconvert.run.Run.images", lambda _: pytest.fail("the work has begun"))
    with pytest.raises(ExportError, match=f"^{named}: not for a network whose outputs vary .*write --format onnx"):
        door(Places(), **options)
