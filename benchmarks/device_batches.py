"""Small images kept on the device and augmented there, for many short runs on a GPU.

The same views as `TrainTransform` with `padding` and mirroring makes of them (a shift by mirrored padding, a flip),
drawn by the device's own generator. Decoding and transforming on the processor would take most of such a run's time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.accuracy import as_inputs
from vfconvert.data.batches import Batch


class DeviceBatches:
    """Stands for a `BatchStream` of the decoded images `(N, H, W, 3)`; without `train` each once, in order."""

    def __init__(
        self,
        pixels: np.ndarray,
        labels: Tensor,
        device: torch.device,
        *,
        batch: int,
        seed: int,
        padding: int = 4,
        train: bool = True,
    ) -> None:
        self.unreadable: dict[str, str] = {}
        images = as_inputs(torch.from_numpy(pixels).to(device))
        self._side, self._padding = pixels.shape[1], padding if train else 0
        self._images = F.pad(images, [self._padding] * 4, mode="reflect") if self._padding else images
        self._labels, self._batch, self._seed, self._train = labels.to(device), batch, seed, train

    def __len__(self) -> int:
        count = len(self._images)
        return count // self._batch if self._train else -(-count // self._batch)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from batch `start` on."""
        device = self._images.device
        random = torch.Generator(device).manual_seed(self._seed * 100_003 + number)
        count = len(self._images)
        order = torch.randperm(count, generator=random, device=device) if self._train else None
        for at in range(len(self)):
            chosen = slice(at * self._batch, (at + 1) * self._batch)
            index = torch.arange(count, device=device)[chosen] if order is None else order[chosen]
            images = self._images[index] if order is None else self._view(index, random)
            if at >= start:
                yield Batch(images, self._labels[index], tuple(index.tolist()) if order is None else ())

    def _view(self, index: Tensor, random: torch.Generator) -> Tensor:
        count, device = len(index), index.device
        shift = torch.randint(2 * self._padding + 1, (2, count, 1), generator=random, device=device)
        along = torch.arange(self._side, device=device)
        rows, columns = along + shift[0], along + shift[1]
        flipped = torch.rand(count, 1, generator=random, device=device) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
        channels = torch.arange(3, device=device)[None, :, None, None]
        return self._images[index[:, None, None, None], channels, rows[:, None, :, None], columns[:, None, None, :]]
