"""A detector from the command line to a verified file, and that file timed."""

import json

import onnxruntime
import pytest
import torch

from tests import detectors
from tests.cli.conftest import SIDE
from tests.detectors import Places

ARCH = f"{detectors.__file__}:places"


@pytest.fixture
def model(tmp_path):
    torch.save(Places().state_dict(), tmp_path / "detector.pt")
    return tmp_path / "detector.pt"


def test_a_detector_becomes_an_onnx_file_that_bench_runs(cli_invoke, images, model, tmp_path):
    cli_invoke(
        *(model, "--arch", ARCH, "--spatial", "--data", images, "--no-reconstruct"),
        *("-o", tmp_path / "small.onnx", "--report", tmp_path / "r.json"),
        exit_code=0,
    )
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["parity"]["batch_sizes"] == [1]
    assert report["parity"]["dynamic_batch"] is False
    assert 0 < report["parity"]["relative_error"] <= 1e-4
    assert report["latency"]["after"] > 0
    session = onnxruntime.InferenceSession(str(tmp_path / "small.onnx"), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_outputs()] == ["boxes", "scores", "labels", "masks"]
    result = cli_invoke("bench", tmp_path / "small.onnx", "--rounds", 2, "--json", exit_code=0)
    assert json.loads(result.stdout)["input_shape"] == [1, 3, SIDE, SIDE]


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_detector_in_an_opset_that_it_cannot_have_is_refused_before_any_work(cli_invoke, images, model, more):
    line = (model, "--arch", ARCH, "--spatial", "--data", images, "--opset", 21, *more)
    assert "--opset: got 21, " in cli_invoke(*line, exit_code=25).stderr


def test_a_detector_as_torchscript_is_refused_in_one_line(cli_invoke, images, model, tmp_path):
    result = cli_invoke(
        *(model, "--arch", ARCH, "--spatial", "--data", images, "--format", "torchscript"),
        exit_code=25,
    )
    assert "--format torchscript: not for a network whose outputs vary in number" in result.stderr
    assert "Traceback" not in result.output
    assert not list(tmp_path.glob("*.ts"))
