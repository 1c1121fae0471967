"""A report as a file, in the form that its suffix names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from vfconvert.errors import UnwritableOutputError
from vfconvert.files import atomic_path
from vfconvert.reporting.report import ConversionReport

_SUFFIXES = (".json", ".html", ".md", ".csv")


def check_reports(paths: Iterable[Path]) -> None:
    """Raise `UnwritableOutputError` where a suffix names no form."""
    for path in paths:
        if path.suffix.lower() not in _SUFFIXES:
            known = ", ".join(_SUFFIXES)
            raise UnwritableOutputError(f"cannot write the report {path}: its name ends in none of {known}; give one")


def write_report(report: ConversionReport, path: Path) -> None:
    """Write the whole file or none, in UTF-8. Raises `UnwritableOutputError`."""
    check_reports((path,))
    text = _renderer(path.suffix.lower())(report)
    # A file name that is not UTF-8 holds lone surrogates; backslashes make them JSON's own escapes.
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", errors="backslashreplace"))


def _renderer(suffix: str) -> Callable[[ConversionReport], str]:
    """Imported where a report is written: a conversion from Python needs none."""
    if suffix == ".json":
        from vfconvert.reporting.json_report import to_json as render
    elif suffix == ".html":
        from vfconvert.reporting.html import to_html as render
    elif suffix == ".md":
        from vfconvert.reporting.markdown import to_markdown as render
    else:
        from vfconvert.reporting.csv_report import to_csv as render
    return render
