"""The file in float16 is half as large, takes and gives float32, and is refused where numbers do not fit."""

import logging
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, checker, numpy_helper
from torch import Tensor, nn

from tests.quantizing.conftest import METADATA
from vfconvert.errors import ExportError, ParityError
from vfconvert.exporting import export_onnx
from vfconvert.quantizing import to_fp16
from vfconvert.quantizing.sessions import open_session
from vfconvert.verification import agreement

BANK = (96, 64, 3, 3)
BOUND = 2e-3  # a unit of float16 is 1e-3


@pytest.fixture(scope="module")
def target(source: Path, images: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("half") / "fp16.onnx"
    to_fp16(source, path, images)
    return path


def test_bank_is_stored_once_in_half_the_bytes(target: Path, source: Path) -> None:
    stored = onnx.load(target).graph.initializer
    assert TensorProto.FLOAT not in {tensor.data_type for tensor in stored}
    assert [tensor.data_type for tensor in stored if tuple(tensor.dims) == BANK] == [TensorProto.FLOAT16]
    assert 0.49 < target.stat().st_size / source.stat().st_size < 0.54


def test_keeps_names_types_metadata_opset_and_a_varying_batch(target: Path, source: Path) -> None:
    before, after = onnx.load(source), onnx.load(target)
    checker.check_model(after, full_check=True)
    assert after.graph.input == before.graph.input
    assert after.graph.output == before.graph.output
    assert after.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert {entry.key: entry.value for entry in after.metadata_props} == METADATA
    assert (after.opset_import, after.producer_name) == (before.opset_import, "vfconvert")


@pytest.mark.parametrize("batch", [1, 5])
def test_keeps_to_the_outputs(target: Path, source: Path, images: Tensor, batch: int) -> None:
    outputs = [open_session(path, threads=1).run(images[:batch])["output"] for path in (source, target)]
    assert 0 < agreement(*outputs).relative_error < BOUND


def test_meta_a_broken_file_does_not_keep_to_them(target: Path, source: Path, images: Tensor, tmp_path: Path) -> None:
    model = onnx.load(target)
    tensor = next(tensor for tensor in model.graph.initializer if tuple(tensor.dims) == BANK)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float16(1.01), tensor.name))
    onnx.save(model, tmp_path / "broken.onnx")
    outputs = [open_session(path, threads=1).run(images)["output"] for path in (source, tmp_path / "broken.onnx")]
    assert agreement(*outputs).relative_error > BOUND


def test_runtime_computes_weights_once(target: Path, tmp_path: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 4, str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "optimised.onnx").graph
    kinds = {node.op_type for node in graph.node}
    assert kinds.isdisjoint({"Slice", "Pad", "Gather", "Mul"})


class Enlarging(nn.Module):
    """Operators that keep float32 for some of their inputs, or have no float16 at all in older runtimes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = nn.functional.interpolate(self.norm(self.conv(x)).clamp(0, 6), scale_factor=2.0, mode="bilinear")
        return {"aux": y.argmax(1), "out": y.float().amax(1, keepdim=True)}


def test_operators_that_want_float32_stay_valid(images: Tensor, tmp_path: Path) -> None:
    export_onnx(Enlarging().eval(), images[:1], tmp_path / "float32.onnx", metadata={})
    to_fp16(tmp_path / "float32.onnx", tmp_path / "fp16.onnx", images)
    files = [open_session(tmp_path / name, threads=1) for name in ("float32.onnx", "fp16.onnx")]
    before, after = (file.run(images) for file in files)
    assert list(after) == ["aux", "out"]
    assert after["aux"].dtype == torch.int64
    assert agreement(before["out"], after["out"]).relative_error < BOUND


@pytest.mark.parametrize("number", [7e4, float("inf"), float("nan")])
def test_refuses_a_number_beyond_float16(source: Path, images: Tensor, tmp_path: Path, number: float) -> None:
    model = onnx.load(source)
    tensor = next(tensor for tensor in model.graph.initializer if tuple(tensor.dims) == BANK)
    values = numpy_helper.to_array(tensor).copy()
    values[1, 1, 1, 1] = -number
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "float32.onnx")
    with pytest.raises(ExportError, match=r"^3.bank holds a number of magnitude (70000|inf|nan), and float16 ends at"):
        to_fp16(tmp_path / "float32.onnx", tmp_path / "fp16.onnx", images)
    assert [file.name for file in tmp_path.iterdir()] == ["float32.onnx"]


def test_refuses_a_network_whose_values_leave_float16(images: Tensor, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Sigmoid()).eval()
    for layer in model[:2]:
        layer.weight.data *= 2000
    export_onnx(model, images[:1], tmp_path / "float32.onnx", metadata={})
    with pytest.raises(ExportError, match=r"^v\d+ \(of Conv\) holds a number of magnitude \d"):
        to_fp16(tmp_path / "float32.onnx", tmp_path / "fp16.onnx", images)
    assert [file.name for file in tmp_path.iterdir()] == ["float32.onnx"]
    # What it is refused for is not to be seen in the outputs on every processor.
    to_fp16(tmp_path / "float32.onnx", tmp_path / "unseen.onnx")


def test_refuses_images_that_are_not_finite(source: Path, images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="the images hold numbers that are not finite"):
        to_fp16(source, tmp_path / "fp16.onnx", images / 0)
    assert list(tmp_path.iterdir()) == []


def test_leaves_everything_else_as_it_was(
    source: Path, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path, handlers, before = list(sys.path), list(logging.root.handlers), sorted(source.parent.iterdir())
    to_fp16(source, tmp_path / "fp16.onnx", images)
    to_fp16(source, tmp_path / "unseen.onnx")
    assert capfd.readouterr() == ("", "")
    assert (sys.path, logging.root.handlers, sorted(source.parent.iterdir())) == (path, handlers, before)
    assert [file.name for file in sorted(tmp_path.rglob("*")) if file.is_file()] == ["fp16.onnx", "unseen.onnx"]
    assert (tmp_path / "fp16.onnx").read_bytes() == (tmp_path / "unseen.onnx").read_bytes()
