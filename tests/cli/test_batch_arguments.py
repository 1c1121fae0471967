"""What every conversion of a batch is told is judged before any of them starts."""

import pytest

from vfconvert.cli.batch_arguments import wrong_arguments
from vfconvert.errors import ManifestError


@pytest.fixture
def started(monkeypatch):
    """The batches that went as far as their first process."""
    seen = []

    def run_batch(items, *_, **__):
        seen.append(items)
        raise KeyboardInterrupt

    monkeypatch.setattr("vfconvert.batching.running.run_batch", run_batch)
    return seen


def refused(cli_invoke, *line):
    said = cli_invoke("batch", *line, exit_code=ManifestError.exit_code).stderr
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("arguments", "own", "said"),
    [
        (["--spatial", "--max-size", "1KB", "--arch", "x.py:f", "--trust-pickle"], True, []),
        (["-oevil.onnx", "-qv"], True, ["--output", "--quiet", "--verbose"]),
        (["--dry-run", "--junit", "a.xml"], True, ["--dry-run", "--junit"]),
        (["--tensorboard", "logs", "--help"], True, ["--tensorboard", "--help"]),
        (["--finish"], True, ["--finish"]),
        (["--spatial", "other.pt"], True, ["'other.pt'"]),
        (["--trust-pickle"], False, ["--trust-pickle may run code"]),
        (["--trust-data-code", "--data", "m:f"], False, ["--trust-data-code may run code"]),
        (["--arch", "evil.py:f"], False, ["--arch may run code"]),
        (["--arch", "torchvision:resnet18", "--seed", "3"], False, []),
    ],
)
def test_arguments_that_a_batch_does_not_take_are_named(arguments, own, said):
    found = wrong_arguments(arguments, own)
    assert len(found) == len(said), found
    assert all(any(part in line for line in found) for part in said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("report: mine.html", "report: the batch writes a report of each model in its place"),
        ("dry-run: true", "dry-run: a batch converts"),
        ("save-plan: plan.json", "save-plan: it would be one file for all models"),
        ("junit: gates.xml", "junit: it would be one file for all models"),
        ("target: params=60%\ndamage-cache: d.json", "damage-cache: it would be one file for all models"),
        ("data: i\nepochs: 1\ncheckpoints: c", "checkpoints: it would be one folder for all models"),
        ("data: i\nepochs: 1\ntensorboard: t", "tensorboard: it would be one folder for all models"),
        ("data: i\nepochs: 1\nresume: true\nfinish: true", "finish: which run to finish is said of one model"),
    ],
)
def test_a_recipe_that_serves_one_model_only_is_refused(cli_invoke, tmp_path, recipe, started, text, said):
    path = recipe(f"spatial: true\n{text}\n")
    line = refused(cli_invoke, "a.pt", "b.pt", "-o", tmp_path / "out", "--config", path)
    assert f"{path}: {said}" in line
    assert line.count("take it out of the recipe of a batch") == 1
    manifest = tmp_path / "models.json"
    manifest.write_text(f'{{"models": ["a.pt", {{"model": "b.pt", "config": "{path}"}}]}}')
    assert f"{path}: {said}" in refused(cli_invoke, manifest, "-o", tmp_path / "out", "--", "--spatial")
    assert not started
    assert not (tmp_path / "out").exists()


def test_a_recipe_of_single_runs_may_say_what_the_batch_overrules(cli_invoke, tmp_path, recipe, started):
    path = recipe("model: m.pt\nspatial: true\noutput: o.onnx\nverbose: true\njson: true\ndry-run: false\njunit:\n")
    cli_invoke("batch", "a.pt", "-o", tmp_path / "out", "--config", path, exit_code=130)
    assert len(started) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--spatial", "--nonsense"], "every model: No such option"),
        (["--spatial", "--windows", "x"], "every model: Invalid value for '--windows'"),
        (["--spatial", "--epochs", "3"], "every model: --epochs trains on images; add --data"),
        (["--spatial", "--fail-over-drop", "1"], "--fail-over-drop is judged on images held out of --data"),
        ([], "every model: nothing to do: add --spatial"),
    ],
)
def test_what_is_wrong_for_every_model_is_said_once(cli_invoke, tmp_path, started, arguments, said):
    line = refused(cli_invoke, "a.pt", "b.pt", "-o", tmp_path / "out", "--", *arguments)
    assert line.count(said) == 1
    assert not started


def test_images_of_the_reports_of_a_batch_may_be_as_many_as_one_says(cli_invoke, tmp_path, started):
    cli_invoke("batch", "a.pt", "-o", tmp_path / "out", "--", "--spatial", "--samples", 3, exit_code=130)
    assert len(started) == 1


def test_a_recipe_that_cannot_be_read_is_said_once(cli_invoke, tmp_path, started):
    line = refused(cli_invoke, "a.pt", "b.pt", "-o", tmp_path / "out", "--config", tmp_path / "none.yaml")
    assert line.count("none.yaml: the recipe cannot be read") == 1
    assert not started


def test_what_is_wrong_for_one_model_names_it(cli_invoke, tmp_path, started):
    manifest = tmp_path / "models.json"
    manifest.write_text('{"models": ["a.pt", {"model": "b.pt", "arguments": ["--windows", "4"]}]}')
    line = refused(cli_invoke, manifest, "-o", tmp_path / "out", "--", "--spatial")
    assert "b: --windows says nothing without --channel" in line
    assert not started
