"""The activations at one block boundary, for all calibration images: small in memory, on disk where large."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn

from vfconvert.analysis.graph import Segment
from vfconvert.analysis.running import run_nodes
from vfconvert.errors import UnwritableOutputError

HALF_BYTES = 256 * 2**20  # float32 bytes from which half precision holds them
DISK_BYTES = 1024 * 2**20  # half-precision bytes from which a temporary file holds them


class Boundary:
    """A tensor `(N, …)` filled batch by batch and read by slices or by index, as float32.

    With `channels_last` the numbers of a `(C, H, W)` lie in memory as such batches have them.
    """

    def __init__(self, count: int, shape: torch.Size, *, channels_last: bool = False) -> None:
        stored = torch.Size((*shape[1:], shape[0])) if channels_last else shape
        numbers = count * shape.numel()
        half = numbers * 4 > HALF_BYTES
        self._values: Tensor
        if half and numbers * 2 > DISK_BYTES:
            self._values = _on_disk(numbers).view(count, *stored)
        else:
            self._values = torch.empty(count, *stored, dtype=torch.float16 if half else torch.float32)
        if channels_last:
            self._values = self._values.permute(0, 3, 1, 2)
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
        values = self._values[at]
        # What is handed out may be changed in place by the network; what is held must not.
        return values.to(torch.float32, copy=True) if isinstance(at, slice) else values.float()

    def batches(self, size: int) -> Iterator[Tensor]:
        """Rows in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


class Filling:
    """A boundary of `count` rows that is given batch by batch, and takes its shape from the first."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._made: Boundary | None = None

    def add(self, batch: Tensor) -> None:
        """The next rows."""
        if self._made is None:
            last = batch.dim() == 4 and not batch.is_contiguous()
            last = last and batch.is_contiguous(memory_format=torch.channels_last)
            self._made = Boundary(self._count, batch.shape[1:], channels_last=last)
        self._made.append(batch)

    def result(self) -> Boundary:
        """All of them. Raises `ValueError` where none was given."""
        if self._made is None:
            raise ValueError("no calibration images")
        return self._made


@torch.no_grad()
def advance(
    root: nn.Module, segment: Segment, source: fx.Node, images: Tensor, entry: Boundary, batch: int
) -> Boundary:
    """The activations at the segment's exit, from those at its entry and the images that they come from."""
    device = next(root.parameters()).device
    leaving = Filling(len(entry))
    for at in range(0, len(entry), batch):
        start = {source: images[at : at + batch].clone().to(device)}
        start[segment.entry] = entry[at : at + batch].to(device)
        leaving.add(run_nodes(root, segment.nodes, start, keep=(segment.exit,))[segment.exit])
    return leaving.result()


def _on_disk(numbers: int) -> Tensor:
    """Half-precision numbers in a temporary file that goes away with its last user, whatever ends the process."""
    descriptor, name = tempfile.mkstemp(prefix="vfconvert-")
    try:
        os.posix_fallocate(descriptor, 0, 2 * numbers)  # a full disk shows here, not as a fault when a page is written
        return torch.from_file(name, shared=True, size=numbers, dtype=torch.float16)
    except OSError as error:
        raise UnwritableOutputError(
            f"{tempfile.gettempdir()}: no room for {2 * numbers:,} bytes of activations ({error.strerror}); "
            "set TMPDIR to a larger disk or lower --calibration-images"
        ) from error
    finally:
        os.close(descriptor)
        os.unlink(name)
