"""The gates of a report on the terminal, and the files that are not there since one failed."""

from __future__ import annotations

from collections.abc import Iterator

from rich.padding import Padding
from rich.text import Text

from vfconvert.reporting.gates import gate_text
from vfconvert.reporting.layers import indented
from vfconvert.reporting.report import ConversionReport
from vfconvert.reporting.units import mebibytes


def gate_lines(report: ConversionReport) -> Iterator[Text | Padding]:
    """A line for every gate, the word first, so that it is seen without colours."""
    if not report.gates:
        return
    failed = len(report.failed_gates)
    yield Text(f"Gates: {f'{failed} of {len(report.gates)} failed' if failed else 'all passed'}.", style="bold")
    for gate in report.gates:
        word, style = ("passed", "green") if gate.passed else ("FAILED", "red")
        yield indented(Text.assemble((word, style), f" {gate.name}: {gate_text(gate)}"))


def discarded_lines(report: ConversionReport) -> Iterator[Text]:
    """A line for every file that does not appear since a gate failed."""
    for file in report.discarded:
        line = f"Not written, since a gate failed: {file.path} ({mebibytes(file.bytes)})"
        yield Text(line, no_wrap=True, overflow="ignore")  # a broken path cannot be copied
