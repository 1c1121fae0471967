"""An inspection for programs: JSON, UTF-8, keys in the order of the fields of `InspectReport`, version first.

Numbers are finite: what is not becomes null. Seconds, bytes, counts and shares of 1 are not rounded. `macs` and
`flops` = 2 x MACs are those of one image; `explained` = 1 - `unexplained`.
"""

from __future__ import annotations

import json
from typing import Any

from vfconvert.budget.table import LayerOptions, Option
from vfconvert.reporting.describe import shape_text
from vfconvert.reporting.inspect_report import InspectReport
from vfconvert.reporting.json_report import plain_value


def inspect_to_json(report: InspectReport) -> str:
    """The whole report as indented JSON that ends in a newline; the same report gives the same text."""
    plain = plain_value(report)
    ordered: dict[str, Any] = {"schema_version": plain.pop("schema_version")}
    for name, value in plain.items():
        ordered[name] = value
        if name == "macs":
            ordered["flops"] = 2 * report.macs
    ordered["layers"] = [_layer(layer) for layer in report.layers]
    ordered["uniform"] = [{"name": name, **plain_value(point)} for name, point in report.uniform]
    return json.dumps(ordered, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _layer(layer: LayerOptions) -> dict[str, Any]:
    return {
        "name": layer.layer,
        "shape": shape_text(layer.geometry),
        "geometry": plain_value(layer.geometry),
        "norm": layer.norm,
        "options": [_option(option) for option in layer.options],
    }


def _option(option: Option) -> dict[str, Any]:
    plain: dict[str, Any] = plain_value(option)
    text = None if option.spec is None else str(option.spec)
    return {"kind": plain.pop("kind"), "text": text, "explained": plain_value(1.0 - option.unexplained), **plain}
