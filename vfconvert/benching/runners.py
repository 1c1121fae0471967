"""Model files opened by the runtime that will run them, on the CPU and with an exact number of threads.

Importing this imports no runtime: a process that measures memory loads the one it needs and nothing else.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from vfconvert.benching.formats import FileFormat, sniff_format
from vfconvert.errors import (
    IllegalSpecError,
    MissingPackageError,
    NotAModelError,
    UnsupportedModelError,
    UntrustedModelError,
)
from vfconvert.measuring.runtime import onnx_session
from vfconvert.silence import silenced

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays: TypeAlias = Sequence[NDArray[np.float32]]
    Prepare: TypeAlias = Callable[[Arrays], Callable[[], object]]

Lengths: TypeAlias = tuple[int | None, ...]  # of one input: None for one that varies

_ORT_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
_DAMAGED = ("InvalidProtobuf", "NoModel", "No graph was found")  # what ONNX Runtime says of no ONNX file
_FORCE_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch's own switch, stronger than its loader's arguments


@dataclass(frozen=True, kw_only=True, slots=True)
class Runner:
    """A file that is open. `prepare(arrays)` converts all inputs once and gives what runs the file on them."""

    path: Path
    format: FileFormat
    runtime: str
    version: str
    threads: int
    shapes: tuple[Lengths | None, ...]  # of every input; None where the file tells none
    input_type: str  # of the first
    prepare: Prepare
    channels_last: tuple[bool, ...] = ()  # of every input; see `vfconvert.benching.layout`


def open_model(path: Path, runtime: str | None = None, threads: int = 1) -> Runner:
    """Open a file in `runtime` (onnxruntime, openvino or torch; without it, the one for its format).

    An operator computes in exactly `threads` threads, and operators run one after another. torch's thread counts
    belong to the process: opening a file in torch changes them.

    Raises `IllegalSpecError` for an unknown runtime or fewer than 1 thread, the errors of `sniff_format`,
    `NotAModelError` for a damaged file, `MissingPackageError` where the runtime is not installed,
    `UntrustedModelError` for a program that holds pickled objects, and `UnsupportedModelError` where the runtime
    cannot run the file or an input is no tensor of floating-point numbers.
    """
    check_runtime(runtime)
    if threads < 1:
        raise IllegalSpecError(f"--threads: got {threads}, expected at least 1")
    file_format = sniff_format(path)
    runtime = runtime or DEFAULT_RUNTIMES[file_format]
    opener = _OPENERS.get((runtime, file_format))
    if opener is None:
        fitting = " or ".join(name for name, known in _OPENERS if known is file_format)
        raise UnsupportedModelError(
            f"{path}: is of the format {file_format.value}, which {runtime} does not run; choose {fitting}"
        )
    return opener(path, threads)


def check_runtime(runtime: str | None) -> None:
    """Raise `IllegalSpecError` for a runtime that is none of `RUNTIMES`."""
    if runtime is not None and runtime not in RUNTIMES:
        raise IllegalSpecError(f"--runtime: got {runtime!r}, expected one of {', '.join(RUNTIMES)}")


def import_runtime(runtime: str) -> Any:
    """The module. Raises `MissingPackageError`, which names what to install."""
    try:
        return importlib.import_module(runtime)
    except ImportError as error:
        wanted = "vfconvert[openvino]" if runtime == "openvino" else runtime
        raise MissingPackageError(f"--runtime {runtime} is not installed; pip install {wanted}") from error


def _open_onnxruntime(path: Path, threads: int) -> Runner:
    onnxruntime = import_runtime("onnxruntime")
    try:
        session = onnx_session(path, threads)
    except Exception as error:  # what runtimes raise has no common type, here and below
        if any(sign in f"{type(error).__name__} {error}" for sign in _DAMAGED):
            raise NotAModelError(f"{path}: is no ONNX file, or a damaged one; export it again") from error
        raise _unsupported(path, "ONNX Runtime", error) from error
    inputs = _some(path, session.get_inputs())
    for given in inputs:
        if given.type not in _ORT_TYPES:
            raise _not_floating(path, given.type)
    types = [_ORT_TYPES[given.type] for given in inputs]

    def prepare(arrays: Arrays) -> Callable[[], object]:
        feed = {given.name: array.astype(kind) for given, array, kind in zip(inputs, arrays, types, strict=True)}
        return lambda: session.run(None, feed)

    return Runner(
        path=path,
        format=FileFormat.ONNX,
        runtime="onnxruntime",
        version=onnxruntime.__version__,
        threads=threads,
        shapes=tuple(_lengths(given.shape) or None for given in inputs),
        input_type=types[0],
        prepare=prepare,
    )


def _open_openvino(path: Path, threads: int) -> Runner:
    openvino = import_runtime("openvino")
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": "1", "PERFORMANCE_HINT": "LATENCY"}
    try:
        model = core.read_model(str(path))
        compiled = core.compile_model(model, "CPU", settings)
    except Exception as error:
        raise _unsupported(path, "OpenVINO", error) from error
    inputs = _some(path, model.inputs)
    types = [str(given.element_type.to_dtype()) for given in inputs]
    if wrong := [kind for kind in types if kind not in _ORT_TYPES.values()]:
        raise _not_floating(path, wrong[0])
    request = compiled.create_infer_request()
    shapes = [given.partial_shape if given.partial_shape.rank.is_static else () for given in inputs]

    def prepare(arrays: Arrays) -> Callable[[], object]:
        feed = {place: array.astype(kind) for place, (array, kind) in enumerate(zip(arrays, types, strict=True))}
        return lambda: request.infer(feed, share_inputs=True, share_outputs=True)

    return Runner(
        path=path,
        format=FileFormat.ONNX,
        runtime="openvino",
        version=openvino.__version__.partition("-")[0],
        threads=threads,
        shapes=tuple(
            tuple(length.get_length() if length.is_static else None for length in lengths) or None for lengths in shapes
        ),
        input_type=types[0],
        prepare=prepare,
    )


def _open_torchscript(path: Path, threads: int) -> Runner:
    torch = import_runtime("torch")
    try:
        with silenced():
            module = torch.jit.load(str(path), map_location="cpu").eval()
            inputs = list(module.graph.inputs())[1:]  # the first is the module itself
    except Exception as error:
        raise NotAModelError(f"{path}: torch.jit.load cannot open it: {cause_of(error)}; export it again") from error
    for given in _some(path, inputs):
        if not isinstance(given.type(), torch.TensorType):
            raise _not_floating(path, str(given.type()))
    floating = (tensor.dtype for tensor in module.parameters() if tensor.is_floating_point())
    return _torch_runner(
        path, threads, FileFormat.TORCHSCRIPT, module, [None] * len(inputs), next(floating, torch.float32)
    )


def _open_program(path: Path, threads: int) -> Runner:
    torch = import_runtime("torch")
    try:
        with silenced(), _tensors_only():
            program = torch.export.load(path)
            module = program.module()
    except Exception as error:
        cause = cause_of(error)
        if cause.startswith("UnpicklingError"):
            raise UntrustedModelError(
                f"{path}: holds pickled objects beyond tensors, which are not built; export it without them"
            ) from error
        raise NotAModelError(f"{path}: torch.export.load cannot open it: {cause}; export it again") from error
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    examples: list[Any] = [values.get(name) for name in _some(path, program.graph_signature.user_inputs)]
    for example in examples:
        if not isinstance(example, torch.Tensor) or not example.is_floating_point():
            raise _not_floating(path, str(getattr(example, "dtype", type(example).__name__)))
    shapes = [_lengths(example.shape) for example in examples]
    return _torch_runner(path, threads, FileFormat.PROGRAM, module, shapes, examples[0].dtype)


def _torch_runner(
    path: Path, threads: int, file_format: FileFormat, module: Any, shapes: Sequence[Lengths | None], dtype: Any
) -> Runner:
    import torch

    torch.set_num_threads(threads)
    with contextlib.suppress(RuntimeError):  # its pool has begun to work, and stays; only TorchScript's fork asks it
        torch.set_num_interop_threads(1)

    def prepare(arrays: Arrays) -> Callable[[], object]:
        images = [torch.from_numpy(array.copy()).to(dtype) for array in arrays]

        def run() -> object:
            with torch.inference_mode():
                return module(*images)

        return run

    return Runner(
        path=path,
        format=file_format,
        runtime="torch",
        version=torch.__version__,
        threads=threads,
        shapes=tuple(shapes),
        input_type=str(dtype).removeprefix("torch."),
        prepare=prepare,
    )


@contextlib.contextmanager
def _tensors_only() -> Iterator[None]:
    """Within, torch's loader unpickles tensors and containers of them, and raises at anything else."""
    before = os.environ.get(_FORCE_WEIGHTS_ONLY)
    os.environ[_FORCE_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        os.environ.pop(_FORCE_WEIGHTS_ONLY)
        if before is not None:
            os.environ[_FORCE_WEIGHTS_ONLY] = before


def _some(path: Path, inputs: Any) -> list[Any]:
    if not len(inputs):
        raise UnsupportedModelError(f"{path}: has no input, expected one or more; export it with its inputs")
    return list(inputs)


def _lengths(shape: Any) -> Lengths:
    return tuple(length if isinstance(length, int) else None for length in shape)


def _not_floating(path: Path, found: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"{path}: its input is {found}, expected floating-point numbers; choose another file")


def _unsupported(path: Path, runtime: str, error: Exception) -> UnsupportedModelError:
    return UnsupportedModelError(f"{path}: {runtime} cannot run it: {cause_of(error)}; export it for that runtime")


def cause_of(error: Exception) -> str:
    """One line on what went wrong. It is imported here, since with it comes torch."""
    from vfconvert.exporting.cause import cause_line

    return cause_line(error)


DEFAULT_RUNTIMES = {
    FileFormat.ONNX: "onnxruntime",
    FileFormat.PROGRAM: "torch",
    FileFormat.TORCHSCRIPT: "torch",
}
_OPENERS: dict[tuple[str, FileFormat], Callable[[Path, int], Runner]] = {
    ("onnxruntime", FileFormat.ONNX): _open_onnxruntime,
    ("openvino", FileFormat.ONNX): _open_openvino,
    ("torch", FileFormat.PROGRAM): _open_program,
    ("torch", FileFormat.TORCHSCRIPT): _open_torchscript,
}
RUNTIMES = tuple(dict.fromkeys(runtime for runtime, _ in _OPENERS))
