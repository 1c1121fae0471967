"""Files side by side: the same input, the same threads, in turns."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vfconvert.benching.formats import FileFormat
from vfconvert.benching.layout import channels_first, own_shapes
from vfconvert.benching.memory import UnknownPeakError, peak_bytes
from vfconvert.benching.report import BenchedFile, BenchReport, Machine
from vfconvert.benching.runners import Runner, cause_of, check_runtime, open_model
from vfconvert.benching.shapes import common_shapes
from vfconvert.errors import IllegalSpecError, InputShapeError
from vfconvert.measuring.machine import processor_name
from vfconvert.measuring.timing import Timing, in_turns
from vfconvert.silence import silenced

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED = 0
Shape = tuple[int, int, int]
_MILLISECONDS = 1000.0  # in a second


def bench(
    paths: Sequence[Path],
    *,
    runtime: str | None = None,
    threads: int = 1,
    batch: int = 1,
    size: tuple[int, int] | None = None,
    input_shape: Shape | Sequence[Shape] | None = None,
    rounds: int = 30,
    warm_up: int = 3,
    seconds: float = 60.0,
    memory: bool = True,
) -> BenchReport:
    """Time all files in turns on the CPU, on one random normal input, until `rounds` or `seconds` are over.

    `runtime` is onnxruntime, openvino or torch; without it every file runs in the one for its format. `size` `(H, W)`
    and `input_shape` `(C, H, W)`, one for each of several inputs, in pixels, fill in what files leave open; types may
    differ, and where the channels are, shapes may not.
    `warm_up` rounds are not timed, and at least one is. torch's thread count is put back afterwards.

    Raises `IllegalSpecError` for a number below its least or no file, `InputShapeError` for a shape that is not told,
    contradicts a file or is rejected by it, and the errors of `open_model`.
    """
    _check(paths, threads=threads, batch=batch, rounds=rounds, warm_up=warm_up, seconds=seconds)
    check_runtime(runtime)
    with _threads_put_back(), silenced():
        runners = channels_first([open_model(path, runtime, threads) for path in paths])
        asked: tuple[Any, ...] = tuple(input_shape or ())
        given = (asked,) if asked and isinstance(asked[0], int) else asked
        shapes = common_shapes(runners, batch=batch, size=size, input_shapes=given)
        generator = np.random.default_rng(SEED)
        arrays = [generator.standard_normal(shape, dtype=np.float32) for shape in shapes]
        calls = {str(index): _accepted(runner, arrays) for index, runner in enumerate(runners)}
        peaks, warnings = _peaks(runners, shapes) if memory else ([None] * len(runners), [])
        turned = [str(runner.path) for runner in runners if runner.channels_last]
        warnings += [f"{path} takes channels last, and is given the same images so" for path in turned]
        timings = list(in_turns(calls, rounds=rounds, warm_up=warm_up, most_seconds=seconds).values())
    machine = Machine(processor=processor_name(), logical_cores=os.cpu_count() or 1)
    if threads > machine.logical_cores:
        warnings.append(f"{threads} threads share {machine.logical_cores} logical cores")
    return BenchReport(
        files=tuple(
            _file(runner, timing, timings[0], peak)
            for runner, timing, peak in zip(runners, timings, peaks, strict=True)
        ),
        threads=threads,
        batch=batch,
        input_shape=shapes[0],
        input_shapes=shapes if len(shapes) > 1 else (),
        seed=SEED,
        warm_up=warm_up,
        machine=machine,
        warnings=tuple(warnings),
    )


def _check(paths: Sequence[Path], *, seconds: float, **counts: int) -> None:
    if not paths:
        raise IllegalSpecError("no file to run; name at least one")
    for name, count in counts.items():
        least = 0 if name == "warm_up" else 1
        if count < least:
            raise IllegalSpecError(f"--{name.replace('_', '-')}: got {count}, expected at least {least}")
    if not seconds > 0:
        raise IllegalSpecError(f"--seconds: got {seconds}, expected more than 0")


def _accepted(runner: Runner, arrays: Sequence[NDArray[np.float32]]) -> Callable[[], object]:
    """What runs the file, after it has run once."""
    try:
        run = runner.prepare(arrays)
        run()
    except Exception as error:  # what runtimes raise has no common type
        shape = " and ".join(" x ".join(map(str, array.shape)) for array in arrays)
        raise InputShapeError(
            f"{runner.path}: does not run on an input of {shape}: {_reason(error)}; "
            "choose another by --input-shape, --size or --batch"
        ) from error
    return run


def _reason(error: Exception) -> str:
    """Of a failed run. TorchScript gives its own in the last line, below a traceback of the code in the file."""
    told = [line for line in str(error).splitlines() if line.startswith("RuntimeError: ")]
    return told[-1] if told else cause_of(error)


def _peaks(runners: Sequence[Runner], shapes: Sequence[tuple[int, ...]]) -> tuple[list[int | None], list[str]]:
    """For every file its peak beyond that of its runtime, or None and a line that says why."""
    baselines: dict[str, int] = {}
    peaks: list[int | None] = []
    warnings = []
    for runner in runners:
        try:
            if runner.runtime not in baselines:
                baselines[runner.runtime] = peak_bytes(runner.runtime)
            own = own_shapes(runner, shapes)
            peak = peak_bytes(runner.runtime, runner.path, threads=runner.threads, shapes=own)
            peaks.append(max(peak - baselines[runner.runtime], 0))
        except UnknownPeakError as error:
            peaks.append(None)
            warnings.append(f"the peak memory of {runner.path} is not known: {error}")
    return peaks, warnings


def _file(runner: Runner, timing: Timing, first: Timing, peak: int | None) -> BenchedFile:
    return BenchedFile(
        path=str(runner.path),
        format=runner.format.value,
        runtime=runner.runtime,
        runtime_version=runner.version,
        input_type=runner.input_type,
        bytes=_bytes_on_disk(runner),
        median_ms=timing.median * _MILLISECONDS,
        spread_ms=timing.spread * _MILLISECONDS,
        ratio=timing.median / first.median,
        rounds=len(timing.seconds),
        peak_memory_bytes=peak,
    )


def _bytes_on_disk(runner: Runner) -> int:
    """Of the file and, for ONNX, of the files of weights beside it that it names."""
    files = {runner.path}
    if runner.format is FileFormat.ONNX:
        import onnx

        proto = onnx.load(runner.path, load_external_data=False)
        entries = (entry for tensor in proto.graph.initializer for entry in tensor.external_data)
        files |= {runner.path.parent / entry.value for entry in entries if entry.key == "location"}
    return sum(file.stat().st_size for file in files)


@contextlib.contextmanager
def _threads_put_back() -> Iterator[None]:
    """Torch's own count, which opening a file in torch changes, is what it was before."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
