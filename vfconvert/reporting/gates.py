"""What the report says of gates: each with the figure it got and its limit, in digits enough to tell the two apart."""

from __future__ import annotations

import math

from vfconvert.reporting.report import GateReport
from vfconvert.reporting.units import whole


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
