"""Images that a caller holds in memory: a tensor, a dataset, or a loader that reads a dataset as it is."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data.dataloader import default_collate, default_convert

from vfconvert.data.foreign import DatasetExamples
from vfconvert.errors import NoImagesError


def given_examples(data: Any) -> DatasetExamples:
    """What may be read of a tensor `(N, C, H, W)`, a dataset with a length, or a loader of one.

    Of a loader the dataset is read, in an order and in batches of our own. Raises `NoImagesError` where the loader
    would give other images than its dataset has, and where there are no images, or fewer than 2.
    """
    if isinstance(data, DataLoader):
        _check_loader(data)
        data = data.dataset
    if isinstance(data, Tensor) and data.dim() != 4:
        raise NoImagesError(f"data: got a tensor {tuple(data.shape)}, expected images (N, C, H, W)")
    if isinstance(data, (tuple, list)) and data and all(isinstance(one, Tensor) and one.dim() == 4 for one in data):
        raise NoImagesError(
            f"data: got a {type(data).__name__} of {len(data)} tensors of images, expected a dataset of items; give "
            "torch.utils.data.TensorDataset(*data) for images with labels or for several inputs, torch.cat(data) for "
            "batches"
        )
    if isinstance(data, IterableDataset) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise NoImagesError(
            f"data: got a {type(data).__name__}, expected a path, a tensor (N, C, H, W), or a dataset with a length "
            "and items"
        )
    if len(data) < 2:
        raise NoImagesError(f"data: got {len(data)} image(s), expected at least 2: one to fit, one to verify")
    return DatasetExamples(f"<{type(data).__name__}>", data)


def _check_loader(loader: DataLoader[Any]) -> None:
    """Raise `NoImagesError` where a loader chooses or changes what its dataset gives."""
    if isinstance(loader.dataset, IterableDataset):
        return  # refused as what it is
    if loader.collate_fn not in (default_collate, default_convert):
        raise NoImagesError(
            f"data: got a loader with a collate_fn of its own ({_name(loader.collate_fn)}), which would be left out, "
            "expected torch's default_collate; give a dataset whose items are prepared, or a tensor of all images"
        )
    batches = loader.batch_sampler
    for part, chosen, known in (
        ("batch_sampler", batches, (BatchSampler, type(None))),
        ("sampler", getattr(batches, "sampler", loader.sampler), (SequentialSampler, RandomSampler)),
    ):
        if type(chosen) not in known:
            raise NoImagesError(
                f"data: got a loader with a {part} of its own ({_name(chosen)}), which would be left out, expected all "
                "images of the dataset; give the dataset itself, or torch.utils.data.Subset(dataset, indices) for some"
            )


def _name(value: object) -> str:
    return getattr(value, "__name__", type(value).__name__)
