"""Gates as a user says them: `params=40%` of what is to be saved, `5MB` that a file may have."""

from __future__ import annotations

from dataclasses import dataclass

from vfconvert.targets import COSTS, read_target

_ALIASES = {"bytes": "size"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Saving:
    """The least share of one cost of the original that the converted network is to save."""

    cost: str
    share: float

    def __str__(self) -> str:
        return f"{self.cost}={100 * self.share:g}%"


def read_saving(text: str) -> Saving:
    """`params=40%`, of params, macs, size (or bytes) or latency; raises `ValueError` with what was expected."""
    cost, equals, share = text.strip().partition("=")
    cost = _ALIASES.get(cost.strip().lower(), cost.strip().lower())
    if cost not in COSTS or not equals:
        raise ValueError(f"expected one of {', '.join(COSTS)} and the share to save, like params=40%")
    target = read_target(f"{cost}={share}")
    if target.share is None:
        raise ValueError(f"expected a share of the original in percent, like {cost}=40%")
    if target.share >= 1:
        raise ValueError("expected less than 100%, which no network saves")
    return Saving(cost=cost, share=target.share)


def read_bytes(text: str) -> int:
    """`5MB` is 5,000,000, `800KiB` 819,200; raises `ValueError` with what was expected."""
    if (amount := read_target(f"size={text}").amount) is None:
        raise ValueError("expected a size like 5MB; for a share of the original say --fail-under-saving size=40%")
    return int(amount)
