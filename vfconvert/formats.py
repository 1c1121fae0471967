"""The formats that files are written in, and how their names end."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = {"onnx": ".onnx", "torchscript": ".ts", "pt2": ".pt2", "safetensors": ".safetensors"}


def format_of(path: Path | None) -> str | None:
    """The format whose suffix a name has; None where it has none of them."""
    return next((name for name, suffix in SUFFIXES.items() if path is not None and path.suffix == suffix), None)
