"""`vfconvert inspect` end to end: tables, JSON and pictures of what could become of a network, and nothing else."""

import json
import sys
from pathlib import Path

import pytest
import torch

import vfconvert.budget.options
from tests.cli.test_plans import deep
from vfconvert.errors import (
    BudgetError,
    ConfigError,
    MissingPackageError,
    NoImagesError,
    NotAModelError,
    UnwritableOutputError,
    VfconvertError,
)

CACHE = "model.pt.damage.json"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, cli_invoke, images) -> Path:
    """A model that was inspected once, so that its damage is known."""
    path = tmp_path_factory.mktemp("inspect") / "model.pt"
    torch.save(deep(), path)
    cli_invoke("inspect", path, "--data", images, "-q", exit_code=0)
    return path


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured from here on."""
    monkeypatch.setattr(vfconvert.budget.options, "harms_of", _refuse)


def _refuse(*arguments: object, **keywords: object) -> None:
    raise BudgetError("measured again")


def test_nothing_but_the_damage_is_written(model: Path) -> None:
    assert sorted(path.name for path in model.parent.iterdir()) == ["model.pt", CACHE]


@pytest.mark.usefixtures("known")
def test_text_says_what_layers_could_become(cli_invoke, model, images) -> None:
    shown = cli_invoke("inspect", model, "--data", images, exit_code=0).stdout
    assert "The whole network: 3,803 parameters" in shown
    assert "Convertible: 2 of 3 Conv2d layers" in shown
    for word in ("spatial", "lines", "channel", "both", "Least damage by parameters", "first convolution"):
        assert word in shown


@pytest.mark.usefixtures("known")
def test_json_is_all_of_standard_output(cli_invoke, model, images) -> None:
    before = (model.parent / CACHE).read_bytes()
    found = json.loads(cli_invoke("inspect", model, "--data", images, "--json", exit_code=0).stdout)
    assert found["parameters"] == sum(p.numel() for p in deep().parameters())
    assert found["measure"] in ("nats", "variance")
    assert [layer["name"] for layer in found["layers"]] == ["3", "6"]
    assert [layer["name"] for layer in found["kept"]] == ["0"]
    for layer in found["layers"]:
        keep, *others = layer["options"]
        assert (keep["kind"], keep["damage"], keep["spec"]) == ("keep", 0.0, None)
        assert {option["kind"] for option in others} <= {"spatial", "lines", "channel", "group", "both"}
        assert all(option["parameters"] < keep["parameters"] for option in others)
        assert all(option["macs"] <= keep["macs"] and option["damage"] > 0 for option in others)
    assert [frontier["cost"] for frontier in found["frontiers"]] == ["params", "macs"]
    for frontier in found["frontiers"]:
        damages = [point["damage"] for point in frontier["points"]]
        assert damages == sorted(damages)
        assert damages[0] == 0 < damages[-1]
    assert (model.parent / CACHE).read_bytes() == before


@pytest.mark.usefixtures("known")
def test_kinds_that_are_given_are_those_shown(cli_invoke, model, images) -> None:
    line = ("inspect", model, "--data", images, "--json", "--spatial")
    found = json.loads(cli_invoke(*line, exit_code=0).stdout)
    assert {option["kind"] for layer in found["layers"] for option in layer["options"]} == {"keep", "spatial"}


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(("name", "start"), [("f.svg", b"<?xml"), ("f.png", b"\x89PNG")])
def test_frontier_is_drawn(cli_invoke, model, images, outputs, name: str, start: bytes) -> None:
    pytest.importorskip("matplotlib")
    result = cli_invoke("inspect", model, "--data", images, "-q", "--plot", outputs / name, exit_code=0)
    assert (outputs / name).read_bytes().startswith(start)
    assert [path.name for path in outputs.iterdir()] == [name]
    assert result.stdout == f"{outputs / name}\n"
    assert sorted(path.name for path in model.parent.iterdir()) == ["model.pt", CACHE]


@pytest.mark.usefixtures("known")
def test_a_picture_is_named_after_the_tables_and_not_within_json(cli_invoke, model, images, outputs) -> None:
    pytest.importorskip("matplotlib")
    line = ("inspect", model, "--data", images, "--plot", outputs / "f.svg")
    assert cli_invoke(*line, exit_code=0).stdout.endswith(f"Written: {outputs / 'f.svg'}\n")
    assert json.loads(cli_invoke(*line, "--json", exit_code=0).stdout)["parameters"] == 3803


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("f.pdf", UnwritableOutputError, "a picture's name ends in .svg or .png"),
        ("none/f.svg", UnwritableOutputError, "does not exist; create it first"),
        ("f.svg", MissingPackageError, "pip install 'vfconvert[plot]'"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_refused_before_any_work(
    cli_invoke, model, images, outputs, monkeypatch, name: str, error: type[VfconvertError], said: str
) -> None:
    monkeypatch.setattr("vfconvert.inspection.prepare", _refuse)
    if error is MissingPackageError:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    line = ("inspect", model, "--data", images, "--plot", outputs / name)
    assert said in cli_invoke(*line, exit_code=error.exit_code).stderr


def test_damage_can_be_kept_elsewhere(cli_invoke, images, outputs) -> None:
    torch.save(deep(), outputs / "model.pt")
    line = ("inspect", outputs / "model.pt", "--data", images, "-q", "--calibration-images", "8", "--spatial")
    cli_invoke(*line, "--damage-cache", outputs / "other.json", exit_code=0)
    assert sorted(path.name for path in outputs.iterdir()) == ["model.pt", "other.json"]


@pytest.mark.usefixtures("known")
def test_meta_other_images_are_measured(cli_invoke, model, images) -> None:
    line = ("inspect", model, "--data", images, "-q", "--calibration-images", "8")
    assert "measured again" in cli_invoke(*line, exit_code=BudgetError.exit_code).stderr


@pytest.mark.usefixtures("known")
def test_options_are_timed(cli_invoke, model, images) -> None:
    line = ("inspect", model, "--data", images, "--json", "--spatial", "--measure")
    found = json.loads(cli_invoke(*line, exit_code=0).stdout)
    assert [frontier["cost"] for frontier in found["frontiers"]] == ["params", "macs", "latency"]
    assert all(option["seconds"] >= 0 for layer in found["layers"] for option in layer["options"])
    assert all(point["seconds"] >= 0 for frontier in found["frontiers"] for point in frontier["points"])


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("{model} -q -v", 2, "-q and -v exclude each other"),
        ("{model} --target params=50%", 2, "No such option"),
        ("{model} --crops lines", 2, "--crops says nothing without --spatial; add that or drop it"),
        ("{model} --target-data {outputs}", 2, "--target-data says nothing without --data; add that or drop it"),
        ("{model} --trust-data-code", 2, "--trust-data-code says nothing without --data; add that or drop it"),
        ("{model} --costs nope.json", 2, "--costs says nothing without --measure; add that or drop it"),
        ("{model} --threads 7", 2, "--threads says nothing without --measure; add that or drop it"),
        ("{outputs} --data {outputs}", NotAModelError.exit_code, "Error: "),
    ],
)
def test_wrong_line_is_refused(cli_invoke, model, outputs, line: str, code: int, said: str) -> None:
    result = cli_invoke("inspect", *line.format(model=model, outputs=outputs).split(), exit_code=code)
    assert said in result.stderr
    assert list(outputs.iterdir()) == []


@pytest.fixture
def recipe(tmp_path: Path, images: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"data: {images}\nspatial: true\nepochs: 4\nthreads: 2\nfail-under-saving:\n  params: 40%\nformat: [onnx]\n"
    )
    return path


def test_a_recipe_of_a_conversion_serves_as_far_as_its_options_are_known(cli_invoke, model, recipe, images) -> None:
    found = json.loads(cli_invoke("inspect", model, "--config", recipe, "--json", exit_code=0).stdout)
    kinds = {option["kind"] for layer in found["layers"] for option in layer["options"]}
    assert kinds == {"keep", "spatial"}
    assert found["command"] == f"vfconvert inspect {model} --spatial --data {images} --threads 2 --json"
    wide = json.loads(cli_invoke("inspect", model, "--config", recipe, "--no-spatial", "--json", exit_code=0).stdout)
    assert {option["kind"] for layer in wide["layers"] for option in layer["options"]} > kinds


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("epochs: -1", "epochs: --epochs: got -1, expected 0 to 1e+06"),
        ("spatail: true", 'got an unknown key; did you mean "spatial"?'),
        ("trust-pickle: true", "a recipe cannot allow that"),
    ],
)
def test_whatever_is_wrong_in_a_recipe_is_said_here_too(cli_invoke, model, tmp_path, line, said) -> None:
    (tmp_path / "bad.yaml").write_text(f"{line}\n")
    result = cli_invoke("inspect", model, "--config", tmp_path / "bad.yaml", exit_code=ConfigError.exit_code)
    assert said in result.stderr
    assert result.stdout == ""


def test_code_that_may_run_is_warned_of(cli_invoke, model) -> None:
    line = ("inspect", model, "--data", "no_such_module:images", "--trust-data-code")
    told = cli_invoke(*line, exit_code=NoImagesError.exit_code).stderr
    assert told.startswith("Warning: --trust-data-code runs the code that --data names; use it only on code you trust.")
