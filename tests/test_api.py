"""The Python front door: networks and images in memory, conversions that can be used, judged and written."""

import copy
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import vfconvert
from tests.cli.conftest import network
from vfconvert.errors import (
    ExportError,
    GateError,
    NoConvolutionError,
    NoImagesError,
    PreprocessingError,
    UncheckableGateError,
    UnsupportedModelError,
)
from vfconvert.loading.in_memory import loaded_module
from vfconvert.nn import VersatileConv2d

FAST = {"reconstruct": False, "measure": False}


@pytest.fixture
def images() -> Tensor:
    return torch.randn(40, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def test_convert_leaves_the_network_as_it_was_and_writes_nothing(
    images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = network().train()
    before, hooks = weights(model), copy.copy(model[3]._forward_hooks)
    found = vfconvert.convert(model, spatial=True, channel=True, data=images, targets={"params": 0.8}, **FAST)
    assert same(before, weights(model))
    assert model.training
    assert model[3]._forward_hooks == hooks
    assert os.listdir(tmp_path) == []
    assert any(isinstance(layer, VersatileConv2d) for layer in found.model.modules())
    assert found.report.after.parameters < 0.8 * found.report.before.parameters
    assert found.report.agreement is not None
    assert found.report.agreement.held_out
    assert found.report.input.path == "<Sequential>"
    with torch.no_grad():
        torch.testing.assert_close(found.inference(images), found.model(images), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found.model(images), model.eval()(images), rtol=1e-4, atol=1e-5)


def test_same_sees_a_changed_weight() -> None:
    model = network()
    before = weights(model)
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] += 1
    assert not same(before, weights(model))


@pytest.mark.parametrize("name", ["small.onnx", "small.ts", "small.pt2", "small.safetensors"])
def test_export_writes_a_file_that_was_compared(images: Tensor, tmp_path: Path, name: str) -> None:
    found = vfconvert.convert(network(), spatial=True, data=images, **FAST)
    written = found.export(tmp_path / name)
    assert Path(written.path).stat().st_size == written.bytes
    assert written.parity is not None
    assert 0 <= written.parity.relative_error <= written.parity.tolerance
    if name.endswith("safetensors"):
        loaded = vfconvert.load(tmp_path / name, like=network())
        with torch.no_grad():
            torch.testing.assert_close(loaded(images), found.model(images))


def test_export_refuses_a_suffix_of_no_format(images: Tensor, tmp_path: Path) -> None:
    found = vfconvert.convert(network(), spatial=True, data=images, **FAST)
    with pytest.raises(ExportError, match=r"got '\.tflite', expected one of onnx, torchscript, pt2, safetensors"):
        found.export(tmp_path / "small.tflite")
    assert os.listdir(tmp_path) == []
    assert found.export(tmp_path / "small.tflite", format="onnx").format == "onnx"


def test_convert_trains(images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = vfconvert.convert(network(), spatial=True, data=images, epochs=2, batch=8, rate=1e-3, **FAST)
    assert found.report.training is not None
    assert [record["epoch"] for record in found.report.training.epochs] == [0, 1, 2]
    assert os.listdir(tmp_path) == []


def test_convert_keeps_the_checkpoints_of_a_run_in_the_folder_that_is_named(images: Tensor, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    vfconvert.convert(network(), spatial=True, data=images, epochs=1, batch=8, checkpoints=folder, **FAST)
    assert (folder / "log.jsonl").exists()


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda images: TensorDataset(images),
        lambda images: TensorDataset(images, torch.arange(len(images)) % 3),
        lambda images: DataLoader(TensorDataset(images), batch_size=7, shuffle=True),
    ],
    ids=["images", "labelled", "loader"],
)
def test_data_may_be_a_dataset(images: Tensor, wrapped: object) -> None:
    plain = vfconvert.convert(network(), spatial=True, data=images, **FAST)
    found = vfconvert.convert(network(), spatial=True, data=wrapped(images), **FAST)  # type: ignore[operator]
    assert same(weights(found.model), weights(plain.model))


def test_convert_of_a_file_is_convert_of_its_network(images: Tensor, tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "model.pt")
    there = vfconvert.convert(tmp_path / "model.pt", spatial=True, data=images, **FAST)
    here = vfconvert.convert(network(), spatial=True, data=images, **FAST)
    assert same(weights(there.model), weights(here.model))
    assert there.report.input.path == str(tmp_path / "model.pt")


def test_layers_decide_by_name(images: Tensor) -> None:
    found = vfconvert.convert(network(), layers={"3": "channel:windows=2,stride=1/4"}, data=images, **FAST)
    specs = {row.name: row.spec for row in found.report.layers if row.decision == "convert"}
    assert list(specs) == ["3"]
    assert "2 windows" in str(specs["3"])


def test_convert_names_the_nearest_setting() -> None:
    with pytest.raises(TypeError, match="no setting 'calibration'; the nearest is 'calibration_images'"):
        vfconvert.convert(network(), spatial=True, calibration=5)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (torch.zeros(3, 12, 12), r"got a tensor \(3, 12, 12\), expected images \(N, C, H, W\)"),
        (7, "got a int, expected a path, a tensor"),
    ],
)
def test_convert_refuses_data_that_is_none(data: object, said: str) -> None:
    with pytest.raises(NoImagesError, match=said):
        vfconvert.convert(network(), spatial=True, data=data)


def test_gates_are_judged_on_the_report_and_the_files(images: Tensor, tmp_path: Path) -> None:
    found = vfconvert.convert(network(), spatial=True, channel=True, data=images, **FAST)
    written = found.export(tmp_path / "small.onnx")
    report = found.check(files=[written], fail_under_saving={"params": 0.1, "size": "1%"}, max_size="1MB")
    assert [(gate.name, gate.passed) for gate in report.gates] == [
        ("fail-under-saving params", True),
        ("fail-under-saving size", True),
        ("max-size", True),
    ]
    assert report.gates[2].got == written.bytes
    said = (
        r"^2 of 3 gate\(s\) failed: --max-latency-ratio: .*not measured, at most 1; --max-size: .*, at most 10 bytes;"
    )
    with pytest.raises(GateError, match=said):
        found.check(files=[written], max_parity_error=1e-4, max_latency_ratio=1.0, max_size=10)
    with pytest.raises(GateError, match=r"the largest file not measured, at most 10 bytes$"):
        found.check(files=[], max_size=10)


@pytest.mark.parametrize(
    ("limits", "error", "said"),
    [
        ({}, UncheckableGateError, "no gate was given"),
        ({"fail_under_saving": {"params": 1.0}}, ValueError, "which no network saves"),
        ({"max_size": "40%"}, ValueError, "expected a size like 5MB"),
        ({"fail_over_drop": float("nan")}, ValueError, r"fail_over_drop: got nan, expected a finite number"),
        ({"max_latency_ratio": float("inf")}, ValueError, r"max_latency_ratio: got inf, expected a finite number"),
        ({"fail_over_drop": "1"}, TypeError, r"check\(\): fail_over_drop: got '1', expected a number or None"),
    ],
)
def test_gates_that_cannot_be_judged_are_refused(
    images: Tensor, limits: dict[str, object], error: type[Exception], said: str
) -> None:
    found = vfconvert.convert(network(), spatial=True, data=images, **FAST)
    with pytest.raises(error, match=said):
        found.check(**limits)


@pytest.mark.parametrize("setting", [{"fail_over_drop": 1}, {"max_size": 5}, {"precision": "fp16"}, {"reports": ()}])
def test_convert_takes_no_setting_of_files_gates_and_reports(setting: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=r"convert\(\) has no setting"):
        vfconvert.convert(network(), spatial=True, **setting)


def test_convert_refuses_an_architecture_beside_a_network() -> None:
    with pytest.raises(TypeError, match="arch says how a file is read, but a network was given"):
        vfconvert.convert(network(), spatial=True, arch="torchvision:resnet18")
    with pytest.raises(TypeError, match=r"include: got 'layer4', expected a sequence of texts"):
        vfconvert.convert(network(), spatial=True, include="layer4")


def test_convert_says_that_tensors_are_taken_as_they_are(images: Tensor, tmp_path: Path) -> None:
    found = vfconvert.convert(network(), spatial=True, data=images, save_plan=str(tmp_path / "plan.json"), **FAST)
    assert found.report.images is not None
    assert found.report.images.preprocessing == "none: tensors are taken as they are"
    assert (tmp_path / "plan.json").exists()
    found.save_report(tmp_path / "r.md")
    assert "Dry run" not in (tmp_path / "r.md").read_text()
    with pytest.raises(PreprocessingError, match=r"--size says how pictures become tensors.*drop it"):
        vfconvert.convert(network(), spatial=True, data=images, size=(8, 8), **FAST)
    with pytest.raises(NoImagesError, match=r"got 1 image\(s\), expected at least 2"):
        vfconvert.convert(network(), spatial=True, data=images[:1], **FAST)


def test_convert_raises_the_errors_of_the_command(images: Tensor) -> None:
    with pytest.raises(NoConvolutionError, match="no Conv2d"):
        vfconvert.convert(nn.Sequential(nn.Flatten(), nn.Linear(432, 2)), spatial=True, data=images)
    with pytest.raises(ValueError, match="expected a unit of params"):
        vfconvert.convert(network(), targets={"params": "5MB"}, data=images)


class Stubborn(nn.Conv2d):
    def __deepcopy__(self, memo: object) -> nn.Module:
        raise RuntimeError("there is one of me")


def test_a_network_that_cannot_be_copied_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"<Stubborn>: cannot be copied.*there is one of me"):
        loaded_module(Stubborn(3, 4, 3))


def test_the_digest_tells_networks_apart() -> None:
    model = network()
    first = loaded_module(model)
    assert loaded_module(network()).sha256 == first.sha256
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] += 1
    assert loaded_module(model).sha256 != first.sha256
    assert first.size_bytes == sum(value.nbytes for value in model.state_dict().values())
