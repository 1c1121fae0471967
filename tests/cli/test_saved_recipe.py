"""`--save-config`: what is written does the same again, and over nothing that is needed."""

from dataclasses import replace

import pytest

from tests.cli.recipe_samples import EVERY, METHOD_BY_PLAN, REFUSED_BESIDE
from tests.cli.test_main import asked as asked_fixture
from vfconvert.cli.main import main
from vfconvert.cli.recipe import keys_of

asked = asked_fixture
CONVERT = main.commands["convert"]


@pytest.mark.parametrize("omitted", [METHOD_BY_PLAN, ("plan", "refine", "windows", "channel-stride", "layer")])
def test_saved_recipe_does_the_same_again(cli_invoke, asked, recipe, tmp_path, monkeypatch, omitted):
    monkeypatch.setattr("vfconvert.outputs.check_outputs", lambda *_: None)
    omitted = (*omitted, *REFUSED_BESIDE, "dry-run", "forms", *(("max-drop",) if "plan" in omitted else ()))
    text = "\n".join(f"{key}: {value}" for key, value in EVERY.items() if key not in omitted)
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    line = ("m.pt", "--seed", 9, "--mean", "1,2,3", "--arch-arg", "a=b", "--no-int8")
    cli_invoke(*line, "--config", recipe(text), "--save-config", first, exit_code=0)
    cli_invoke("--config", first, "--save-config", second, exit_code=0)
    assert replace(asked[1], command="") == replace(asked[0], command="")
    assert (asked[0].seed, asked[0].mean, asked[0].int8) == (9, (1.0, 2.0, 3.0), False)
    assert first.read_text() == second.read_text()


def test_saved_recipe_names_every_key(cli_invoke, asked, tmp_path, monkeypatch):
    monkeypatch.setattr("vfconvert.outputs.check_outputs", lambda *_: None)
    cli_invoke("m.pt", "--spatial", "--save-config", tmp_path / "r.yaml", exit_code=0)
    lines = (tmp_path / "r.yaml").read_text().splitlines()
    named = [line.removeprefix("# ").partition(":")[0] for line in lines if ":" in line and "vfconvert" not in line]
    assert sorted(named) == sorted(keys_of(CONVERT))


def test_saved_recipe_says_what_it_cannot_hold(cli_invoke, asked, tmp_path, monkeypatch):
    monkeypatch.setattr("vfconvert.outputs.check_outputs", lambda *_: None)
    path = tmp_path / "r.yaml"
    code = ("--trust-pickle", "--arch", "n et.py:make")
    cli_invoke("m.pt", "--spatial", *code, "--save-config", path, exit_code=0)
    head, *_ = path.read_text().splitlines()
    assert head.endswith("Again: vfconvert --config THIS_FILE --arch 'n et.py:make' --trust-pickle")
    cli_invoke("--config", path, *code, exit_code=0)
    assert replace(asked[1], command="") == replace(asked[0], command="")


def test_replayed_recipe_gives_the_same_plan(cli_invoke, model_path, images, tmp_path):
    first, second, recipe = (tmp_path / name for name in ("1.json", "2.json", "r.yaml"))
    line = (model_path, "--spatial", "--layer", "3=both:primaries=0.5", "--data", images, "--no-reconstruct")
    cli_invoke(*line, "--no-measure", "--save-plan", first, "--save-config", recipe, "-q", exit_code=0)
    cli_invoke("--config", recipe, "--save-plan", second, "--dry-run", exit_code=0)
    assert first.read_bytes() == second.read_bytes()
    cli_invoke("--config", recipe, "--save-plan", second, "--dry-run", "--layer", "3=spatial", exit_code=0)
    assert first.read_bytes() != second.read_bytes()


def test_recipe_over_the_model_or_another_output_is_refused(cli_invoke, model_path, images, tmp_path):
    read = model_path.read_bytes()
    line = (model_path, "--spatial", "--data", images)
    assert "is the input model" in cli_invoke(*line, "--save-config", model_path, exit_code=19).stderr
    both = ("--save-config", tmp_path / "x", "--save-plan", tmp_path / "x")
    assert "is also what --save-config writes" in cli_invoke(*line, *both, exit_code=19).stderr
    path = tmp_path / "r.yaml"
    path.write_text("spatial: true\n")
    over = (model_path, "--config", path, "--data", images, "--junit", path)
    assert "is the recipe that --config reads" in cli_invoke(*over, exit_code=19).stderr
    assert (model_path.read_bytes(), path.read_text()) == (read, "spatial: true\n")
    assert not (tmp_path / "x").exists()
