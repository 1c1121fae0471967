"""ONNX files run by ONNX Runtime on the CPU, with a given number of threads and without a word."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vfconvert.errors import ParityError
from vfconvert.exporting.cause import cause_line
from vfconvert.measuring.runtime import fed, onnx_session

_MOST_AT_ONCE = 16  # images of a batch where the file takes any number


@dataclass(frozen=True, eq=False)
class Session:
    """An open file: `run` takes a batch, `batch` is the one size it takes, None where it takes any."""

    name: str
    runtime: Any
    batch: int | None

    def run(self, images: Tensor) -> dict[str, Tensor]:
        """Every output of one batch `(B, C, H, W)`, by name."""
        names = [output.name for output in self.runtime.get_outputs()]
        try:
            arrays = self.runtime.run(names, fed(self.runtime, images))
        except Exception as error:
            raise ParityError(f"ONNX Runtime cannot run {self.name}: {cause_line(error)}; do not use it") from error
        return dict(zip(names, map(torch.from_numpy, arrays), strict=True))

    def run_all(self, images: Tensor) -> dict[str, Tensor]:
        """Every output of all images `(N, C, H, W)`, N ≥ 1, batch by batch; a last batch too small starts over."""
        size = self.batch or min(_MOST_AT_ONCE, len(images))
        found: dict[str, list[Tensor]] = {}
        for start in range(0, len(images), size):
            kept = min(size, len(images) - start)
            at = torch.arange(start, start + (self.batch or kept)) % len(images)
            for name, output in self.run(images[at]).items():
                found.setdefault(name, []).append(output[:kept])
        return {name: torch.cat(outputs) for name, outputs in found.items()}


def open_session(file: Path | bytes, *, threads: int, name: str | None = None) -> Session:
    """A file, or what stands in one, open; `name` is what errors call it, else its path.

    Raises `ParityError` where ONNX Runtime does not take the file.
    """
    name = name or (str(file) if isinstance(file, Path) else "the network")
    try:
        runtime = onnx_session(file, threads)
    except Exception as error:
        raise ParityError(f"ONNX Runtime cannot open {name}: {cause_line(error)}; do not use it") from error
    size = runtime.get_inputs()[0].shape[0]
    return Session(name=name, runtime=runtime, batch=size if isinstance(size, int) else None)
