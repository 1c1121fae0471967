"""Files side by side: bytes, time, and agreement with the first."""

import math
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from vfconvert.errors import ParityError
from vfconvert.exporting import export_onnx
from vfconvert.quantizing import judge, quantize_int8, to_fp16


def test_judges_three_files(source: Path, images: Tensor, tmp_path: Path) -> None:
    files = {"float32": source, "float16": tmp_path / "fp16.onnx", "int8": tmp_path / "int8.onnx"}
    to_fp16(source, files["float16"], images)
    quantize_int8(source, files["int8"], images[:16])
    found = judge(files, images, threads=1, rounds=3)
    assert [one.name for one in found] == list(files)
    assert [one.bytes for one in found] == [path.stat().st_size for path in files.values()]
    assert all(one.milliseconds > 0 for one in found)
    first, half, eight = (one.agreement for one in found)
    assert (first.samples, first.top1, first.relative_error) == (24, 1.0, 0.0)
    assert 0 < half.relative_error < eight.relative_error < 0.05
    assert half.top1 is not None
    assert half.top1 > 0.95


def test_meta_a_file_of_other_weights_does_not_agree(source: Path, images: Tensor, tmp_path: Path) -> None:
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        if tuple(tensor.dims) == (10, 192):
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, tmp_path / "other.onnx")
    _, other = judge({"one": source, "other": tmp_path / "other.onnx"}, images, threads=1, rounds=1)
    assert other.agreement.top1 is not None
    assert other.agreement.top1 < 0.5
    assert other.agreement.relative_error > 0.5


class Pairs(nn.Module):
    """Takes two images at once, no more and no less; of two outputs the second is the main one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.conv(x)
        return {"aux": y.reshape(2, -1).sum(1), "out": y}


def test_judges_images_by_psnr_and_a_fixed_batch_size(images: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "pairs.onnx"
    assert not export_onnx(Pairs(), images[:2], path, metadata={}).dynamic_batch
    quantize_int8(path, tmp_path / "int8.onnx", images)
    same, eight = judge({"one": path, "int8": tmp_path / "int8.onnx"}, images[:5], threads=1, rounds=1)
    assert (same.agreement.samples, same.agreement.top1, same.agreement.psnr) == (5, None, math.inf)
    assert eight.agreement.psnr is not None
    assert 25 < eight.agreement.psnr < 70


def test_refuses_nothing_to_judge(source: Path, images: Tensor) -> None:
    with pytest.raises(ParityError, match="got 0 files and 24 images"):
        judge({}, images, threads=1, rounds=1)
    with pytest.raises(ParityError, match="got 1 files and 0 images"):
        judge({"one": source}, torch.empty(0, 3, 12, 12), threads=1, rounds=1)


def test_refuses_a_file_that_does_not_open(images: Tensor, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ParityError, match=r"ONNX Runtime cannot open .*text.onnx: .*; do not use it"):
        judge({"one": tmp_path / "text.onnx"}, images, threads=1, rounds=1)


def test_refuses_images_that_a_file_does_not_take(source: Path, images: Tensor) -> None:
    with pytest.raises(ParityError, match=r"ONNX Runtime cannot run .*float32.onnx: InvalidArgument"):
        judge({"one": source}, images[:, :2], threads=1, rounds=1)
