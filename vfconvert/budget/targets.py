"""Targets as limits on the whole network's numbers."""

from __future__ import annotations

from collections.abc import Iterable

from vfconvert.budget.table import OptionTable
from vfconvert.errors import BudgetError
from vfconvert.targets import Target

NUMBER_BYTES = 4  # files are written in float32
# Of names, shapes and operators: of a file, and of each convolution, which may become a dozen of them.
_FILE_BYTES, _LAYER_BYTES = 4096, 4096


def file_bytes(table: OptionTable, parameters: float) -> float:
    """Bytes of a file with so many parameters, at most: float32 numbers, norm statistics, names and operators."""
    return NUMBER_BYTES * (parameters + table.statistics) + _FILE_BYTES + _LAYER_BYTES * len(table.order)


def limits_of(table: OptionTable, targets: Iterable[Target], original_bytes: int) -> dict[str, float]:
    """The limits as numbers by cost, "size" as one of "params"; the tightest where a cost has several.

    A share of a size is one of `original_bytes`, the original's file. Raises `BudgetError` where latency is asked for
    and was not measured.
    """
    limits: dict[str, float] = {}
    for target in targets:
        limit = allowed_by(table, target, original_bytes)
        if target.cost == "size":
            limit = (limit - file_bytes(table, 0)) / NUMBER_BYTES
        cost = "params" if target.cost == "size" else target.cost
        limits[cost] = min(limit, limits.get(cost, limit))
    return limits


def allowed_by(table: OptionTable, target: Target, original_bytes: int) -> float:
    """The limit in numbers, MACs, bytes or seconds."""
    if target.amount is not None:
        return target.amount
    whole = float(original_bytes) if target.cost == "size" else whole_of(table, target.cost)
    if whole is None:
        raise BudgetError(f"--target {target}: nothing was measured; drop --no-measure, or give --costs")
    return (target.share or 0.0) * whole


def whole_of(table: OptionTable, cost: str) -> float | None:
    """What the original network has of "params", "macs" or "latency"; None for a latency that was not measured."""
    return {"params": float(table.parameters), "macs": float(table.macs), "latency": table.seconds}[cost]
