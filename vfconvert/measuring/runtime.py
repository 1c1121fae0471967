"""ONNX Runtime on the CPU, set up in the one way in which files are run, compared and timed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def onnx_session(file: bytes | Path, threads: int) -> Any:
    """An ONNX Runtime session: an operator computes in `threads` threads, operators run one after another.

    Nothing is logged, since what goes wrong is raised (by ONNX Runtime, in types of its own). Threads that wait by
    spinning stop after a run: they would go on in the time of whatever runs next.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    options.add_session_config_entry("session.force_spinning_stop", "1")
    source = file if isinstance(file, bytes) else str(file)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def fed(session: Any, images: Tensor) -> dict[str, Any]:
    """Images `(B, C, H, W)` as a session's inputs by name; several of them share the channels in order."""
    import torch

    given, array = session.get_inputs(), images.detach().cpu()
    if len(given) == 1:
        return {given[0].name: array.numpy()}
    parts = torch.split(array, [one.shape[1] for one in given], 1)
    return {one.name: part.contiguous().numpy() for one, part in zip(given, parts, strict=True)}
