"""The report for programs: JSON, UTF-8, keys in the order of the fields of `ConversionReport`, version first.

Numbers are finite: what is not becomes null. Bytes, counts and shares of 1 are not rounded; pictures are left out.
MACs are multiply-adds; each `macs_…` of a whole network has its `flops_…` = 2 x MACs beside it. A latency has its
`ratio`, and whether it is `settled`: files that differ by more than their runs vary.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from vfconvert.reporting.latency import LatencyReport
from vfconvert.reporting.report import ConversionReport, Size


def to_json(report: ConversionReport) -> str:
    """The whole report as indented JSON that ends in a newline."""
    plain = plain_value(report)
    ordered = {"schema_version": plain.pop("schema_version"), **plain}
    return json.dumps(ordered, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def plain_value(value: Any) -> Any:
    """Dicts, lists, strings, booleans, integers, finite floats and None only."""
    if is_dataclass(value):
        named = {field.name: getattr(value, field.name) for field in fields(value)}
        plain = {name: plain_value(item) for name, item in named.items() if not isinstance(item, bytes)}
        if isinstance(value, Size):
            plain |= {"flops_method": 2 * value.macs_method, "flops_executed": 2 * value.macs_executed}
        if isinstance(value, LatencyReport):
            plain |= {"ratio": plain_value(value.ratio), "settled": value.settled}
        return plain
    if isinstance(value, Mapping):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain_value(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
