"""Gates as a CI job meets them: the exit code, the files that are there and those that are not."""

import json
from xml.etree import ElementTree

import pytest

from vfconvert.errors import GateError, NotAModelError, UncheckableGateError, UnwritableOutputError

FAST = ("--spatial", "--no-reconstruct", "--no-measure")
PASSED = ("--fail-under-saving", "params=20%", "--fail-over-drop", 100, "--max-parity-error", "1e-5")
FAILED = ("--fail-under-saving", "params=99%")


@pytest.fixture
def gated(cli_invoke, model_path, images, outputs):
    """Runs the command with these gates; returns its result and the names of the files that it wrote."""

    def run(*gates, exit_code):
        reports = ("--report", outputs / "r.json", "--junit", outputs / "g.xml")
        line = (model_path, *FAST, "--data", images, "-o", outputs / "a.onnx", *reports, *gates)
        result = cli_invoke(*line, exit_code=exit_code)
        return result, sorted(file.name for file in outputs.iterdir())

    return run


def test_gates_that_pass_leave_everything(gated, outputs):
    result, written = gated(*PASSED, "--max-size", "5MB", exit_code=0)
    assert written == ["a.onnx", "g.xml", "r.json"]
    assert "Gates: all passed." in result.stdout
    report = json.loads((outputs / "r.json").read_text())
    assert [gate["passed"] for gate in report["gates"]] == [True] * 4
    saved = 1 - report["after"]["parameters"] / report["before"]["parameters"]
    assert report["gates"][0]["got"] == pytest.approx(saved)
    assert report["gates"][3]["got"] == (outputs / "a.onnx").stat().st_size


def test_gate_that_fails_leaves_reports_and_an_older_file_as_it_was(gated, outputs):
    (outputs / "a.onnx").write_bytes(b"of yesterday")
    result, written = gated(*PASSED, *FAILED, exit_code=GateError.exit_code)
    assert written == ["a.onnx", "g.xml", "r.json"]
    assert (outputs / "a.onnx").read_bytes() == b"of yesterday"
    assert result.stderr.startswith("Error: 1 of 4 gate(s) failed: --fail-under-saving params: parameters saved ")
    assert result.stderr.count("\n") == 1
    assert f"Not written, since a gate failed: {outputs / 'a.onnx'}" in result.stdout
    report = json.loads((outputs / "r.json").read_text())
    assert report["output"] is None
    assert report["discarded"][0]["path"] == str(outputs / "a.onnx")
    (suite,) = ElementTree.parse(outputs / "g.xml").getroot()
    assert suite.get("failures") == "1"


def test_files_are_kept_on_failure_where_that_is_asked_for(gated, outputs):
    result, written = gated(*FAILED, "--keep-on-fail", "-q", exit_code=GateError.exit_code)
    assert written == ["a.onnx", "g.xml", "r.json"]
    assert result.stdout == f"{outputs / 'a.onnx'}\n"
    assert "the files were kept" in result.stderr


def test_every_format_is_discarded(gated):
    _, written = gated(*FAILED, "--format", "onnx", "--format", "safetensors", "--int8", exit_code=GateError.exit_code)
    assert written == ["g.xml", "r.json"]


def test_training_is_not_lost_to_a_gate(gated, outputs):
    training = ("--epochs", 1, "--batch", 8)
    _, written = gated(*training, *FAILED, exit_code=GateError.exit_code)
    assert written == ["a.training", "g.xml", "r.json"]
    before = json.loads((outputs / "r.json").read_text())["training"]
    _, written = gated(*training, "--resume", *PASSED, exit_code=0)
    assert written == ["a.onnx", "a.training", "g.xml", "r.json"]
    after = json.loads((outputs / "r.json").read_text())["training"]
    assert after["resumed_from"] == after["steps"] == before["steps"]
    assert after["losses"] == before["losses"]


def test_gate_that_cannot_be_checked_is_refused_before_the_model_is_read(gated, model_path):
    model_path.write_bytes(b"no model")
    result, written = gated("--max-latency-ratio", 0.5, exit_code=UncheckableGateError.exit_code)
    assert "--no-measure times nothing" in result.stderr
    assert written == ["g.xml"]


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        (("--fail-under-saving", "params=40"), "got 'params=40': expected a share of the original in percent"),
        (("--max-size", "5"), "got '5': expected a unit of size"),
        (("--max-latency-ratio", 0), "0.0 is not in the range x>0"),
        (("--keep-on-fail",), "--keep-on-fail says nothing without a gate"),
    ],
)
def test_limit_that_is_none_is_refused(gated, gate, said):
    result, written = gated(*gate, exit_code=2)
    assert said in " ".join(result.stderr.split())
    assert written == ["g.xml"]  # which says so


def test_junit_over_another_output_is_refused(cli_invoke, model_path, images, outputs):
    both = ("--report", outputs / "r.json", "--junit", outputs / "r.json")
    result = cli_invoke(model_path, *FAST, "--data", images, "-o", outputs / "a.onnx", *both, exit_code=19)
    assert "is also what --report writes" in result.stderr


def test_an_error_takes_the_place_of_what_an_earlier_run_told(gated, outputs, model_path, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    gated(*PASSED, exit_code=0)
    network = (outputs / "a.onnx").read_bytes()
    (tmp_path / "summary.md").unlink()
    model_path.write_bytes(b"no model")
    gated(*PASSED, exit_code=NotAModelError.exit_code)
    suite = ElementTree.parse(outputs / "g.xml").getroot()
    assert (suite.get("errors"), suite.get("failures"), suite.get("tests")) == ("1", "0", "1")
    (error,) = suite.iter("error")
    assert error.get("type") == "NotAModelError"
    assert str(model_path) in error.text
    assert "**No conversion** of " in (tmp_path / "summary.md").read_text()
    assert (outputs / "a.onnx").read_bytes() == network


@pytest.mark.parametrize("of", ["model", "output", "images"])
def test_an_error_is_not_written_over_anything_else(cli_invoke, model_path, images, outputs, of):
    """The JUnit file may be the very path that is refused, or not have been looked at yet."""
    paths = {"model": model_path, "output": outputs / "a.onnx", "images": images}
    (outputs / "a.onnx").write_bytes(b"of yesterday")
    before = {path: path.read_bytes() for path in (model_path, outputs / "a.onnx")}
    line = (model_path, *FAST, "--data", images, "-o", outputs / "a.onnx", "--junit", paths[of])
    cli_invoke(*line, "--max-latency-ratio", 1, exit_code=UncheckableGateError.exit_code)
    cli_invoke(*line, exit_code=UnwritableOutputError.exit_code)
    assert {path: path.read_bytes() for path in before} == before
    assert images.is_dir()
