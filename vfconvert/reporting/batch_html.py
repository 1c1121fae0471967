"""The summary of a batch as one page that opens from disk, in the style of the reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vfconvert.reporting.batch import Row, cells, headings, headline, numbers
from vfconvert.reporting.html_page import rendered


def to_html(rows: Sequence[Row], versions: Mapping[str, str]) -> str:
    """The whole summary as one HTML document; every text of the models is escaped."""
    shown = [
        {
            "cells": cells(row),
            "sorted_by": ["" if value is None else value for value in numbers(row)],
            "model": row.model,
            "good": row.state == "converted",
            "exit_code": row.exit_code,
            "error": row.error,
        }
        for row in rows
    ]
    return rendered(
        "batch.html",
        headline=headline(rows),
        headings=headings(),
        rows=shown,
        failures=[row for row in shown if row["error"]],
        versions=list(versions.items()),
    )
