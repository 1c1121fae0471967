"""The main job end to end, on a small network and small images: what is reported is what lies on the disk."""

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch

from tests.cli.conftest import SIDE, network

METHOD = ("--spatial", "--channel", "--seed", "4")


class Conversion:
    """One run of the command in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.model, self.output, self.report_path = folder / "model.pt", folder / "a.onnx", folder / "r.json"
        torch.save(network(), self.model)
        self.read = self.model.read_bytes()

    @property
    def report(self) -> dict[str, Any]:
        return json.loads(self.report_path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def converted(cli_invoke, images, tmp_path_factory):
    """A finished conversion, and what it printed."""
    made = Conversion(tmp_path_factory.mktemp("converted"))
    written = ("-o", made.output, "--report", made.report_path)
    return made, cli_invoke(made.model, *METHOD, "--data", images, *written, exit_code=0)


def test_report_agrees_with_the_files(converted, images):
    made, _ = converted
    report = made.report
    assert sorted(file.name for file in made.model.parent.iterdir()) == ["a.onnx", "model.pt", "r.json"]
    for path, described in ((made.model, report["input"]), (made.output, report["output"])):
        assert described["path"] == str(path)
        assert described["bytes"] == path.stat().st_size
        assert described["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert report["before"]["file_bytes"] == made.model.stat().st_size
    assert report["after"]["file_bytes"] == made.output.stat().st_size
    assert report["images"]["source"] == str(images)
    assert report["images"]["calibration"] + report["images"]["held_out"] == 30
    assert report["agreement"]["images"] == report["images"]["held_out"]
    assert report["parity"]["relative_error"] <= report["parity"]["tolerance"]
    assert report["seed"] == 4


def test_parameters_are_those_that_the_file_stores(converted):
    made, _ = converted
    before, after = made.report["before"]["parameters"], made.report["after"]["parameters"]
    assert before == sum(parameter.numel() for parameter in network().parameters())
    floats = [
        tensor for tensor in onnx.load(made.output).graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT
    ]
    stored = sum(math.prod(tensor.dims) for tensor in floats)
    statistics = 2 * (8 + 16)  # the BatchNorms' means and variances are no parameters
    assert after <= stored <= after + statistics
    assert after < before


def test_result_goes_to_stdout_alone(converted):
    made, result = converted
    assert result.stdout.startswith("Is it still my network?")
    assert f"Written: {made.output}" in result.stdout
    assert result.stdout.endswith(f"\nWritten: {made.report_path}\n")
    assert result.stderr == ""


def test_model_file_is_not_changed(converted):
    made, _ = converted
    assert made.model.read_bytes() == made.read


def test_every_layer_has_its_decision(converted):
    made, _ = converted
    rows = {row["name"]: row for row in made.report["layers"]}
    assert set(rows) == {"0", "3"}
    assert rows["0"]["decision"] == "keep"
    assert "first" in rows["0"]["reason"]
    assert rows["3"]["decision"] == "convert"
    assert rows["3"]["weights_before"] == 16 * 8 * 9
    assert rows["3"]["weights_after"] == 16 * 8 * 9 // 4
    assert 0 <= rows["3"]["unexplained"] <= 1


def test_file_runs_in_a_runtime_at_any_batch(converted):
    made, _ = converted
    session = onnxruntime.InferenceSession(str(made.output), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        (logits,) = session.run(None, {"input": torch.zeros(batch, 3, SIDE, SIDE).numpy()})
        assert logits.shape == (batch, 3)
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["command"] == made.report["command"]
    assert metadata["command"].startswith(f"vfconvert {made.model} --spatial --channel")


def test_same_seed_gives_the_same_file_beside_the_model(converted, cli_invoke, model_path, images):
    made, _ = converted
    beside = model_path.with_suffix(".onnx")
    assert cli_invoke(model_path, *METHOD, "--data", images, "-q", exit_code=0).stdout == f"{beside}\n"
    files = [onnx.load(made.output), onnx.load(beside)]
    for file in files:
        del file.metadata_props[:]  # the command lines differ
    assert files[0].SerializeToString() == files[1].SerializeToString()


def test_dry_run_writes_nothing(cli_invoke, model_path, images, outputs, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    result = cli_invoke(
        model_path,
        *("--spatial", "--data", images, "--dry-run", "-v"),
        *("-o", outputs / "a.onnx", "--report", outputs / "r.json"),
        exit_code=0,
    )
    assert result.stdout.startswith("Dry run: ")
    assert "crops 3x3 1x1" in result.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_reader_that_leaves_early_gets_no_traceback(model_path, images):
    reading, writing = os.pipe()
    os.close(reading)
    line = [
        sys.executable,
        "-m",
        "vfconvert.cli.main",
        str(model_path),
        "--spatial",
        "--data",
        str(images),
        "--dry-run",
    ]
    ran = subprocess.run(line, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (141, "")


@pytest.mark.parametrize(
    ("given", "needed"),
    [(("--windows", "4"), "--channel"), (("--channel-stride", "2"), "--channel"), (("--crops", "lines"), "--spatial")],
)
def test_an_option_that_says_nothing_is_refused(cli_invoke, model_path, given, needed):
    other = "--spatial" if needed == "--channel" else "--channel"
    result = cli_invoke(model_path, other, *given, exit_code=2)
    assert f"{given[0]} says nothing without {needed}" in result.stderr


def test_loose_images_beside_class_folders_are_reported(cli_invoke, model_path, images, tmp_path):
    data, report = tmp_path / "data", tmp_path / "r.json"
    shutil.copytree(images, data)
    shutil.copy(next(data.rglob("*.png")), data / "sheet.png")
    cli_invoke(model_path, "--spatial", "--data", data, "--report", report, exit_code=0)
    assert "(1 beside the class folders not used)" in json.loads(report.read_text())["images"]["method"]


def test_folders_that_are_not_the_networks_classes_are_told(cli_invoke, images, tmp_path):
    report = tmp_path / "r.json"
    torch.save(network(classes=2), tmp_path / "m.pt")
    line = (tmp_path / "m.pt", "--spatial", "--data", images, "--no-reconstruct", "--no-measure", "--report", report)
    shown = cli_invoke(*line, exit_code=0).stdout
    found = json.loads(report.read_text())
    assert found["agreement"]["accuracy_before"] is None
    (said,) = (warning for warning in found["warnings"] if warning.startswith("--data has"))
    assert said.startswith("--data has 3 subfolders and the network 2 classes: they do not count as labels")
    assert "--data has 3 subfolders and the network 2 classes" in shown
