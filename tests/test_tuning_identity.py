"""Images are known by their names: those of files wherever they lie, what code gives by the name of that code."""

from pathlib import Path

import torch

from vfconvert.data.foreign import DatasetExamples
from vfconvert.data.shards import ShardExamples
from vfconvert.tuning_identity import _named


def shards(folder: str, name: str = "train") -> ShardExamples:
    places = torch.tensor([[0, 0, 10, 1], [1, 0, 10, 1]])
    paths = (Path(folder) / f"{name}-0.tar", Path(folder) / f"{name}-1.tar")
    return ShardExamples(f"{folder}/{name}-{{0..1}}.tar", paths, ("a.jpg", "b.jpg"), places, 0)


def test_shards_are_the_same_elsewhere_and_others_are_not() -> None:
    assert _named(shards("/here")) == _named(shards("/there"))
    assert _named(shards("/here")) != _named(shards("/here", "val"))


def test_datasets_of_equal_length_differ_by_what_they_are_called() -> None:
    ten, hundred = (DatasetExamples(f"torchvision:{name}:/d", [0, 1, 2]) for name in ("CIFAR10", "CIFAR100"))
    assert _named(ten) != _named(hundred)
    assert _named(ten) == _named(DatasetExamples("torchvision:CIFAR10:/d", [3, 4, 5]))
