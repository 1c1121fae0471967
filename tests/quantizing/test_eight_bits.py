"""The file in eight bits is small, holds no float32 copy of a weight, and keeps to the outputs."""

import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, checker, numpy_helper
from torch import Tensor, nn

from tests.quantizing.conftest import METADATA
from vfconvert.errors import ExportError, ParityError, UnwritableOutputError
from vfconvert.exporting import export_onnx
from vfconvert.quantizing import quantize_int8
from vfconvert.quantizing.sessions import open_session
from vfconvert.verification import agreement

BANK = 96 * 64 * 9
BOUND = 0.05  # relative error of two layers in seven bits


@pytest.fixture(scope="module")
def target(source: Path, images: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("eight") / "int8.onnx"
    quantize_int8(source, path, images[:16])
    return path


def relative_error(path: Path, source: Path, images: Tensor) -> float:
    outputs = [open_session(file, threads=1).run_all(images)["output"] for file in (source, path)]
    return agreement(*outputs).relative_error


def largest_float(model: onnx.ModelProto) -> int:
    """Elements of the largest float32 tensor that is stored."""
    stored = (tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT)
    return max((int(np.prod(tensor.dims)) for tensor in stored), default=0)


def test_weights_are_bytes_with_a_scale_for_each_channel(target: Path) -> None:
    graph = onnx.load(target).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made = {node.output[0]: node for node in graph.node}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == 4
    for layer in layers:
        given, weight = (made[name] for name in layer.input[:2])
        assert (given.op_type, weight.op_type) == ("DequantizeLinear", "DequantizeLinear")
        values, scales, zeros = (tensors[name] for name in weight.input)
        assert values.dtype == np.int8
        assert not zeros.any()
        assert scales.size in (values.shape[0], values.shape[-1])
        assert tensors[given.input[2]].dtype == np.uint8
    assert "QuantizeLinear" in {node.op_type for node in graph.node}


def test_file_is_small_and_holds_no_float_copy_of_the_bank(target: Path) -> None:
    assert largest_float(onnx.load(target)) < 1000
    # Of the slices of the bank one holds all of it and another a third of that; the rest is scales, biases and nodes.
    assert BANK * 4 / 3 < target.stat().st_size < BANK * 4 / 3 + 12_000


def test_meta_a_float_copy_is_seen(source: Path) -> None:
    assert largest_float(onnx.load(source)) == BANK
    assert source.stat().st_size > BANK * 4


def test_small_where_weights_dominate_and_none_is_read_twice(images: Tensor, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 128, 3), nn.ReLU(), nn.Conv2d(128, 128, 3)).eval()
    export_onnx(model, images[:1], tmp_path / "float32.onnx", metadata={})
    quantize_int8(tmp_path / "float32.onnx", tmp_path / "int8.onnx", images)
    assert 3 * (tmp_path / "int8.onnx").stat().st_size < (tmp_path / "float32.onnx").stat().st_size


def test_keeps_names_metadata_opset_and_a_varying_batch(target: Path, source: Path) -> None:
    before, after = onnx.load(source), onnx.load(target)
    checker.check_model(after, full_check=True)
    assert after.graph.input == before.graph.input
    assert after.graph.output == before.graph.output
    assert after.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert {entry.key: entry.value for entry in after.metadata_props} == METADATA
    assert after.producer_name == "vfconvert"
    assert after.opset_import == before.opset_import


def test_keeps_to_the_outputs_on_images_not_calibrated_with(target: Path, source: Path, images: Tensor) -> None:
    assert 0 < relative_error(target, source, images[16:]) < BOUND


def test_meta_a_broken_file_does_not_keep_to_them(target: Path, source: Path, images: Tensor, tmp_path: Path) -> None:
    model = onnx.load(target)
    tensor = next(t for t in model.graph.initializer if t.data_type == TensorProto.INT8 and np.prod(t.dims) == BANK)
    mirrored = numpy_helper.to_array(tensor)[..., ::-1, ::-1]
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(mirrored), tensor.name))
    onnx.save(model, tmp_path / "broken.onnx")
    assert relative_error(tmp_path / "broken.onnx", source, images[16:]) > BOUND


def test_images_in_batches_of_a_file_of_fixed_size(images: Tensor, tmp_path: Path) -> None:
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).view(2, -1)

    assert not export_onnx(Pairs(), images[:2], tmp_path / "float32.onnx", metadata={}).dynamic_batch
    quantize_int8(tmp_path / "float32.onnx", tmp_path / "int8.onnx", images[:5])
    assert relative_error(tmp_path / "int8.onnx", tmp_path / "float32.onnx", images[:5]) < BOUND


def test_leaves_everything_else_as_it_was(
    source: Path,
    images: Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name in ("here", "there", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    path, handlers, before = list(sys.path), list(logging.root.handlers), sorted(source.parent.iterdir())
    quantize_int8(source, tmp_path / "there" / "int8.onnx", images)
    assert capfd.readouterr() == ("", "")
    assert (sys.path, logging.root.handlers, sorted(source.parent.iterdir())) == (path, handlers, before)
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["int8.onnx"]


def test_refuses_no_image(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="got no image, expected one or more"):
        quantize_int8(source, tmp_path / "int8.onnx", torch.empty(0, 3, 12, 12))
    assert list(tmp_path.iterdir()) == []


def test_refuses_what_is_no_file_of_onnx(images: Tensor, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ExportError, match=r"cannot read .*text.onnx: DecodeError.*expected an ONNX file"):
        quantize_int8(tmp_path / "text.onnx", tmp_path / "int8.onnx", images)
    assert [file.name for file in tmp_path.iterdir()] == ["text.onnx"]


def test_refuses_images_of_another_size(source: Path, images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"cannot run .*float32.onnx: InvalidArgument: [^\n]*do not use it$"):
        quantize_int8(source, tmp_path / "int8.onnx", images[:, :, :6])
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_file_that_gives_numbers_that_are_not_finite(images: Tensor, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)).eval()
    for layer in model:
        layer.weight.data *= 1e30
    export_onnx(model, images[:1], tmp_path / "float32.onnx", metadata={})
    with pytest.raises(ParityError, match=r"output 'output': .*float32.onnx itself gives numbers that are not finite"):
        quantize_int8(tmp_path / "float32.onnx", tmp_path / "int8.onnx", images)
    assert [file.name for file in tmp_path.iterdir()] == ["float32.onnx"]


def test_refuses_what_the_quantizer_does_not_take(
    source: Path, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError("no such operator")

    monkeypatch.setattr("onnxruntime.quantization.quantize_static", fails)
    with pytest.raises(ExportError, match=r"^quantizing failed: ValueError: no such operator; use the float32 file$"):
        quantize_int8(source, tmp_path / "int8.onnx", images)
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_result_that_is_not_finite(
    source: Path, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_: Path, target: Path, __: Tensor) -> None:
        model = onnx.load(source)
        tensor = next(tensor for tensor in model.graph.initializer if tuple(tensor.dims) == (10, 192))
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32("nan"), tensor.name))
        onnx.save(model, target)

    monkeypatch.setattr("vfconvert.quantizing.eight_bits._quantize", breaks)
    with pytest.raises(ParityError, match="output 'output': the written file gives numbers that are not finite"):
        quantize_int8(source, tmp_path / "int8.onnx", images)
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_folder_that_is_not_there(source: Path, images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(UnwritableOutputError, match="does not exist"):
        quantize_int8(source, tmp_path / "no" / "int8.onnx", images)
