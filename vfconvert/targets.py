"""Budgets as a user says them: `params=50%`, `macs=1.2G`, `size=5MB`, `latency=60%`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

COSTS = ("params", "macs", "size", "latency")
_UNITS = {
    "params": {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9},
    "macs": {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9},
    "size": {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2.0**10, "MIB": 2.0**20, "GIB": 2.0**30},
    "latency": {"US": 1e-6, "MS": 1e-3, "S": 1.0},
}
_EXAMPLES = {"params": "params=50% or params=5M", "macs": "macs=1.2G", "size": "size=5MB", "latency": "latency=60%"}
_ONES = {"params": "parameter", "macs": "MAC", "size": "byte"}  # of what there is no part
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
    if not 0 < number < math.inf:
        raise ValueError("expected a limit above 0, and one that a number can hold")
    if unit == "%":
        if number > 100:
            raise ValueError("expected at most 100% of the original")
        return Target(cost=cost, share=number / 100)
    if unit not in _UNITS[cost]:
        units = ", ".join(name or "none" for name in _UNITS[cost])
        raise ValueError(f"expected a unit of {cost}: {units} or %, like {_EXAMPLES[cost]}")
    amount = number * _UNITS[cost][unit]
    if cost in _ONES and amount < 1:
        meant = f"; for that share of the original write {cost}={100 * number:g}%" if not unit else ""
        raise ValueError(f"below one {_ONES[cost]}{meant or f', expected one or more, like {_EXAMPLES[cost]}'}")
    return Target(cost=cost, amount=amount)


def amount_text(cost: str, amount: float) -> str:
    """`1,234,567` parameters or MACs, the part of one left off; `12.5 kB`, `1.25 MB`, `0.08834 ms`."""
    if cost == "latency":
        return f"{1000 * amount:,.4g} ms"
    if cost == "size":
        return f"{amount / 1e6:,.2f} MB" if amount >= 1e6 else f"{amount / 1e3:,.1f} kB"
    return f"{math.floor(amount):,}"
