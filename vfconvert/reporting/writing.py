"""A report as a file, in the form that its suffix names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from vfconvert.errors import UnwritableOutputError
from vfconvert.files import atomic_path
from vfconvert.reporting.csv_report import to_csv
from vfconvert.reporting.html import to_html
from vfconvert.reporting.json_report import to_json
from vfconvert.reporting.markdown import to_markdown
from vfconvert.reporting.report import ConversionReport

RENDERERS: Mapping[str, Callable[[ConversionReport], str]] = {
    ".json": to_json,
    ".html": to_html,
    ".md": to_markdown,
    ".csv": to_csv,
}


def check_reports(paths: Iterable[Path]) -> None:
    """Raise `UnwritableOutputError` where a suffix names no form."""
    for path in paths:
        _renderer(path)


def write_report(report: ConversionReport, path: Path) -> None:
    """Write the whole file or none, in UTF-8. Raises `UnwritableOutputError`."""
    text = _renderer(path)(report)
    # A file name that is not UTF-8 holds lone surrogates; backslashes make them JSON's own escapes.
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", errors="backslashreplace"))


def _renderer(path: Path) -> Callable[[ConversionReport], str]:
    found = RENDERERS.get(path.suffix.lower())
    if found is None:
        known = ", ".join(RENDERERS)
        raise UnwritableOutputError(f"cannot write the report {path}: its name ends in none of {known}; give one")
    return found
