"""The one value that every renderer of a bench reads: bytes, milliseconds, and ratios that are already computed."""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchedFile:
    """One file. `ratio` is its median over that of the first file of the same run, so the first file's is 1.

    `peak_memory_bytes` is what opening the file and running it twice takes in a process of its own, beyond what a
    process takes that only imports the runtime; None where it was not asked for or not found out. With a torch.export
    program it includes what torch imports to open one.
    """

    path: str
    format: str  # onnx, program (torch.export) or torchscript
    runtime: str  # onnxruntime, openvino or torch
    runtime_version: str
    input_type: str  # numpy's or torch's name, like float32
    bytes: int  # on disk, with the external data that the file names
    median_ms: float
    spread_ms: float  # between the first and the third quartile
    ratio: float
    rounds: int  # timed runs of this file
    peak_memory_bytes: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Where the runs took place. Logical cores are all that the system has, also those this process may not use."""

    processor: str
    logical_cores: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchReport:
    """One run over all files, which took turns on the CPU and read the same numbers."""

    schema_version: int = SCHEMA_VERSION
    files: tuple[BenchedFile, ...]
    threads: int  # of one operator; one operator runs at a time
    batch: int
    input_shape: tuple[int, ...]  # with the batch; of several inputs the first
    input_shapes: tuple[tuple[int, ...], ...] = ()  # of several inputs, each
    seed: int  # of the random normal input
    warm_up: int  # untimed runs of every file
    machine: Machine
    warnings: tuple[str, ...] = ()

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Names and versions, each once, in the order of the files."""
        return tuple(dict.fromkeys(f"{file.runtime} {file.runtime_version}" for file in self.files))
