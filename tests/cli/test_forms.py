"""How the file computes converted layers: in forms that take fewer products, or as ordinary convolutions if asked."""

import json

import onnx
import pytest
import torch

from tests.cli.conftest import network


@pytest.fixture
def converted(cli_invoke, model_path, images, outputs):
    """Converts with some flags; the report, the convolutions of the file, and what was printed."""

    def run(*flags):
        result = cli_invoke(
            *(model_path, "--spatial", "--channel", "--data", images, "--no-reconstruct", *flags),
            *("-o", outputs / "small.onnx", "--report", outputs / "r.json"),
            exit_code=0,
        )
        nodes = [node.op_type for node in onnx.load(outputs / "small.onnx").graph.node]
        return json.loads((outputs / "r.json").read_text()), nodes.count("Conv"), " ".join(result.output.split())

    return run


def test_forms_are_those_of_the_fewest_products_without_timings(converted):
    report, convolutions, _ = converted("--no-measure")
    assert report["forms"] == "fastest"
    assert {row["form"] for row in report["layers"]} - {None, "plain"}
    assert convolutions > 2
    assert report["after"]["macs_executed"] < report["before"]["macs_executed"]


@pytest.mark.parametrize("timed", ["--measure", "--no-measure"])
def test_plain_forms_are_one_convolution_a_layer(converted, timed):
    report, convolutions, said = converted("--forms", "plain", timed)
    assert report["forms"] == "plain"
    assert {row["form"] for row in report["layers"]} == {None, "plain"}
    assert convolutions == 2
    assert report["after"]["macs_executed"] == report["before"]["macs_executed"]
    assert (report["latency"] is not None) == (timed == "--measure")
    assert "1 as ordinary convolutions (as asked)." in said


@pytest.mark.parametrize(("forms", "falls"), [("plain", False), ("fastest", True)])
def test_a_dry_run_tells_the_products_of_the_forms_that_are_asked_for(cli_invoke, model_path, forms, falls):
    said = cli_invoke(model_path, "--spatial", "--forms", forms, "--dry-run", "--json", exit_code=0).stdout
    report = json.loads(said)
    assert (report["after"]["macs_executed"] < report["before"]["macs_executed"]) == falls
    assert report["after"]["macs_method"] < report["before"]["macs_method"]


DECIDING = """
from torch import nn
from tests.cli.conftest import network

class Deciding(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        return self.net(x if x.mean() > -9 else -x)  # which no trace can follow
"""


def test_a_dry_run_promises_no_fewer_products_of_a_network_that_is_not_lowered(cli_invoke, tmp_path):
    (tmp_path / "deciding.py").write_text(DECIDING)
    weights = {f"net.{name}": tensor for name, tensor in network().state_dict().items()}
    torch.save(weights, tmp_path / "weights.pt")
    flags = (tmp_path / "weights.pt", "--arch", f"{tmp_path / 'deciding.py'}:Deciding", "--input-shape", "3,12,12")
    report = json.loads(cli_invoke(*flags, "--spatial", "--dry-run", "--json", exit_code=0).stdout)
    assert any("control flow cannot be traced" in text for text in report["warnings"])
    assert report["after"]["macs_executed"] == report["before"]["macs_executed"] > report["after"]["macs_method"]
