"""Networks that call layers several times, from the command line to verified files and reports that add up."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests import repeated_nets
from tests.cli.conftest import SIDE
from tests.references import assert_close_enough
from tests.reporting.printed import csv_table
from vfconvert.recipes import load

NETS = {"pyramid": ("tower", "scores"), "recurrent": ("first", "second")}
STATE = {name: getattr(repeated_nets, name) for name in NETS}


def line_of(kind: str, folder) -> tuple[object, ...]:
    torch.save(STATE[kind]().state_dict(), folder / "model.pt")
    return folder / "model.pt", "--arch", f"{repeated_nets.__file__}:{kind}"


@pytest.fixture(scope="module", params=NETS)
def converted(request, cli_invoke, images, tmp_path_factory):
    """The kind of network, and the folder in which its files and reports are."""
    folder = tmp_path_factory.mktemp(request.param)
    reports = ("--report", folder / "r.json", "--report", folder / "r.csv")
    cli_invoke(
        *(*line_of(request.param, folder), "--spatial", "--channel", "--data", images, "--no-reconstruct"),
        *(
            "-o",
            folder / "a.onnx",
            *reports,
            "--format",
            "onnx",
            "--format",
            "torchscript",
            "--format",
            "pt2",
            "--format",
            "safetensors",
        ),
        exit_code=0,
    )
    return request.param, folder


def test_layers_of_several_calls_are_converted_into_verified_files(converted):
    kind, folder = converted
    report = json.loads((folder / "r.json").read_text())
    rows = {row["name"]: row for row in report["layers"]}
    assert all(rows[name]["decision"] == "convert" for name in NETS[kind])
    assert not [row for row in report["layers"] if row["code"] == "called-repeatedly"]
    assert len(report["artefacts"]) == 4
    assert all(0 <= made["parity"]["relative_error"] <= 1e-4 for made in report["artefacts"])
    assert report["latency"]["after"] > 0


def test_reports_add_up(converted):
    kind, folder = converted
    report = json.loads((folder / "r.json").read_text())
    cells = csv_table((folder / "r.csv").read_bytes().decode())
    assert sum(cells.numbers("weights_before")) == report["before"]["parameters"]
    assert sum(cells.numbers("weights_after")) == report["after"]["parameters"]
    assert sum(cells.numbers("macs_before")) == report["before"]["macs_method"]
    assert sum(cells.numbers("macs_after")) == report["after"]["macs_method"]
    assert sum(cells.numbers("macs_executed")) == report["after"]["macs_executed"]
    row = next(row for row in report["layers"] if row["name"] == NETS[kind][0])
    positions = SIDE**2 * 3 if kind == "recurrent" else SIDE**2 + (SIDE // 2) ** 2 + (SIDE // 4) ** 2
    assert row["macs_before"] == positions * row["weights_before"]


def test_file_holds_every_bank_once(converted):
    _, folder = converted
    report = json.loads((folder / "r.json").read_text())
    weights = sum(row["weights_after"] for row in report["layers"])
    tensors = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(folder / "a.onnx").graph.initializer]
    assert sum(t.size for t in tensors if t.ndim == 4 and t[0].size > 1) == weights


def test_file_computes_what_the_recipe_does(converted):
    kind, folder = converted
    network = load(folder / "a.safetensors", like=STATE[kind]())
    x = np.random.default_rng(0).standard_normal((3, 3, SIDE, SIDE)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(folder / "a.onnx"), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x})
    with torch.no_grad():
        assert_close_enough(torch.from_numpy(got), network(torch.from_numpy(x)), tolerance=1e-4)


def test_plan_under_a_budget_counts_all_calls(cli_invoke, images, tmp_path):
    cli_invoke(
        *(*line_of("pyramid", tmp_path), "--target", "macs=70%", "--data", images, "--no-reconstruct"),
        *(
            "--no-measure",
            "-o",
            tmp_path / "a.onnx",
            "--report",
            tmp_path / "r.json",
            "--save-plan",
            tmp_path / "p.json",
        ),
        exit_code=0,
    )
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["after"]["macs_executed"] <= 0.7 * report["before"]["macs_executed"]
    again = (*line_of("pyramid", tmp_path), "--plan", tmp_path / "p.json", "--data", images, "--dry-run", "--json")
    planned = json.loads(cli_invoke(*again, exit_code=0).stdout)
    kinds = [(row["name"], row["decision"]) for row in report["layers"]]
    assert [(row["name"], row["decision"]) for row in planned["layers"]] == kinds
    assert "convert" in dict(kinds).values()


def test_globs_select_layers_of_several_calls(cli_invoke, images, tmp_path):
    line = (*line_of("pyramid", tmp_path), "--spatial", "--data", images, "--dry-run", "--json")
    rows = json.loads(cli_invoke(*line, "--include", "tower", exit_code=0).stdout)["layers"]
    assert [row["name"] for row in rows if row["decision"] == "convert"] == ["tower"]
    rows = json.loads(cli_invoke(*line, "--exclude", "tower", exit_code=0).stdout)["layers"]
    assert next(row["code"] for row in rows if row["name"] == "tower") == "excluded"


def test_training_from_the_fit_goes_on(cli_invoke, images, tmp_path):
    cli_invoke(
        *(*line_of("recurrent", tmp_path), "--spatial", "--data", images, "--no-reconstruct", "--epochs", 1),
        *("--no-measure", "-o", tmp_path / "a.onnx", "--report", tmp_path / "r.json"),
        exit_code=0,
    )
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["training"] is not None
    assert report["parity"]["relative_error"] <= 1e-4
