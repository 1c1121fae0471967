"""Timing several things in turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of every run of one thing, in the order of the runs."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle run."""
        return median(self.seconds)

    @property
    def spread(self) -> float:
        """Between the first and the third quartile, in seconds; 0 for a single run."""
        if len(self.seconds) < 2:
            return 0.0
        first, _, third = quantiles(self.seconds, n=4, method="inclusive")
        return third - first


def in_turns(
    calls: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 2, most_seconds: float = float("inf")
) -> dict[str, Timing]:
    """Run all calls in turns, `warm_up` times untimed and `rounds` times timed, or until `most_seconds` are over.

    At least one round is timed. The order is turned round at every other round, so that none always runs after the
    same neighbour.
    """
    for _ in range(warm_up):
        for call in calls.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    begun = time.perf_counter()
    for number in range(max(rounds, 1)):
        for name in list(calls) if number % 2 == 0 else reversed(list(calls)):
            at = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - at)
        if time.perf_counter() - begun > most_seconds:
            break
    return {name: Timing(tuple(found)) for name, found in seconds.items()}
