"""The layers as a table and chart of a page: texts, keys to sort by, and lengths of bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vfconvert.reporting.figures import (
    ALL,
    DECISION_OF_THE_REST,
    EVERYTHING_ELSE,
    Numbers,
    converted_of,
    decision_text,
    numbers_of,
    rest_of,
    totals_of,
)
from vfconvert.reporting.report import ConversionReport
from vfconvert.reporting.units import percent, small, whole


def layer_view(report: ConversionReport) -> dict[str, Any]:
    """Every Conv2d, what else there is, and the sums of both. MACs after are the executed ones where they are known."""
    totals, rows = totals_of(report), [numbers_of(row) for row in report.layers]
    executed = totals.macs_executed is not None
    widest = [max((getattr(row, name) for row in rows), default=0) for name in ("weights_before", "macs_before")]
    most_damage = max((row.damage for row in report.layers if row.damage is not None), default=None)
    layers = []
    for row, numbers in zip(report.layers, rows, strict=True):
        weights, macs = _pairs(numbers, executed=executed)
        layers.append(
            {
                "name": row.name,
                "shape": row.shape,
                "decision": decision_text(row),
                "kept": row.decision == "keep",
                "weights": weights,
                "weights_text": _texts(weights),
                "weights_bars": _bars(weights, widest[0]),
                "macs": macs,
                "macs_text": _texts(macs),
                "macs_bars": _bars(macs, widest[1]),
                "unexplained": "" if row.unexplained is None else row.unexplained,
                "unexplained_text": "" if row.unexplained is None else percent(row.unexplained),
                "unexplained_bar": _width(row.unexplained or 0.0, 1.0),
                "damage": "" if row.damage is None else row.damage,
                "damage_text": "" if row.damage is None else small(row.damage),
                "damage_bar": _width(row.damage or 0.0, most_damage or 1.0),
            }
        )
    budget = report.budget
    feet = ((EVERYTHING_ELSE, DECISION_OF_THE_REST, rest_of(report)), (ALL, "", totals))
    return {
        "layers": layers,
        "layers_note": f"{converted_of(report)} converted. Unexplained: the share of the layer's output that the "
        "closed-form fit leaves, before any step by gradient.",
        "macs_heading": "executed" if executed else "after, method's count",
        "with_damage": most_damage is not None,
        "damage_unit": "nats" if budget is not None and budget.measure == "nats" else "share",
        "damage_total": small(budget.damage) if budget is not None else "",
        "feet": [
            (name, decision, [text for pair in _pairs(numbers, executed=executed) for text in _texts(pair)])
            for name, decision, numbers in feet
        ],
    }


def _pairs(numbers: Numbers, *, executed: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    after = numbers.macs_executed if executed and numbers.macs_executed is not None else numbers.macs_after
    return (numbers.weights_before, numbers.weights_after), (numbers.macs_before, after)


def _texts(pair: Sequence[int]) -> list[str]:
    return [whole(number) for number in pair]


def _bars(pair: Sequence[int], widest: int) -> list[str]:
    return [_width(number, widest) for number in pair]


def _width(part: float, of: float) -> str:
    return f"{100 * min(max(part / of, 0.0), 1.0) if of else 0.0:.2f}%"
