"""The one way in which tests call the command, and small real files for it to read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import nn

from vfconvert.cli.main import main

SIDE = 12


def invoke(*arguments: object, exit_code: int) -> Result:
    """Call the command in this process, and assert the exit code."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="vfconvert")
    assert result.exit_code == exit_code, f"{result.output}\n{result.exception!r}"
    return result


@pytest.fixture(scope="session")
def cli_invoke() -> Callable[..., Result]:
    """`cli_invoke("model.pt", "--spatial", exit_code=0)`."""
    return invoke


def network(classes: int = 3) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, classes),
    )


def write_images(folder: Path, count: int, seed: int) -> None:
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index}.png")


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    torch.save(network(), path)
    return path


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 images in three classes."""
    root = tmp_path_factory.mktemp("images")
    for index, name in enumerate("abc"):
        write_images(root / name, 10, index)
    return root


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs"
    folder.mkdir()
    return folder


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return write
