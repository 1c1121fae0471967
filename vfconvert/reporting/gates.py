"""What the report says of gates: each with the figure it got and its limit, in digits enough to tell the two apart."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.padding import Padding
from rich.text import Text

from vfconvert.reporting.layers import indented
from vfconvert.reporting.report import ConversionReport, GateReport
from vfconvert.reporting.units import mebibytes, whole


def gate_text(gate: GateReport) -> str:
    """`parameters saved 48.7 %, at least 40 %`."""
    got, limit = (figure_text(value, gate.unit) for value in (gate.got, gate.limit))
    return f"{gate.figure} {got}, {gate.bound} {limit}"


def figure_text(value: float | None, unit: str) -> str:
    """A figure with its unit, to six digits; bytes to the last."""
    if value is None:
        return "not measured"
    if not math.isfinite(value):
        return "not finite"
    if unit == "bytes":
        return f"{whole(round(value))} bytes"
    points = f"{value:.6g} point{'' if value == 1 else 's'}"
    return {"share": f"{100 * value:.6g} %", "points": points, "ratio": f"{value:.6g}"}[unit]


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
