"""Images in memory: a loader is read as its dataset where it gives what that has, and refused where not."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from vfconvert.data.given import given_examples
from vfconvert.errors import NoImagesError

DATASET = TensorDataset(torch.rand(6, 3, 4, 4))


def darker(items: list[tuple[Tensor]]) -> Tensor:
    return torch.stack([image / 2 for (image,) in items])


class Pairs(BatchSampler):
    pass


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.rand(6, 3, 4, 4))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_size": 4, "shuffle": True},
        {"batch_size": None},
        {"sampler": RandomSampler(DATASET)},
        {"batch_sampler": BatchSampler(SequentialSampler(DATASET), 2, False)},
    ],
)
def test_a_loader_of_all_images_is_read_as_its_dataset(settings: dict[str, Any]) -> None:
    examples = given_examples(DataLoader(DATASET, **settings))
    assert examples.dataset is DATASET
    assert examples.root == "<TensorDataset>"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"collate_fn": darker},
            r"a collate_fn of its own \(darker\).*expected torch's default_collate; give",
        ),
        ({"sampler": SubsetRandomSampler([0, 1])}, r"a sampler of its own \(SubsetRandomSampler\).*Subset\(dataset"),
        ({"sampler": WeightedRandomSampler([1.0] * 6, 3)}, r"a sampler of its own \(WeightedRandomSampler\)"),
        ({"sampler": [0, 1, 2]}, r"a sampler of its own \(list\)"),
        ({"batch_sampler": Pairs(SequentialSampler(DATASET), 2, False)}, r"a batch_sampler of its own \(Pairs\)"),
        ({"batch_sampler": [[0, 1], [2, 3]]}, r"a batch_sampler of its own \(list\)"),
    ],
)
def test_a_loader_that_chooses_or_changes_images_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(NoImagesError, match=said):
        given_examples(DataLoader(DATASET, **settings))


def test_a_batch_sampler_over_some_images_is_refused() -> None:
    loader = DataLoader(DATASET, batch_sampler=BatchSampler(SubsetRandomSampler([0, 1]), 2, False))
    with pytest.raises(NoImagesError, match=r"a sampler of its own \(SubsetRandomSampler\)"):
        given_examples(loader)


def test_a_subset_is_read_as_such() -> None:
    assert len(given_examples(Subset(DATASET, [0, 1, 2]))) == 3


def test_a_stream_is_refused() -> None:
    for data in (Stream(), DataLoader(Stream())):
        with pytest.raises(NoImagesError, match=r"got a Stream, expected a path, .* a dataset with a length"):
            given_examples(data)


@pytest.mark.parametrize("kind", [tuple, list])
def test_tensors_side_by_side_are_refused_with_what_to_give(kind: type) -> None:
    both = kind((torch.rand(4, 3, 8, 8), torch.rand(4, 1, 8, 8)))
    with pytest.raises(
        NoImagesError, match=rf"got a {kind.__name__} of 2 tensors .* give torch.*TensorDataset\(\*data\)"
    ):
        given_examples(both)
    assert len(given_examples([torch.rand(3, 8, 8), torch.rand(3, 8, 8)])) == 2
