"""Budgets as a user says them, `params=50%` or `macs=1.2G`, and as limits on the whole network's numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from vfconvert.budget.table import OptionTable
from vfconvert.errors import BudgetError

COSTS = ("params", "macs", "size", "latency")
NUMBER_BYTES = 4  # files are written in float32
_LAYER_BYTES = 2048  # of names, shapes and operators in a file, at most, for each convolution
_UNITS = {
    "params": {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9},
    "macs": {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9},
    "size": {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2.0**10, "MIB": 2.0**20, "GIB": 2.0**30},
    "latency": {"US": 1e-6, "MS": 1e-3, "S": 1.0},
}
_EXAMPLES = {"params": "params=50% or params=5M", "macs": "macs=1.2G", "size": "size=5MB", "latency": "latency=60%"}
_TEXT = re.compile(r"([a-z]+)\s*=\s*([0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*([a-z%]*)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A limit on one cost: `share` of the original's, or `amount` in numbers, MACs, bytes or seconds."""

    cost: str
    share: float | None = None
    amount: float | None = None

    def __str__(self) -> str:
        return f"{self.cost}={100 * self.share:g}%" if self.share is not None else f"{self.cost}={self.amount:g}"


def read_target(text: str) -> Target:
    """`params=50%`, `macs=1.2G`, `size=5MB`, `latency=12ms`; raises `ValueError` with what was expected."""
    found = _TEXT.fullmatch(text.strip())
    if found is None or found[1].lower() not in COSTS:
        raise ValueError(f"expected one of {', '.join(COSTS)} and a limit, like {', '.join(_EXAMPLES.values())}")
    cost, number, unit = found[1].lower(), float(found[2]), found[3].upper()
    if number <= 0:
        raise ValueError("expected a limit above 0")
    if unit == "%":
        if number > 100:
            raise ValueError("expected at most 100% of the original")
        return Target(cost=cost, share=number / 100)
    if unit not in _UNITS[cost]:
        units = ", ".join(name or "none" for name in _UNITS[cost])
        raise ValueError(f"expected a unit of {cost}: {units} or %, like {_EXAMPLES[cost]}")
    return Target(cost=cost, amount=number * _UNITS[cost][unit])


def file_bytes(table: OptionTable, parameters: float) -> float:
    """Bytes of a file with so many parameters, at most: float32 numbers, norm statistics, names and operators."""
    return NUMBER_BYTES * (parameters + table.statistics) + _LAYER_BYTES * len(table.order)


def limits_of(table: OptionTable, targets: Iterable[Target], original_bytes: int | None = None) -> dict[str, float]:
    """The limits as numbers by cost, "size" as one of "params"; the tightest where a cost has several.

    A share of a size is one of `original_bytes`, the original's file, where that is known. Raises `BudgetError` where
    latency is asked for and was not measured.
    """
    limits: dict[str, float] = {}
    for target in targets:
        cost, limit = _limit(table, target, original_bytes)
        limits[cost] = min(limit, limits.get(cost, limit))
    return limits


def whole_of(table: OptionTable, cost: str) -> float | None:
    """What the original network has of "params", "macs" or "latency"; None for a latency that was not measured."""
    return {"params": float(table.parameters), "macs": float(table.macs), "latency": table.seconds}[cost]


def _limit(table: OptionTable, target: Target, original_bytes: int | None) -> tuple[str, float]:
    if target.cost == "size":
        file = original_bytes or file_bytes(table, table.parameters)
        allowed = target.amount if target.amount is not None else (target.share or 0.0) * file
        overhead = file_bytes(table, 0)
        return "params", (allowed - overhead) / NUMBER_BYTES
    whole = whole_of(table, target.cost)
    if whole is None:
        raise BudgetError(f"--target {target}: nothing was measured; drop --no-measure, or give --costs")
    return target.cost, target.amount if target.amount is not None else (target.share or 0.0) * whole
