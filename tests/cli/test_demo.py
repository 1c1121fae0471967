from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from vfconvert import pipeline
from vfconvert.cli import demo_steps
from vfconvert.errors import FitError, UnwritableOutputError

FILES = ["model.onnx", "model.pt", "report.html", "report.json", "test", "train"]
convert = pipeline.convert


@pytest.fixture
def hurried(monkeypatch):
    """The demo with one epoch of training and a conversion without reconstruction; what the pipeline was asked for."""
    asked = []

    def hurry(options, progress, watcher=None):
        asked.append(options)
        return convert(replace(options, reconstruct=False, calibration_images=64), progress)

    train = demo_steps.train_network
    monkeypatch.setattr(pipeline, "convert", hurry)
    monkeypatch.setattr(demo_steps, "train_network", lambda *images, **settings: train(*images, epochs=1, **settings))
    return asked


def accuracies(folder: Path) -> tuple[str, str]:
    """What the model file and the ONNX file make of the test images, computed one image at a time."""
    network = torch.load(folder / "model.pt", weights_only=False)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    right, paths = np.zeros(2), sorted((folder / "test").rglob("*.png"))
    for path in paths:
        pixels = (np.asarray(Image.open(path), dtype=np.float32)[None, None] / 255 - 0.305) / 0.376
        with torch.no_grad():
            answers = network(torch.from_numpy(pixels)).numpy(), session.run(None, {"input": pixels})[0]
        right += [answer.argmax() == int(path.parent.name) for answer in answers]
    assert len(paths) == 360
    before, after = np.floor(right / 360 * 10_000 + 1e-6) / 100
    return f"{before:.2f}", f"{after:.2f}"


def test_demo_converts_its_own_model_by_the_command_that_it_prints(cli_invoke, hurried, tmp_path):
    folder = tmp_path / "demo"
    result = cli_invoke("demo", "--directory", folder, "--seed", 2, exit_code=0)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    (options,) = hurried
    assert f"\n$ {options.command}\n" in result.stdout
    assert options.command == (
        f"vfconvert {folder}/model.pt --spatial --channel --data {folder}/train --mean 0.305 --std 0.376 --seed 2 "
        f"-o {folder}/model.onnx --report {folder}/report.html --report {folder}/report.json"
    )
    (row,) = [line.split() for line in result.stdout.splitlines() if line.startswith(" accuracy ")]
    before, after = accuracies(folder)
    assert row == ["accuracy", before, "%", after, "%"]
    assert result.stderr == ""


def test_second_demo_says_what_it_uses_again_and_overwrites(cli_invoke, hurried, tmp_path, monkeypatch):
    def stop(options, progress, watcher=None):
        raise FitError("far enough")

    assert demo_steps.prepare_images(tmp_path, seed=0) is True
    images = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    (tmp_path / "model.pt").write_bytes(b"old")
    (tmp_path / "report.json").write_bytes(b"old")
    monkeypatch.setattr(pipeline, "convert", stop)
    result = cli_invoke("demo", "--directory", tmp_path, "--seed", 3, exit_code=FitError.exit_code)
    assert "Images used again" in result.stdout
    assert "will be overwritten: model.pt, report.json" in result.stdout
    assert result.stderr == "Error: far enough\n"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == images
    assert (tmp_path / "model.pt").stat().st_size > 10_000


def test_images_are_written_once_and_of_one_split(tmp_path):
    assert demo_steps.prepare_images(tmp_path, seed=0) is True
    train, test = ({path.name for path in (tmp_path / part).rglob("*.png")} for part in ("train", "test"))
    assert (len(train), len(test), len(train & test)) == (1437, 360, 0)
    assert demo_steps.prepare_images(tmp_path, seed=1) is False
    assert {path.name for path in (tmp_path / "train").rglob("*.png")} == train


@pytest.mark.parametrize("part", ["train", "test"])
def test_half_a_split_is_refused(tmp_path, part):
    (tmp_path / part).mkdir()
    with pytest.raises(UnwritableOutputError, match=f"holds '{part}' without the other"):
        demo_steps.prepare_images(tmp_path, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == [part]


def test_directory_that_is_a_file_is_refused_in_one_line(cli_invoke, tmp_path):
    (tmp_path / "taken").write_text("mine")
    result = cli_invoke("demo", "--directory", tmp_path / "taken", exit_code=UnwritableOutputError.exit_code)
    assert result.stderr.startswith(f"Error: cannot write {tmp_path / 'taken'}: ")
    assert result.stderr.count("\n") == 1
    assert (tmp_path / "taken").read_text() == "mine"


def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    def stop(root: Path, *, seed: int) -> None:
        (root / "train").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_steps, "write_folder", stop)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        demo_steps.prepare_images(tmp_path, seed=0)
    assert list(tmp_path.iterdir()) == []
