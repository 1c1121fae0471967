"""The activations at one block boundary, for all calibration images: small in memory, on disk where large."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import torch
from torch import Tensor

HALF_BYTES = 256 * 2**20  # float32 bytes from which half precision holds them
DISK_BYTES = 1024 * 2**20  # half-precision bytes from which a temporary file holds them


class Boundary:
    """A tensor `(N, …)` filled batch by batch and read by slices or by index, as float32."""

    def __init__(self, count: int, shape: torch.Size) -> None:
        numbers = count * shape.numel()
        half = numbers * 4 > HALF_BYTES
        self._values: Tensor
        if half and numbers * 2 > DISK_BYTES:
            self._file = tempfile.NamedTemporaryFile(prefix="vfconvert-")  # noqa: SIM115 - lives as long as this
            flat = torch.from_file(self._file.name, shared=True, size=numbers, dtype=torch.float16)
            self._values = flat.view(count, *shape)
        else:
            self._values = torch.empty(count, *shape, dtype=torch.float16 if half else torch.float32)
        self._filled = 0

    @classmethod
    def of(cls, values: Tensor) -> Boundary:
        """Wrap a tensor that is in memory anyway."""
        boundary = cls(0, values.shape[1:])
        boundary._values, boundary._filled = values, len(values)
        return boundary

    def __len__(self) -> int:
        return len(self._values)

    def append(self, batch: Tensor) -> None:
        """Fill in the next rows."""
        if self._values.dtype == torch.float16:
            batch = batch.clamp(-65504, 65504)
        self._values[self._filled : self._filled + len(batch)] = batch
        self._filled += len(batch)

    def __getitem__(self, at: slice | Tensor) -> Tensor:
        return self._values[at].float()

    def batches(self, size: int) -> Iterator[Tensor]:
        """Rows in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]
