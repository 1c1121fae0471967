"""What a training that ends before its time leaves: the fit, the last checkpoint, and how to go on from either."""

import dataclasses
import json
import shutil

import numpy as np
import onnx
import pytest

import vfconvert.run
from tests.cli.training_samples import FAST, filled
from vfconvert.errors import PreprocessingError, TrainingError
from vfconvert.training import learner
from vfconvert.training.checkpoint import FIT, NAME, read_checkpoint, to_bytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("training"))


@pytest.mark.parametrize(
    ("line", "error", "said"),
    [
        (("--train-precision", "fp16"), TrainingError, "--train-precision fp16 trains on CUDA devices only, got cpu"),
        (("--task", "segmentation"), TrainingError, "the task segmentation does not fit outputs"),
        (("--label-weight", 1, "--data", "flat"), TrainingError, "--label-weight needs labels"),
        (("--padding", 20), PreprocessingError, "--padding: got 20, expected less than each side of an image"),
    ],
    ids=["precision", "task", "labels", "padding"],
)
def test_what_cannot_be_trained_is_told_before_the_fit(cli_invoke, folder, tmp_path, monkeypatch, line, error, said):
    monkeypatch.setattr("vfconvert.run.compress", lambda *_: pytest.fail("fitted"))
    shutil.copytree(folder / "images" / "a", tmp_path / "flat")
    monkeypatch.chdir(tmp_path)
    given = ("--spatial", "--data", folder / "images", "--epochs", 1, *FAST, "-o", "m.onnx")
    assert said in cli_invoke(folder / "model.pt", *given, *line, exit_code=error.exit_code).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["flat"]


def test_a_fault_of_the_training_does_not_lose_the_fit(cli_invoke, folder, tmp_path, monkeypatch):
    """Neither before the first validation; other options of the training start from it as well."""
    line = ("--spatial", "--data", folder / "images", "--epochs", 1, *FAST, "-o", tmp_path / "m.onnx")
    with monkeypatch.context() as patched:
        patched.setattr("vfconvert.training.loop.evaluate", lambda *_, **__: 1 / 0)
        cli_invoke(folder / "model.pt", *line, exit_code=1)
    kept = tmp_path / "m.training"
    assert {path.name for path in kept.iterdir()} == {FIT, "plan.json", "log.jsonl"}
    monkeypatch.setattr("vfconvert.run.compress", lambda *_: pytest.fail("fitted again"))
    result = cli_invoke(folder / "model.pt", *line, "--rate", "1e-4", "--padding", 1, exit_code=0)
    assert f"training from the fit of an earlier run in {kept}" in "".join(result.stderr.splitlines())
    assert {path.name for path in kept.iterdir()} == {NAME, "plan.json", "log.jsonl", "exported"}


@pytest.fixture
def lost(cli_invoke, folder, tmp_path):
    """The command line of a run that is lost after the fit of a plan within a budget, and what is to be counted."""
    line = ("--target", "params=80%", "--data", folder / "images", "--epochs", 1, *FAST, "-o", tmp_path / "m.onnx")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("vfconvert.training.loop.evaluate", lambda *_, **__: 1 / 0)
        cli_invoke(folder / "model.pt", *line, exit_code=1)
    assert (tmp_path / "m.training" / FIT).exists()
    return line


def test_a_kept_fit_of_a_plan_within_a_budget_has_its_report(cli_invoke, folder, tmp_path, monkeypatch, lost):
    monkeypatch.setattr("vfconvert.run.compress", lambda *_: pytest.fail("fitted again"))
    cli_invoke(folder / "model.pt", *lost, "--report", tmp_path / "r.json", exit_code=0)
    report = json.loads((tmp_path / "r.json").read_text())
    assert [target["target"] for target in report["budget"]["targets"]] == ["params=80%"]
    assert all(row["damage"] is not None for row in report["layers"] if row["decision"] == "convert")


def others_of_the_same_names(folder, out):
    shutil.copytree(folder / "images", out / "images")
    for path in (out / "images").rglob("*.png"):
        shutil.copy(folder / "images" / "a" / "0.png", path)
    return out / "images"


@pytest.mark.parametrize("change", ["target", "seed", "images", "version"])
def test_a_fit_of_another_conversion_is_not_taken(cli_invoke, folder, tmp_path, monkeypatch, lost, change):
    fits = []
    compress = vfconvert.run.compress
    monkeypatch.setattr("vfconvert.run.compress", lambda *given: fits.append(1) or compress(*given))
    line = {
        "target": tuple("params=55%" if part == "params=80%" else part for part in lost),
        "seed": (*lost, "--seed", 3),
        "images": (*lost, "--data", others_of_the_same_names(folder, tmp_path)),
        "version": lost,
    }[change]
    if change == "version":
        monkeypatch.setattr("vfconvert.tuning_identity.__version__", "0")
    result = cli_invoke(folder / "model.pt", *line, "--resume", exit_code=0)
    assert "no checkpoint in" in result.stderr
    assert "beginning anew" in result.stderr
    assert fits == [1]


def test_a_fit_that_is_damaged_is_made_again(cli_invoke, folder, tmp_path, monkeypatch, lost):
    fits = []
    compress = vfconvert.run.compress
    monkeypatch.setattr("vfconvert.run.compress", lambda *given: fits.append(1) or compress(*given))
    content = (tmp_path / "m.training" / FIT).read_bytes()
    (tmp_path / "m.training" / FIT).write_bytes(content[: len(content) // 2])
    cli_invoke(folder / "model.pt", *lost, exit_code=0)
    assert fits == [1]


@pytest.fixture
def stopped(cli_invoke, folder, tmp_path):
    """A run of which three steps were done and nothing was written, and its command line."""
    line = ("--spatial", "--data", folder / "images", "--epochs", 4, *FAST, "-o", tmp_path / "m.onnx")
    with pytest.MonkeyPatch.context() as patched:
        step = learner.Learner.step

        def third(self, batch, number, rate, **more):
            if number == 9:
                raise TrainingError("stopped")
            return step(self, batch, number, rate, **more)

        patched.setattr("vfconvert.training.learner.Learner.step", third)
        cli_invoke(folder / "model.pt", *line, exit_code=TrainingError.exit_code)
    return tmp_path, line


def test_a_run_is_finished_with_what_it_has(cli_invoke, folder, stopped, monkeypatch):
    out, line = stopped
    monkeypatch.setattr("vfconvert.training.learner.Learner.step", lambda *_: pytest.fail("a step"))
    cli_invoke(folder / "model.pt", *line, "--resume", "--finish", "--report", out / "r.json", exit_code=0)
    training = json.loads((out / "r.json").read_text())["training"]
    assert training["steps"] == 6
    assert [record["epoch"] for record in training["epochs"]] == [0, 1]
    state = read_checkpoint(out / "m.training")
    kept, held = state.tensors["best.8.weight"].numpy(), onnx.load(out / "m.onnx").graph.initializer
    assert any(np.array_equal(onnx.numpy_helper.to_array(one).reshape(-1), kept.reshape(-1)) for one in held)


def test_nothing_to_finish(cli_invoke, folder, tmp_path):
    line = ("--spatial", "--data", folder / "images", "--epochs", 1, *FAST, "-o", tmp_path / "m.onnx")
    alone = cli_invoke(folder / "model.pt", *line, "--finish", exit_code=TrainingError.exit_code)
    assert "--finish ends the run that --resume goes on from; give both" in alone.stderr
    both = cli_invoke(folder / "model.pt", *line, "--resume", "--finish", exit_code=TrainingError.exit_code)
    assert "m.training holds no checkpoint" in both.stderr


def test_a_checkpoint_of_an_earlier_version_goes_on(cli_invoke, folder, stopped):
    """As those before images were known by their names said what they are of."""
    out, line = stopped
    state = read_checkpoint(out / "m.training")
    identity = {name: value for name, value in state.identity.items() if name not in ("images named", "target images")}
    assert identity["targets"] == "()"
    identity |= {"data": str(folder / "images"), "target_data": "None", "patience": 0}
    (out / "m.training" / NAME).write_bytes(to_bytes(dataclasses.replace(state, identity=identity)))
    cli_invoke(folder / "model.pt", *line, "--resume", exit_code=0)


def test_a_plan_within_another_budget_is_another_run(cli_invoke, folder, tmp_path):
    line = ("--data", folder / "images", "--epochs", 1, *FAST, "-o", tmp_path / "m.onnx", "--resume")
    cli_invoke(folder / "model.pt", "--target", "params=80%", *line, exit_code=0)
    other = cli_invoke(folder / "model.pt", "--target", "params=60%", *line, exit_code=TrainingError.exit_code)
    assert "its checkpoint is of another run: targets" in other.stderr


def test_images_may_lie_elsewhere_when_a_run_goes_on(cli_invoke, folder, stopped):
    out, line = stopped
    shutil.copytree(folder / "images", out / "moved")
    moved = tuple(out / "moved" if part == folder / "images" else part for part in line)
    cli_invoke(folder / "model.pt", *moved, "--resume", "--patience", 1, exit_code=0)
    (out / "moved" / "a" / "0.png").rename(out / "moved" / "a" / "other.png")
    again = cli_invoke(folder / "model.pt", *moved, "--resume", exit_code=TrainingError.exit_code)
    assert "its checkpoint is of another run: images named" in again.stderr


def test_a_run_of_other_training_options_says_how_to_keep_the_fit(cli_invoke, folder, stopped):
    out, line = stopped
    before = cli_invoke(folder / "model.pt", *line, exit_code=TrainingError.exit_code).stderr
    assert f"or remove {out / 'm.training' / NAME} to train anew" in before
    other = (*line, "--rate", "1e-5", "--resume")
    said = cli_invoke(folder / "model.pt", *other, exit_code=TrainingError.exit_code).stderr
    assert f"give the same options, or remove {out / 'm.training' / NAME} to train anew" in said
    (out / "m.training" / "plan.json").unlink()
    gone = cli_invoke(folder / "model.pt", *line, "--resume", exit_code=TrainingError.exit_code).stderr
    assert "plan.json is missing, without which the checkpoint says nothing; remove" in gone
