"""Examples into batches: in a seeded order, decoded in worker processes, split over ranks.

Every bit of a batch follows from (seed, epoch, number of the batch). How many workers decode, how many ranks share a
batch, and whether an earlier run stopped in the middle changes nothing but who decodes what.
"""

from __future__ import annotations

import hashlib
import math
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vfconvert.data.examples import Examples
from vfconvert.data.tensors import split_images
from vfconvert.data.transforms import Transform
from vfconvert.errors import (
    IllegalSpecError,
    NoImagesError,
    PreprocessingError,
    UnreadableImageError,
    VfconvertError,
    first_line,
)

_T = TypeVar("_T")
_NAMED = 3  # unreadable images in an error


@dataclass(frozen=True, eq=False)
class Batch:
    """Images `(B, C, H, W)`; targets `(B,)` classes, `(B, H, W)` masks, `(B, C, H, W)` images, or none.

    `indices` says which examples they are, replacements included.
    """

    images: Tensor
    targets: Tensor | None
    indices: tuple[int, ...]


class BatchStream:
    """The batches of any epoch, `batch` examples over all ranks together.

    Rank `rank` of `world` gets its contiguous share of every batch. In training a last batch that is not full is left
    out, unless it is the only one; in an evaluation every example comes exactly once, and the shares of the last
    batch may differ by one. With `views` every example comes so often in an epoch, each time transformed anew.

    An image that cannot be decoded is noted in `unreadable`, name to reason. In training the next readable one in the
    order of the epoch takes its place; an evaluation goes without it. More than the share `most_unreadable` of
    `indices` is an error. Each rank notes the images that it meets.
    """

    def __init__(
        self,
        examples: Examples,
        indices: Sequence[int],
        transform: Transform,
        *,
        batch: int,
        seed: int,
        workers: int = 0,
        shuffle: bool = True,
        train: bool = True,
        views: int = 1,
        rank: int = 0,
        world: int = 1,
        most_unreadable: float = 0.01,
    ) -> None:
        """Raises `NoImagesError` for too few images, `IllegalSpecError` for numbers that do not go together."""
        if not 0 <= rank < world or workers < 0 or not 0 <= most_unreadable < 1:
            raise IllegalSpecError(
                f"batches: got rank {rank} of {world}, {workers} workers and a share of {most_unreadable:g} unreadable "
                "images, expected a rank below the number of ranks, workers from 0 and a share from 0 to below 1"
            )
        if views < 1:
            raise IllegalSpecError(f"--views: got {views}, expected at least 1")
        if batch < 1 or batch % world:
            raise IllegalSpecError(f"--batch: got {batch}, expected a multiple of the number of processes, {world}")
        if len(indices) < (world if train else 1):
            raise NoImagesError(f"{len(indices)} image(s) to read for {world} process(es); add images")
        self.unreadable: dict[str, str] = {}
        self._examples, self._count, self._transform = examples, len(indices), transform
        # The number of a view and of its example in one: view * len(examples) + example.
        self._views = torch.cat([torch.tensor(list(indices)) + view * len(examples) for view in range(views)])
        self._batch, self._seed, self._workers = batch, seed, workers
        self._shuffle, self._train = shuffle, train
        self._rank, self._world, self._most_unreadable = rank, world, most_unreadable

    def __len__(self) -> int:
        """Batches of an epoch that hold anything for this rank."""
        return sum(1 for number in range(self._batches()) if len(self._share(number)))

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number` from batch `start` on, those before it not decoded.

        Raises `UnreadableImageError` where too many images cannot be decoded, `PreprocessingError` where the images of
        a batch differ in size, and what the examples raise; see `telling_of_dead_workers`.
        """
        shares = [share for batch in range(start, self._batches()) if len(share := self._share(batch))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # more workers than cores: the user's choice
            loader = DataLoader(
                self._decoder(number),
                sampler=shares,
                batch_size=None,
                collate_fn=_as_it_is,
                num_workers=self._workers,
                worker_init_fn=_deaf,
                generator=torch.Generator(),  # the loader would draw from the global one
            )
        for each in loader:
            self._note(each.unreadable)
            if each.error is not None:
                raise each.error
            if each.batch is not None:
                yield each.batch

    def _decoder(self, epoch: int) -> _Decoder:
        order = self._views
        if self._shuffle:
            generator = torch.Generator().manual_seed(_mixed(self._seed, epoch))
            order = order[torch.randperm(len(order), generator=generator)]
        # one more than may fail is enough to know that it is an error
        attempts = math.floor(self._most_unreadable * len(self._views)) + 1 if self._train else 1
        return _Decoder(self._examples, order, self._transform, self._seed, epoch, self._train, attempts)

    def _batches(self) -> int:
        count = len(self._views)
        return max(1, count // self._batch) if self._train else math.ceil(count / self._batch)

    def _share(self, number: int) -> range:
        """Positions in the order of an epoch that this rank decodes of a batch."""
        first = number * self._batch
        count = min(self._batch, len(self._views) - first)
        start, end = (count * rank // self._world for rank in (self._rank, self._rank + 1))
        return range(first + start, first + end)

    def _note(self, unreadable: dict[str, str]) -> None:
        self.unreadable.update(unreadable)
        count = len(self.unreadable)
        if count > self._most_unreadable * self._count:
            named = ", ".join(list(self.unreadable)[:_NAMED]) + (", ..." if count > _NAMED else "")
            raise UnreadableImageError(
                f"{count} of {self._count} images cannot be decoded, allowed are {self._most_unreadable:.3g} of "
                f"them: {named}; replace or remove them, or allow more"
            )


def split_examples(examples: Examples, held_out: float, seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices to train on and to validate on: `held_out` is a share below 1, or how many to hold out.

    Classes keep their proportion where they are known. Raises `NoImagesError` where that leaves one of the two empty.
    """
    count = len(examples)
    held = max(1, round(held_out * count)) if 0 < held_out < 1 else int(held_out)
    split = split_images(count, calibration=count, held_out=held, labels=examples.labels(), seed=seed)
    return split.calibration, split.held_out


@dataclass(frozen=True)
class _Decoded:
    """What comes back from a worker: an error too, since one that is raised there would lose its class and its line."""

    batch: Batch | None
    unreadable: dict[str, str]
    error: VfconvertError | None = None


@dataclass(frozen=True, eq=False)
class _Decoder(Dataset[_Decoded]):
    """Decodes the examples at given positions of the order of one epoch."""

    examples: Examples
    order: Tensor  # (N,) int64, of views
    transform: Transform
    seed: int
    epoch: int
    train: bool
    attempts: int  # images tried for one position before it stays empty

    def __getitem__(self, positions: range) -> _Decoded:
        unreadable: dict[str, str] = {}
        try:
            found = [self._example(position, unreadable) for position in positions]
            return _Decoded(self._stacked([example for example in found if example is not None]), unreadable)
        except VfconvertError as error:
            return _Decoded(None, unreadable, error)

    def _example(self, position: int, unreadable: dict[str, str]) -> tuple[int, Tensor, Tensor | None] | None:
        for step in range(self.attempts):
            view = int(self.order[(position + step) % len(self.order)])
            index = view % len(self.examples)
            try:
                image, label = self.examples.read(index)
            except UnreadableImageError as error:
                unreadable[self.examples.name(index)] = str(error)
                continue
            try:
                return index, *self.transform(image, label, _mixed(self.seed, self.epoch, view), self.train)
            except VfconvertError as error:
                raise type(error)(f"{self.examples.name(index)}: {error}") from error
            except (RuntimeError, ValueError, TypeError, OSError) as error:
                raise PreprocessingError(
                    f"{self.examples.name(index)}: cannot be transformed: {first_line(error)}; the transform is "
                    f"{self.transform.describe()}"
                ) from error
        return None

    def _stacked(self, examples: list[tuple[int, Tensor, Tensor | None]]) -> Batch | None:
        if not examples:
            return None
        first = examples[0]
        for other in examples:
            if _shapes(other) != _shapes(first):
                raise PreprocessingError(
                    f"examples of different shapes in a batch: {self.examples.name(first[0])} is {_shapes(first)}, "
                    f"{self.examples.name(other[0])} is {_shapes(other)}; use --size, or a batch of 1"
                )
        targets = [target for _, _, target in examples if target is not None]
        return Batch(
            torch.stack([image for _, image, _ in examples]),
            torch.stack(targets) if targets else None,
            tuple(index for index, _, _ in examples),
        )


def _deaf(_: int) -> None:
    """Ctrl-C and SIGTERM, which often come to all processes of a run, are for the first of them to heed."""
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, signal.SIG_IGN)


@contextmanager
def telling_of_dead_workers() -> Iterator[None]:
    """Within, the death of a process that decodes, which is told wherever the program stands, is an error of ours.

    Raises `UnreadableImageError` for it.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UnreadableImageError(
            f"a process that decodes images died: {first_line(error)}; use fewer workers, or none to see why"
        ) from error


def _shapes(example: tuple[int, Tensor, Tensor | None]) -> str:
    _, image, target = example
    label = "without a label" if target is None else "with a class" if target.dim() == 0 else f"with {_size(target)}"
    return f"{_size(image)} {label}"


def _size(pixels: Tensor) -> str:
    return "x".join(str(side) for side in pixels.shape)


def _as_it_is(decoded: _T) -> _T:
    return decoded


def _mixed(*numbers: int) -> int:
    """One seed of several numbers, as good as independent of that of any others."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
