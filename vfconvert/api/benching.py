"""Files side by side from Python: what `vfconvert bench` measures, as a value."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from vfconvert.benching.comparing import Shape
from vfconvert.benching.comparing import bench as compared
from vfconvert.benching.report import BenchReport
from vfconvert.benching.runners import RUNTIMES
from vfconvert.keyword_values import read_one_of, read_value

File = str | os.PathLike[str]


def bench(
    files: File | Sequence[File],
    *,
    runtime: str | None = None,
    threads: int = 1,
    batch: int = 1,
    size: int | str | tuple[int, int] | None = None,
    input_shape: str | Shape | Sequence[str | Shape] | None = None,
    rounds: int = 30,
    warm_up: int = 3,
    seconds: float = 60.0,
    memory: bool = True,
) -> BenchReport:
    """Time files in turns on the CPU, on one random input, until `rounds` or `seconds` are over.

    Files are ONNX, torch.export programs or TorchScript. `runtime` is "onnxruntime", "openvino" or "torch"; None: the
    one for each format. `size` (one side, or `(H, W)`) and `input_shape` `(C, H, W)` (of several inputs one for each),
    in pixels, fill in what files leave open. `warm_up` rounds are not timed. `memory` measures the peak of each file in
    a process of its own.

    Raises `TypeError` and `ValueError` for what is of another kind, `IllegalSpecError` for a number below its least or
    no file, `InputShapeError` for a shape that is not told, contradicts a file or is rejected by it, and the errors of
    files that cannot be opened.
    """
    several = files if isinstance(files, Iterable) and not isinstance(files, (str, os.PathLike)) else (files,)
    paths: list[Path] = [read_value("bench(): files", "Path", file) for file in several]
    return compared(
        paths,
        runtime=None if runtime is None else read_one_of("bench(): runtime", RUNTIMES, runtime),
        threads=read_value("bench(): threads", "int", threads),
        batch=read_value("bench(): batch", "int", batch),
        size=read_value("bench(): size", "tuple[int, int] | None", size),
        input_shape=read_value("bench(): input_shape", "Shape | tuple[Shape, ...] | None", input_shape),
        rounds=read_value("bench(): rounds", "int", rounds),
        warm_up=read_value("bench(): warm_up", "int", warm_up),
        seconds=read_value("bench(): seconds", "float", seconds),
        memory=read_value("bench(): memory", "bool", memory),
    )
