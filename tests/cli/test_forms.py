"""How the file computes converted layers: in forms that take fewer products, or as ordinary convolutions if asked."""

import json

import onnx
import pytest


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
