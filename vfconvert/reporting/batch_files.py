"""The files of a batch's summary, beside its outputs: `summary.json`, `summary.md` and `summary.html`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vfconvert.files import atomic_path
from vfconvert.reporting.batch import Row, to_json, to_markdown
from vfconvert.reporting.batch_html import to_html
from vfconvert.version import versions_of

_PACKAGES = ("torch", "onnx", "onnxruntime")


def write_summary(rows: Sequence[Row], folder: Path) -> None:
    """Replace all three, each whole. Raises `UnwritableOutputError`."""
    versions = versions_of(_PACKAGES)
    texts = {"json": to_json(rows, versions), "md": to_markdown(rows), "html": to_html(rows, versions)}
    for suffix, text in texts.items():
        with atomic_path(folder / f"summary.{suffix}") as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
