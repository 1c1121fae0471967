"""ONNX Runtime set up for timing."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def open_for_timing(file: bytes | Path, threads: int) -> Any:
    """An ONNX Runtime session on the CPU of so many threads, which do not spin while others are timed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.force_spinning_stop", "1")
    source = file if isinstance(file, bytes) else str(file)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
