"""The reports of one conversion, from the command line: all of the same figures, each where it belongs."""

import json

import pytest

from tests.reporting.printed import csv_table, html_tables, markdown_tables, table_with

FAST = ("--spatial", "--no-reconstruct", "--no-measure")


@pytest.fixture(scope="module")
def reported(cli_invoke, images, tmp_path_factory):
    """A folder of reports, and what was printed; the summary file of the step held a line before."""
    import torch

    from tests.cli.conftest import network

    folder = tmp_path_factory.mktemp("reports")
    torch.save(network(), folder / "model.pt")
    summary = folder / "summary.md"
    summary.write_text("before\n", encoding="utf-8")
    reports = [part for suffix in ("html", "md", "json", "csv") for part in ("--report", folder / f"r.{suffix}")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GITHUB_STEP_SUMMARY", str(summary))
        line = (folder / "model.pt", *FAST, "--data", images, "-o", folder / "a.onnx", "--json", "--samples", 4)
        return folder, cli_invoke(*line, *reports, exit_code=0)


def test_json_on_stdout_is_the_json_report(reported):
    folder, result = reported
    assert result.stdout == (folder / "r.json").read_text(encoding="utf-8")
    assert result.stderr == ""


def test_every_report_has_the_same_totals(reported):
    folder, _ = reported
    report = json.loads((folder / "r.json").read_text(encoding="utf-8"))
    page = table_with(html_tables((folder / "r.html").read_text(encoding="utf-8")), "weights")
    text = table_with(markdown_tables((folder / "r.md").read_text(encoding="utf-8")), "weights")
    cells = csv_table((folder / "r.csv").read_bytes().decode())
    wanted = (report["before"]["parameters"], report["after"]["parameters"])
    assert (page.numbers("weights")[-1], page.numbers("after")[-1]) == wanted
    assert (text.numbers("weights")[-1], text.numbers("after")[-1]) == wanted
    assert (sum(cells.numbers("weights_before")), sum(cells.numbers("weights_after"))) == wanted
    assert sum(cells.numbers("macs_executed")) == report["after"]["macs_executed"]
    assert sum(page.numbers("executed")[:-1]) == page.numbers("executed")[-1] == report["after"]["macs_executed"]


def test_samples_are_held_out_images_with_names_of_classes(reported, images):
    folder, _ = reported
    samples = json.loads((folder / "r.json").read_text(encoding="utf-8"))["samples"]
    assert 2 <= len(samples) <= 4
    page = (folder / "r.html").read_text(encoding="utf-8")
    for sample in samples:
        assert (images / sample["name"]).is_file()
        assert sample["label"] == sample["name"].split("/")[0]
        assert {sample["original"]["class_name"], sample["converted"]["class_name"]} <= {"a", "b", "c"}
        assert "png" not in sample["given"]
        assert f'alt="The image {sample["name"]}"' in page
    assert page.count("data:image/png;base64,") == len(samples)


def test_summary_of_the_step_is_appended(reported):
    folder, _ = reported
    markdown = (folder / "r.md").read_text(encoding="utf-8")
    assert (folder / "summary.md").read_text(encoding="utf-8") == f"before\n{markdown}\n"


def test_summary_that_cannot_be_written_is_told_and_the_outputs_stay(cli_invoke, model_path, outputs, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(outputs / "no" / "summary.md"))
    result = cli_invoke(model_path, "--spatial", "--dry-run", "-q", "--input-shape", "3,12,12", exit_code=0)
    assert "takes no summary: No such file or directory" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("name", ["r.pdf", "report", "r.html.gz"])
def test_report_of_another_kind_is_refused_before_any_work(cli_invoke, model_path, outputs, name):
    line = (model_path, "--spatial", "-o", outputs / "a.onnx", "--report", outputs / name)
    result = cli_invoke(*line, exit_code=19)
    assert "its name ends in none of .json, .html, .md, .csv" in result.stderr
    assert list(outputs.iterdir()) == []


def test_one_path_for_two_reports_is_refused(cli_invoke, model_path, outputs):
    twice = ("--report", outputs / "r.md", "--report", outputs / "r.md")
    result = cli_invoke(model_path, "--spatial", "-o", outputs / "a.onnx", *twice, exit_code=19)
    assert "also what --report writes" in result.stderr


def test_error_goes_to_stderr_and_leaves_stdout_empty(cli_invoke, tmp_path):
    (tmp_path / "m.pt").write_bytes(b"no model")
    result = cli_invoke(tmp_path / "m.pt", "--spatial", "--json", exit_code=10)
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")


def test_schema_is_printed(cli_invoke, reported):
    import jsonschema

    folder, _ = reported
    schema = json.loads(cli_invoke("schema", exit_code=0).stdout)
    jsonschema.validate(json.loads((folder / "r.json").read_text(encoding="utf-8")), schema)
