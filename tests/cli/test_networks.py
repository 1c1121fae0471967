"""Networks of other kinds through the whole command: each ends in a verified file and says what was special."""

import json
from pathlib import Path

import onnxruntime
import pytest
import torch

from tests.cli.conftest import network

ARCHITECTURES = """
import torch
from torch import nn
from torch.nn import functional as F


class Body(nn.Module):
    def __init__(self, groups=1):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Conv2d(8, 16, 3, padding=1, groups=groups, bias=False)
        self.head = nn.Conv2d(16, 4, 1)

    def features(self, x):
        return self.head(F.relu(self.body(F.relu(self.stem(x)))))


class Dict(Body):
    def forward(self, x):
        y = self.features(x)
        return {"out": y, "pooled": y.mean((2, 3))}


class Grouped(Body):
    def __init__(self):
        super().__init__(groups=4)

    def forward(self, x):
        return self.features(x).mean((2, 3))


class Optional(Body):
    def forward(self, x, scale=1.0):
        return self.features(x).mean((2, 3)) * scale


class Restorer(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.middle = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.last = nn.Conv2d(8, 1, 3, padding=1, bias=False)

    def forward(self, x):
        return x + self.last(F.relu(self.middle(F.relu(self.first(x)))))


class Branching(Body):
    def forward(self, x):
        y = self.features(x).mean((2, 3))
        return y if float(y.detach().abs().sum()) >= 0 else -y
"""


@pytest.fixture(scope="module")
def architectures(tmp_path_factory):
    path = tmp_path_factory.mktemp("architectures") / "networks.py"
    path.write_text(ARCHITECTURES)
    return path


def weights(architectures: Path, name: str, folder: Path) -> Path:
    scope: dict[str, type] = {}
    exec(ARCHITECTURES, scope)
    torch.manual_seed(3)
    path = folder / "weights.pt"
    torch.save(scope[name]().state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("name", "outputs_of_file"),
    [("Dict", ["out", "pooled"]), ("Grouped", None), ("Optional", None)],
    ids=["dict-output", "grouped", "optional-argument"],
)
def test_network_is_converted_and_verified(cli_invoke, architectures, images, outputs, name, outputs_of_file):
    written = ("-o", outputs / "a.onnx", "--report", outputs / "r.json")
    source = (weights(architectures, name, outputs), "--arch", f"{architectures}:{name}")
    cli_invoke(*source, "--spatial", "--channel", "--data", images, "--calibration-images", "16", *written, exit_code=0)
    report = json.loads((outputs / "r.json").read_text())
    assert {row["name"]: row["decision"] for row in report["layers"]}["body"] == "convert"
    assert report["after"]["parameters"] < report["before"]["parameters"]
    assert report["parity"]["batch_sizes"] == [1, 2, 5]
    session = onnxruntime.InferenceSession(outputs / "a.onnx")
    assert session.get_inputs()[0].shape[0] == "batch"
    if outputs_of_file is not None:
        assert [output.name for output in session.get_outputs()] == outputs_of_file


def test_restorer_is_judged_by_what_it_changes(cli_invoke, architectures, images, outputs):
    written = ("-o", outputs / "a.onnx", "--report", outputs / "r.json")
    source = (weights(architectures, "Restorer", outputs), "--arch", f"{architectures}:Restorer")
    result = cli_invoke(*source, "--spatial", "--no-reconstruct", "--data", images, *written, exit_code=0)
    agreement = json.loads((outputs / "r.json").read_text())["agreement"]
    assert agreement["measure"] == "PSNR"
    assert agreement["relative_change"] > agreement["relative_error"]
    assert "what the network changes in its input differs" in " ".join(result.stdout.split())


def test_network_that_cannot_be_traced_says_so(cli_invoke, architectures, images, outputs):
    source = (weights(architectures, "Branching", outputs), "--arch", f"{architectures}:Branching")
    options = ("--spatial", "--no-reconstruct", "--data", images, "--dry-run")
    result = cli_invoke(*source, *options, exit_code=0)
    assert "control flow cannot be traced" in " ".join(result.stdout.split())


def test_without_images_the_report_says_so(cli_invoke, model_path, outputs):
    written = ("-o", outputs / "a.onnx", "--report", outputs / "r.json")
    options = ("--spatial", "--input-shape", "3,12,12", "--calibration-images", "32")
    result = cli_invoke(model_path, *options, *written, exit_code=0)
    report = json.loads((outputs / "r.json").read_text())
    assert report["images"]["source"] == "synthetic"
    assert report["images"]["calibration"] == 32
    assert report["agreement"]["held_out"] is False
    assert "no --data was given: fitted on 32 synthetic images" in " ".join(result.stdout.split())


def test_half_precision_is_converted_to_single_and_said(cli_invoke, images, outputs):
    model = outputs / "half.pt"
    torch.save(network().half(), model)
    written = ("-o", outputs / "a.onnx", "--report", outputs / "r.json")
    result = cli_invoke(model, "--spatial", "--no-reconstruct", "--data", images, *written, exit_code=0)
    report = json.loads((outputs / "r.json").read_text())
    assert report["before"]["weight_bytes"] == 2 * report["before"]["parameters"]
    assert "torch.float16 weights were converted to float32" in " ".join(result.stdout.split())


def test_same_seed_writes_the_same_file(cli_invoke, model_path, images, outputs):
    for name in ("a", "b"):
        options = ("--spatial", "--data", images, "--calibration-images", "8", "--seed", "3")
        cli_invoke(model_path, *options, "-o", outputs / f"{name}.onnx", exit_code=0)
    sessions = [onnxruntime.InferenceSession(outputs / f"{name}.onnx") for name in ("a", "b")]
    x = torch.randn(2, 3, 12, 12).numpy()
    first, second = (session.run(None, {"input": x})[0] for session in sessions)
    assert (first == second).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mean", "0.5,0.5,0.5"), "--mean says how images become tensors, but there is no --data"),
        (("--size", "10", "--input-shape", "3,12,12"), "--size 10x10 and --input-shape 3x12x12 differ"),
    ],
    ids=["mean-without-data", "two-sizes"],
)
def test_options_that_would_do_nothing_are_refused(cli_invoke, model_path, outputs, options, message):
    code = 30 if options[0] == "--mean" else 20
    result = cli_invoke(model_path, "--spatial", *options, "-o", outputs / "a.onnx", exit_code=code)
    assert message in result.stderr
    assert list(outputs.iterdir()) == []
