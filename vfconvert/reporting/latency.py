"""How fast the files of a conversion are, as they were timed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyReport:
    """Median seconds of the original and of the written file, run in turns; spread is between the quartiles."""

    before: float
    after: float
    spread_before: float
    spread_after: float
    rounds: int
    threads: int
    batch: int
    runtime: str

    @property
    def ratio(self) -> float:
        """After over before."""
        return self.after / self.before

    @property
    def settled(self) -> bool:
        """Whether the files differ by more than the middle half of the runs of either does."""
        return abs(self.after - self.before) > max(self.spread_before, self.spread_after)


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecisionReport:
    """One file of a table of precisions: bytes, median seconds at batch 1, agreement with the original."""

    name: str
    path: str | None
    bytes: int
    seconds: float
    measure: str
    value: float
    relative_error: float
