"""The frontier: the least damage at each size, work or time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A plan: its damage and what the whole network then has; `shares` are of the original. `chosen`: see the table."""

    chosen: tuple[int, ...]
    damage: float
    parameters: int
    macs: int
    seconds: float | None
    parameters_share: float
    macs_share: float
    seconds_share: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Frontier:
    """Points of least damage, the largest first, by one cost: "params", "macs" or "latency"."""

    cost: str
    points: tuple[Point, ...]
