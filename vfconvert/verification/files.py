"""Files of each format reopened by what will run them, and compared with the network that they were made from.

Every function takes real images `inputs` `(N, C, H, W)`; a batch takes the first of them, where there are too few the
same again, moved on. `sizes` are further heights and widths, for files that take any: the images are resized to them
and compared at every batch size too; so they are at the `further` ones, where a file may refuse to run. A file of fixed
batch size is compared at that size alone. Of a network of several inputs (`vfconvert.nn.several_inputs`) the channels
of `inputs` are those of all, in order. The model and its modes are left as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vfconvert.exporting.naming import FileNames
from vfconvert.exporting.outputs import named_outputs
from vfconvert.measuring.runtime import fed, onnx_session
from vfconvert.nn.several_inputs import Inputs, inputs_of
from vfconvert.silence import silenced
from vfconvert.verification.parity import (
    BATCH_SIZES,
    FLOAT32_TOLERANCE,
    Cases,
    OpenFile,
    Parity,
    device_of,
    verify,
)


def verify_onnx(
    path: Path,
    model: nn.Module,
    inputs: Tensor,
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    tolerance: float = FLOAT32_TOLERANCE,
    sizes: Sequence[tuple[int, int]] = (),
    further: Sequence[tuple[int, int]] = (),
    names: FileNames | None = None,
) -> Parity:
    """Run the file in ONNX Runtime on the CPU, with torch's thread count, against `model` in eval mode.

    `names` are those that the file was written with. Raises `ParityError` where the file does not open or run, where
    outputs differ in number, name or shape, hold numbers that are not finite, or differ by more than `tolerance` times
    the reference's largest magnitude.
    """
    cases = Cases(inputs, tuple(batch_sizes), tuple(sizes), tolerance, tuple(further), names)
    return verify(lambda: open_onnx(path), "ONNX Runtime", model, cases)


def verify_torchscript(
    path: Path,
    model: nn.Module,
    inputs: Tensor,
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    tolerance: float = FLOAT32_TOLERANCE,
    sizes: Sequence[tuple[int, int]] = (),
    further: Sequence[tuple[int, int]] = (),
) -> Parity:
    """Run the file with `torch.jit.load`, on the device it was saved from, against `model` in eval mode.

    A file never says that its batch size is fixed; where it is, give that size alone. Raises `ParityError` as
    `verify_onnx` does.
    """
    cases = Cases(inputs, tuple(batch_sizes), tuple(sizes), tolerance, tuple(further))
    return verify(lambda: _open_torchscript(path, inputs_of(model)), "TorchScript", model, cases)


def verify_program(
    path: Path,
    model: nn.Module,
    inputs: Tensor,
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    tolerance: float = FLOAT32_TOLERANCE,
    sizes: Sequence[tuple[int, int]] = (),
    further: Sequence[tuple[int, int]] = (),
) -> Parity:
    """Run the file with `torch.export.load`, on the device it was saved from, against `model` in eval mode.

    Raises `ParityError` as `verify_onnx` does.
    """
    cases = Cases(inputs, tuple(batch_sizes), tuple(sizes), tolerance, tuple(further))
    return verify(lambda: _open_program(path, inputs_of(model)), "torch.export", model, cases)


def open_onnx(path: Path) -> OpenFile:
    """The file in ONNX Runtime on the CPU, with torch's thread count. Raises what ONNX Runtime raises."""
    import onnxruntime

    session = onnx_session(path, torch.get_num_threads())
    given = session.get_inputs()[0]
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> list[tuple[str, Tensor]]:
        arrays = session.run(names, fed(session, images))
        return list(zip(names, map(torch.from_numpy, arrays), strict=True))

    batch = given.shape[0]
    return OpenFile(
        runtime="onnxruntime",
        version=onnxruntime.__version__,
        fixed_batch=batch if isinstance(batch, int) else None,
        run=run,
    )


def _open_torchscript(path: Path, inputs: Inputs | None) -> OpenFile:
    with silenced():
        module = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    return _torch_file("torch.jit", module, None, inputs)


def _open_program(path: Path, inputs: Inputs | None) -> OpenFile:
    with silenced():
        program = torch.export.load(path)
        module = program.module()
    name = program.graph_signature.user_inputs[0]
    given = next(node for node in program.graph.nodes if node.name == name)
    batch = given.meta["val"].shape[0]
    return _torch_file("torch.export", module, batch if isinstance(batch, int) else None, inputs)


def _torch_file(runtime: str, module: nn.Module, fixed_batch: int | None, inputs: Inputs | None) -> OpenFile:
    device = device_of(module)

    def run(images: Tensor) -> list[tuple[str, Tensor]]:
        with torch.no_grad(), silenced():
            images = images.clone().to(device)  # it may write into its input
            return named_outputs(module(images) if inputs is None else module(*inputs.split(images)))

    return OpenFile(runtime=runtime, version=torch.__version__, fixed_batch=fixed_batch, run=run)
