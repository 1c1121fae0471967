"""What a container may take of the machine: processors and memory, as control groups of Linux limit them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def processors() -> int:
    """Those that this process may keep busy: bound to it, and fewer where its container gets less time than they have.

    Half a processor's time counts as one. Thread pools count the machine's: sixty-four threads in a container that is
    given two processors' time are stopped most of the time.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([bound, *(math.ceil(quota) for quota in _quotas())]))


def memory_left() -> int | None:
    """Bytes that the container may still take; None where it has no limit of its own."""
    left, names = [], [(folder, "memory.max", "memory.current") for folder in _folders()]
    names += [(folder, "memory.limit_in_bytes", "memory.usage_in_bytes") for folder in _folders("memory")]
    for folder, limit, usage in names:
        most, current = _words(folder / limit), _words(folder / usage)
        if most and current and most[0].isdigit():
            left.append(int(most[0]) - int(current[0]))
    return min(left, default=None)


def _quotas() -> Iterator[float]:
    """Processors' time per time, of every group that the process is in; of version 2 and of version 1."""
    for folder in _folders():
        words = _words(folder / "cpu.max")
        if len(words) == 2 and words[0].isdigit():
            yield int(words[0]) / int(words[1])
    for folder in (*_folders("cpu"), *_folders("cpu,cpuacct")):
        quota, period = (_words(folder / f"cpu.cfs_{what}_us") for what in ("quota", "period"))
        if quota and period and quota[0].isdigit() and int(period[0]):  # -1: none
            yield int(quota[0]) / int(period[0])


def _folders(controller: str = "") -> list[Path]:
    """Of the process's group and of those around it: of version 2, or of a controller of version 1.

    A container sees its own as the outermost, whatever path the process has.
    """
    root = _GROUPS / controller
    lines = [line.split(":", 2) for line in _OWN.read_text().splitlines()] if _OWN.is_file() else []
    own = next((path for _, names, path in lines if names == controller), "").lstrip("/")
    return [around for around in (root / own, *(root / own).parents) if around.is_relative_to(root)]


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:  # no such limit
        return []
