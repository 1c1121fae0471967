"""What is said of labels that are not of the network's own classes, or look as if they were not."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.test_samples import Shades, read
from vfconvert.data.examples import FolderExamples
from vfconvert.data.folder import ImageFolder
from vfconvert.judging import doubtful_labels

NO_LABELS = "they do not count as labels, so no accuracy is reported, and neither gates nor --epochs go by it"


def said(names: tuple[str, ...], outputs: torch.Tensor) -> tuple[str, ...]:
    folder = ImageFolder(root=Path("data"), paths=(), labels=(), classes=names)
    source, images = read()
    source = replace(source, examples=FolderExamples(folder))
    return doubtful_labels(outputs, replace(images, classes=len(names)), source)


@pytest.mark.parametrize(
    ("names", "classes", "wanted"),
    [
        (("a", "b", "c"), 2, f"--data has 3 subfolders and the network 2 classes: {NO_LABELS}"),
        (("a", "b"), 1000, f"--data has 2 subfolders and the network 1,000 classes: {NO_LABELS}"),
        (("a", "b"), 1, f"--data has 2 subfolders and the network one output: {NO_LABELS}"),
        (
            ("train", "val"),
            10,
            f"--data has 2 subfolders (train, val) and the network 10 classes: {NO_LABELS}; as parts of a data set "
            "give one of them, like --data data/val",
        ),
        (
            ("Test", "Train"),
            2,
            "--data has 2 subfolders (Test, Train), which count as the network's classes; as parts of a data set give "
            "one of them, like --data data/Train",
        ),
        (
            ("train",),
            10,
            f"--data has 1 subfolder (train) and the network 10 classes: {NO_LABELS}; as parts of a data set give one "
            "of them, like --data data/train",
        ),
    ],
)
def test_labels_that_do_not_match_are_told(names: tuple[str, ...], classes: int, wanted: str) -> None:
    assert said(names, torch.zeros(6, classes)) == (wanted,)


@pytest.mark.parametrize(
    ("names", "shape"),
    [
        pytest.param(("a", "b", "c"), (6, 3), id="the network's classes"),
        pytest.param(("all",), (6, 3), id="one folder"),
        pytest.param(("a", "b"), (6, 3, 8, 8), id="an output that is no row of classes"),
        pytest.param(("train", "val"), (6, 3, 8, 8), id="parts for such a one"),
    ],
)
def test_nothing_is_said_where_labels_match_or_are_not_asked_for(names: tuple[str, ...], shape: tuple[int]) -> None:
    assert said(names, torch.zeros(shape)) == ()


def test_labels_of_a_dataset_are_no_folders() -> None:
    source, images = read(examples=Shades(classes=3))
    wanted = f"--data has labels of 3 classes and the network 5 classes: {NO_LABELS}"
    assert doubtful_labels(torch.zeros(6, 5), images, source) == (wanted,)
    assert doubtful_labels(torch.zeros(6, 5), replace(images, labels=None), source) == ()
