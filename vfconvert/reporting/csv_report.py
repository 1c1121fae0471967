"""The layers as CSV (RFC 4180, UTF-8, a heading), numbers as they are, for spreadsheets and data frames.

The last row is "(everything else)", so that the columns of weights and MACs add up to those of the whole network.
"""

from __future__ import annotations

import csv
import io
from dataclasses import asdict

from vfconvert.reporting.figures import EVERYTHING_ELSE, numbers_of, rest_of
from vfconvert.reporting.report import ConversionReport

COLUMNS = (
    *("name", "decision", "shape", "spec", "group_convolution", "form", "code", "reason", "flag"),
    *("weights_before", "weights_after", "macs_before", "macs_after", "macs_executed"),
    *("unexplained", "damage", "parameters_share", "macs_share"),
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what makes a spreadsheet compute a cell


def to_csv(report: ConversionReport) -> str:
    """A line for each Conv2d and one for all else; nothing is rounded, an empty cell is not known.

    A text that a spreadsheet would take for a formula has an apostrophe before it. `macs_executed` of a kept layer is
    what it is counted with.
    """
    made = io.StringIO()
    writer = csv.DictWriter(made, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    for row in report.layers:
        values = {name: getattr(row, name) for name in COLUMNS} | asdict(numbers_of(row))
        writer.writerow({name: value if name == "flag" else _cell(value) for name, value in values.items()})
    writer.writerow({"name": f"({EVERYTHING_ELSE})", "decision": "other", **asdict(rest_of(report))})
    return made.getvalue()


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
