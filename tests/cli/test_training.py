"""`--epochs` end to end: the file, the report and the log of a run; a run that is stopped; several processes."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import onnx
import pytest
import torch

from tests.cli.conftest import write_images
from tests.cli.training_samples import FAST, filled
from vfconvert.errors import (
    NoImagesError,
    TrainingError,
    UnreadableImageError,
    UntrustedModelError,
    UnwritableOutputError,
)
from vfconvert.training.checkpoint import NAME, read_checkpoint, to_bytes

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model that is sure of its three classes, and 120 labelled images."""
    return filled(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    from tests.cli.conftest import invoke

    out = tmp_path_factory.mktemp("run")
    line = ("--spatial", "--data", folder / "images", "--epochs", 2, "-o", out / "m.onnx", "--report", out / "r.json")
    invoke(folder / "model.pt", *line, *FAST, exit_code=0)
    return out


def test_the_report_tells_the_training(run):
    report = json.loads((run / "r.json").read_text())
    training = report["training"]
    assert (training["task"], training["metric"], training["steps"]) == ("classification", "top1", 12)
    assert [record["epoch"] for record in training["epochs"]] == [0, 1, 2]
    assert all(0 <= record["top1"] <= 100 for record in training["epochs"])
    assert training["seconds"] > 0
    assert report["agreement"]["images"] == 12  # half of those held out; the other half chose the epoch
    onnx.checker.check_model(onnx.load(run / "m.onnx"))


def test_checkpoint_log_and_plan_are_beside_the_output(run):
    kept = run / "m.training"
    assert {path.name for path in kept.iterdir()} == {NAME, "log.jsonl", "plan.json", "exported"}
    lines = [json.loads(line) for line in (kept / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "epoch" in line] == [0, 1, 2]
    assert {"step", "loss", "rate", "images_per_second"} <= set(lines[-2])


def test_training_goes_on_from_the_plan_that_refining_took_and_shows_several_views(
    cli_invoke, folder, tmp_path, monkeypatch
):
    line = ("--target", "params=75%", "--refine", 1, "--data", folder / "images", "--epochs", 1, "--padding", 1, *FAST)
    once = (*line, "--views", 2, "--checkpoints", tmp_path / "kept", "--report", tmp_path / "r.json")
    cli_invoke(folder / "model.pt", *once, "-o", tmp_path / "m.onnx", exit_code=0)
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["training"]["steps"] == 12  # 96 images, twice
    assert len(report["budget"]["trials"]) == 2
    assert report["agreement"]["images"] == 12
    monkeypatch.setattr("vfconvert.run.compress", lambda *_: pytest.fail("fitted again"))
    cli_invoke(folder / "model.pt", *once, "--resume", "-o", tmp_path / "again.onnx", exit_code=0)
    other = (*line, "--views", 3, "--checkpoints", tmp_path / "kept", "--resume", "-o", tmp_path / "other.onnx")
    stderr = cli_invoke(folder / "model.pt", *other, exit_code=TrainingError.exit_code).stderr
    assert "views 2 there and 3 here" in stderr


def test_a_checkpoint_that_does_not_know_of_views_goes_on(cli_invoke, folder, run, tmp_path):
    kept = tmp_path / "kept"
    shutil.copytree(run / "m.training", kept)
    state = read_checkpoint(kept)
    assert {"views", "refine"} <= set(state.identity)
    older = {name: value for name, value in state.identity.items() if name not in ("views", "refine")}
    (kept / NAME).write_bytes(to_bytes(dataclasses.replace(state, identity=older)))
    line = ("--spatial", "--data", folder / "images", "--epochs", 2, "--checkpoints", kept, "--resume")
    cli_invoke(folder / "model.pt", *line, *FAST, "-o", tmp_path / "again.onnx", exit_code=0)
    assert (tmp_path / "again.onnx").exists()


def test_a_run_at_its_end_is_exported_again_without_training(cli_invoke, folder, run, tmp_path, monkeypatch):
    monkeypatch.setattr("vfconvert.training.learner.Learner.step", lambda *_: pytest.fail("a step"))
    monkeypatch.setattr("vfconvert.run.compress", lambda *_: pytest.fail("fitted again"))
    line = ("--spatial", "--data", folder / "images", "--epochs", 2, "--checkpoints", run / "m.training", "--resume")
    cli_invoke(folder / "model.pt", *line, *FAST, "-o", tmp_path / "again.onnx", exit_code=0)
    first, second = (onnx.load(path).graph.initializer for path in (run / "m.onnx", tmp_path / "again.onnx"))
    assert [tensor.raw_data for tensor in first] == [tensor.raw_data for tensor in second]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("--epochs", 3), "its checkpoint is of another run: epochs 2 there and 3 here"),
        (("--epochs", 2, "--channel"), "its checkpoint is of another run: channel"),
        (("--epochs", 2, "--seed", 5), "its checkpoint is of another run: seed 0 there and 5 here"),
    ],
)
def test_another_run_does_not_go_on_from_it(cli_invoke, folder, run, tmp_path, line, said):
    before = (run / "m.training" / NAME).read_bytes()
    given = ("--spatial", "--data", folder / "images", "--checkpoints", run / "m.training", "--resume", *line)
    result = cli_invoke(
        folder / "model.pt", *given, *FAST, "-o", tmp_path / "x.onnx", exit_code=TrainingError.exit_code
    )
    assert said in result.stderr
    assert (run / "m.training" / NAME).read_bytes() == before
    assert not (tmp_path / "x.onnx").exists()


def command(folder, out, *more):
    line = ("--spatial", "--data", folder / "images", "--epochs", 2, "-o", out / "m.onnx", *FAST, *more)
    return [sys.executable, "-m", "vfconvert", str(folder / "model.pt"), *map(str, line)]


def test_sigterm_leaves_a_checkpoint_and_resume_ends_with_the_same_file(folder, run, tmp_path):
    """Slow steps: the signal comes while the run is at work."""
    line = [word for word in command(folder, tmp_path, "--checkpoint-minutes", "0")[3:] if word != "-q"]
    program = [sys.executable, "-c", _SLOWLY, *line]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    while not (tmp_path / "m.training" / NAME).exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert told.index("Stopping when this step") < told.index("Stopped at step")
    assert "--resume" in told
    assert [path.name for path in tmp_path.iterdir()] == ["m.training"]
    again = subprocess.run(command(folder, tmp_path), capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert again.returncode == TrainingError.exit_code
    assert "add --resume to go on from it" in again.stderr
    subprocess.run(command(folder, tmp_path, "--resume"), check=True, env=ENVIRONMENT)
    whole = tmp_path / "whole"
    whole.mkdir()
    subprocess.run(command(folder, whole), check=True, env=ENVIRONMENT)  # of as many threads
    first, second = (onnx.load(path / "m.onnx").graph.initializer for path in (whole, tmp_path))
    assert [tensor.raw_data for tensor in first] == [tensor.raw_data for tensor in second]


_SLOWLY = """
import sys, time
from vfconvert.training import learner
step = learner.Learner.step
def slow(*arguments, **keywords):
    time.sleep(0.15)
    return step(*arguments, **keywords)
learner.Learner.step = slow
from vfconvert.cli.main import main
main(sys.argv[1:])
"""


def test_two_processes_write_one_file(folder, tmp_path):
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "vfconvert",
    ]
    line = command(folder, tmp_path, "--report", tmp_path / "r.json")[3:]
    ran = subprocess.run([*torchrun, *line], capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(tmp_path / "m.onnx")]
    training = json.loads((tmp_path / "r.json").read_text())["training"]
    assert training["processes"] == 2
    assert [record["epoch"] for record in training["epochs"]] == [0, 1, 2]


def test_flat_folders_are_trained_towards_the_teacher(cli_invoke, folder, tmp_path):
    line = ("--spatial", "--data", folder / "images" / "a", "--epochs", 1, "--report", tmp_path / "r.json")
    cli_invoke(folder / "model.pt", *line, *FAST, "-o", tmp_path / "m.onnx", exit_code=0)
    training = json.loads((tmp_path / "r.json").read_text())["training"]
    assert (training["task"], training["metric"]) == ("distil", "agreement")


def test_folders_that_are_not_the_networks_classes_are_no_labels(cli_invoke, folder, tmp_path):
    for name in "ab":
        write_images(tmp_path / "images" / name, 20, 3)
    line = ("--spatial", "--data", tmp_path / "images", "--epochs", 1, *FAST, "-o", tmp_path / "m.onnx")
    cli_invoke(folder / "model.pt", *line, "--report", tmp_path / "r.json", exit_code=0)
    assert json.loads((tmp_path / "r.json").read_text())["training"]["metric"] == "agreement"
    more = ("--label-weight", 1, "--checkpoints", tmp_path / "other")
    result = cli_invoke(folder / "model.pt", *line, *more, exit_code=TrainingError.exit_code)
    assert "--label-weight needs labels of the network's own classes" in result.stderr


def test_images_that_cannot_be_decoded_are_skipped_and_named(cli_invoke, folder, tmp_path):
    for seed, name in enumerate("abc"):
        write_images(tmp_path / "images" / name, 20, seed)
    bad = sorted((tmp_path / "images").rglob("*.png"))[::20]  # the first of all among them
    for path in bad:
        path.write_bytes(b"no picture")
    line = ("--spatial", "--data", tmp_path / "images", "--epochs", 1, *FAST, "-o", tmp_path / "m.onnx")
    more = ("--most-unreadable", 0.1, "--report", tmp_path / "r.json")
    cli_invoke(folder / "model.pt", *line, *more, exit_code=0)
    training = json.loads((tmp_path / "r.json").read_text())["training"]
    assert training["unreadable"]
    assert set(training["unreadable"]) <= {path.relative_to(tmp_path / "images").as_posix() for path in bad}
    other = ("--checkpoints", tmp_path / "other")
    stderr = cli_invoke(folder / "model.pt", *line, *other, exit_code=UnreadableImageError.exit_code).stderr
    assert "cannot be decoded, more than 0.01 of all" in stderr


def test_a_folder_that_takes_no_checkpoint_is_refused_before_any_work(cli_invoke, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("vfconvert.run.compress", lambda *_: pytest.fail("fitted"))
    (tmp_path / "file").write_text("")
    line = ("--spatial", "--data", folder / "images", "--epochs", 1, *FAST, "-o", tmp_path / "m.onnx")
    given = (*line, "--checkpoints", tmp_path / "file" / "below")
    result = cli_invoke(folder / "model.pt", *given, exit_code=UnwritableOutputError.exit_code)
    assert "is a file, expected a folder" in result.stderr


def test_code_is_run_only_where_the_user_says_so(cli_invoke, folder, tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "def images():\n"
        "    generator = torch.Generator().manual_seed(0)\n"
        "    return [torch.randn(3, 8, 8, generator=generator) for _ in range(40)]\n"
    )
    line = ("--spatial", "--data", f"{tmp_path}/own.py:images", "--epochs", 1, *FAST, "-o", tmp_path / "m.onnx")
    result = cli_invoke(folder / "model.pt", *line, exit_code=UntrustedModelError.exit_code)
    assert "--trust-data-code" in result.stderr
    result = cli_invoke(folder / "model.pt", *line, "--trust-data-code", exit_code=0)
    assert "Warning: --trust-data-code runs the code that --data names" in result.stderr


def test_super_resolution_is_judged_by_psnr(cli_invoke, folder, tmp_path):
    torch.manual_seed(0)
    body = [torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 3, padding=1)]
    torch.save(torch.nn.Sequential(*body, torch.nn.ReLU(), torch.nn.Conv2d(16, 3, 3, padding=1)), tmp_path / "sr.pt")
    line = ("--spatial", "--data", folder / "images", "--scale", 2, "--patch", 8, "--epochs", 1, *FAST)
    out = ("-o", tmp_path / "m.onnx", "--report", tmp_path / "r.json")
    cli_invoke(tmp_path / "sr.pt", *line, *out, exit_code=0)
    training = json.loads((tmp_path / "r.json").read_text())["training"]
    assert (training["task"], training["metric"]) == ("restoration", "psnr")
    assert training["epochs"][0]["psnr"] > 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--spatial --rate 0.1", "--rate says nothing without --epochs; add that or drop it"),
        ("--spatial --epochs 2", "--epochs trains on images; add --data"),
    ],
)
def test_options_that_say_nothing(cli_invoke, line, said):
    assert said in cli_invoke("m.pt", *line.split(), exit_code=2).stderr


@pytest.mark.parametrize(
    ("line", "error", "said"),
    [
        (("--batch", "0"), TrainingError, "--batch: got 0, expected 1"),
        (("--task", "segmentation"), TrainingError, "the task segmentation does not fit"),
        (("--most-unreadable", "2"), TrainingError, "--most-unreadable: got 2, expected a share from 0 to below 1"),
        (("--crop-scale", "0.5"), TrainingError, "--crop-scale: got 0.5, expected the least and the most share"),
    ],
)
def test_wrong_values_are_one_line(cli_invoke, folder, tmp_path, line, error, said):
    given = ("--spatial", "--data", folder / "images", "--epochs", 1, *FAST, "-o", tmp_path / "m.onnx", *line)
    stderr = cli_invoke(folder / "model.pt", *given, exit_code=error.exit_code).stderr
    assert said in stderr
    assert "Traceback" not in stderr


def test_too_few_images(cli_invoke, folder, tmp_path):
    write_images(tmp_path / "few", 1, 1)
    given = ("--spatial", "--data", tmp_path / "few", "--epochs", 1, *FAST, "-o", tmp_path / "m.onnx")
    cli_invoke(folder / "model.pt", *given, exit_code=NoImagesError.exit_code)
