"""A run that ends in whatever error leaves no JUnit file of an earlier one, and nothing else is written over."""

import os
import signal
from xml.etree import ElementTree

import pytest

from vfconvert.training.signals import TrainingInterrupted

GREEN = "<?xml version='1.0' encoding='utf-8'?>\n<testsuites errors='0'/>\n"
LINE = ("--spatial", "--no-reconstruct", "--no-measure")


@pytest.fixture
def junit(outputs, monkeypatch, tmp_path):
    """The file that an earlier run left; a step has a summary."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    path = outputs / "g.xml"
    path.write_text(GREEN)
    return path


@pytest.fixture
def told(junit, tmp_path):
    """The kind and text of the one error that the file and the summary tell of."""

    def read() -> tuple[str, str]:
        root = ElementTree.parse(junit).getroot()
        assert (root.get("errors"), root.get("tests")) == ("1", "1")
        (error,) = root.iter("error")
        summary = (tmp_path / "summary.md").read_text()
        assert summary.count("**No conversion** of ") == 1
        assert f"({error.get('type')})" in summary
        return error.get("type"), error.text

    return read


@pytest.mark.parametrize(
    ("line", "kind", "said"),
    [
        (("--crops", "lines"), "UsageError", "nothing to do: add --spatial"),
        ((*LINE, "-q", "-v"), "UsageError", "-q and -v exclude each other"),
        ((*LINE, "--no-such-option", "7"), "NoSuchOption", "No such option '--no-such-option'"),
        ((*LINE, "--max-size", "5XB"), "BadParameter", "Invalid value for '--max-size': got '5XB'"),
        ((*LINE, "--seed"), "BadOptionUsage", "'--seed' requires an argument"),
    ],
)
def test_a_wrong_command_line_is_told(cli_invoke, model_path, junit, told, line, kind, said):
    cli_invoke(model_path, "--junit", junit, *line, exit_code=2)
    found, text = told()
    assert found == kind
    assert said in text


def test_a_missing_model_is_told(cli_invoke, junit, told):
    cli_invoke("--junit", junit, "--spatial", exit_code=2)
    assert told()[0] == "MissingParameter"


@pytest.mark.parametrize("named", ["line", "recipe"])
def test_a_bad_recipe_is_told(cli_invoke, model_path, junit, told, recipe, named):
    path = recipe("spatial: true\nwindows: none\n" + (f"junit: {junit}\n" if named == "recipe" else ""))
    line = ("--junit", junit) if named == "line" else ()
    cli_invoke(model_path, *line, "--config", path, exit_code=4)
    kind, said = told()
    assert kind == "ConfigError"
    assert "line 2: windows" in said


@pytest.mark.parametrize("place", [".hidden/g.xml", "g.sh"])
def test_a_place_that_a_recipe_may_not_write_to_is_not_written_to(cli_invoke, model_path, recipe, tmp_path, place):
    (tmp_path / ".hidden").mkdir()
    path = recipe(f"spatial: true\njunit: {tmp_path / place}\n")
    result = cli_invoke(model_path, "--config", path, exit_code=4)
    assert "is no place that a recipe may write to" in result.stderr
    assert not (tmp_path / place).exists()


def test_a_recipe_that_cannot_be_read_is_told(cli_invoke, model_path, junit, told, tmp_path):
    cli_invoke(model_path, "--junit", junit, "--config", tmp_path / "none.yaml", exit_code=4)
    assert told()[0] == "ConfigError"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("-o", "nofolder/a.onnx"), "nofolder does not exist"),
        (("-o", "a.onnx", "--report", "r.txt"), "its name ends in none of"),
        (("-o", "r.json", "--report", "r.json"), "is also what --output writes"),
        (("-o", "a.onnx", "--save-config", "no/r.yaml"), "no does not exist"),
    ],
)
def test_other_outputs_that_cannot_be_written_are_told(
    cli_invoke, model_path, images, junit, told, outputs, monkeypatch, line, said
):
    monkeypatch.chdir(outputs)
    cli_invoke(model_path, *LINE, "--data", images, *line, "--junit", junit, exit_code=19)
    kind, text = told()
    assert kind == "UnwritableOutputError"
    assert said in text


def terminate(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()


def raising(error):
    def convert(*_):
        raise error

    return convert


@pytest.mark.parametrize(
    ("convert", "code", "kind", "said"),
    [
        (terminate, 143, "Terminated", "Terminated."),
        (raising(KeyboardInterrupt()), 130, "KeyboardInterrupt", "Interrupted."),
        (raising(TrainingInterrupted("Stopped at step 3.", 2)), 130, "TrainingInterrupted", "Stopped at step 3."),
        (raising(ZeroDivisionError("by 0")), 1, "ZeroDivisionError", "a fault in vfconvert: by 0"),
        (raising(MemoryError("no room")), 35, "ResourceError", "not enough memory"),
    ],
    ids=["sigterm", "ctrl-c", "training", "fault", "memory"],
)
def test_stops_and_faults_are_told(cli_invoke, model_path, junit, told, monkeypatch, convert, code, kind, said):
    monkeypatch.setattr("vfconvert.pipeline.convert", convert)
    monkeypatch.setattr("tempfile.tempdir", str(junit.parent))
    cli_invoke(model_path, *LINE, "--junit", junit, exit_code=code)
    found, text = told()
    assert found == kind
    assert text.startswith(said)


def test_of_several_processes_the_first_tells(cli_invoke, model_path, junit, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    cli_invoke(model_path, "--junit", junit, "--no-such-option", exit_code=2)
    assert junit.read_text() == GREEN
    monkeypatch.setenv("RANK", "0")
    cli_invoke(model_path, "--junit", junit, "--no-such-option", exit_code=2)
    assert junit.read_text() != GREEN


@pytest.mark.parametrize("line", [("--help",), ("--crops", "lines", "--dry-run")])
def test_help_and_dry_runs_leave_the_file(cli_invoke, model_path, junit, line):
    cli_invoke(model_path, "--junit", junit, *line, exit_code=0 if line == ("--help",) else 2)
    assert junit.read_text() == GREEN


@pytest.mark.parametrize("flag", ["--output", "--report", "--save-config", "--plan", "--costs", "--config"])
@pytest.mark.parametrize("there", [True, False])
def test_what_another_option_names_is_left_alone(cli_invoke, model_path, junit, flag, there):
    if not there:
        junit.unlink()
    cli_invoke(
        model_path, *LINE, "--junit", junit, flag, junit, "--max-size", "5XB", exit_code=4 if flag == "--config" else 2
    )
    assert junit.exists() == there
    assert not there or junit.read_text() == GREEN


def test_what_is_no_junit_file_is_left_alone(cli_invoke, model_path, junit):
    junit.write_text("weights")
    cli_invoke(model_path, "--junit", junit, "--no-such-option", exit_code=2)
    assert junit.read_text() == "weights"
    junit.write_text("")
    cli_invoke(model_path, "--junit", junit, "--no-such-option", exit_code=2)
    assert "NoSuchOption" in junit.read_text()


def test_the_network_s_own_name_is_left_alone(cli_invoke, model_path, tmp_path, monkeypatch):
    """No option says it: it is the model's with another suffix."""
    monkeypatch.setattr("vfconvert.pipeline.convert", raising(ZeroDivisionError("by 0")))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cli_invoke(model_path, *LINE, "--junit", tmp_path / "model.onnx", exit_code=1)
    assert not (tmp_path / "model.onnx").exists()
    cli_invoke(model_path, *LINE, "--junit", tmp_path / "g.xml", exit_code=1)
    assert (tmp_path / "g.xml").exists()
